"""What lies in ``docker_content``: the model with what describes it, the server that serves it, and what is to be installed."""

from collections.abc import Sequence
from pathlib import Path

from packhouse.artifacts import ArtifactStore
from packhouse.candidates import MODEL_NAME
from packhouse.packaging import runtime_packages
from packhouse.packaging.candidate_files import candidate_files
from packhouse.packaging.contents import Content, below, model_contents
from packhouse.packaging.inference_server import SERVING_NAME
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.mlflow import format as mlflow_format
from packhouse.packaging.olive_files import model_info
from packhouse.packaging.runtime_packages import REQUIREMENTS, RUNTIME_FOLDER
from packhouse.packaging.serving import server_modules, serving
from packhouse.ranking import Ranked

CONTENT = "docker_content"
SERVER_FOLDER = "server/inference_server"


def model_path(in_mlflow_format: bool) -> str:
    """Return where the model lies in the folder; an MLflow model has one of its own, since its requirements are others."""
    return f"{mlflow_format.FOLDER}/{MODEL_NAME}" if in_mlflow_format else MODEL_NAME


def served_model(
    name: str, job: PackagingJob, best: Ranked, store: ArtifactStore, *, in_mlflow_format: bool
) -> dict[str, Content]:
    """Return the model, which is served as `name`, what describes it, and the server.

    Raises:
        PackagingFailed: a file of the candidate has a name that is taken; or MLflow could not load the model.
    """
    path = model_path(in_mlflow_format)
    described = {
        **candidate_files(job, best, model_info(job, job.best, f"{CONTENT}/{path}"), store),
        **below(SERVER_FOLDER, server_modules()),
        SERVING_NAME: serving(name, job, best, path),
    }
    if in_mlflow_format:
        return {**mlflow_format.model_folder(job, best, store), **described}
    return model_contents(job.candidate(best.candidate), store, described)


def installed(requirements: Sequence[str], cache: Path, *, with_wheels: bool) -> dict[str, Content]:
    """Return the exact requirements with digests, and their wheels."""
    if not with_wheels:
        return {REQUIREMENTS: Content.of(runtime_packages.lock(requirements).encode())}
    files = {path.name: path for path in runtime_packages.fetch_all(requirements, cache)}
    pinned = files.pop(REQUIREMENTS)
    wheels = {name: Content.of(path) for name, path in files.items()}
    return {REQUIREMENTS: Content.of(_without_comments(pinned).encode()), **below(RUNTIME_FOLDER, wheels)}


def _without_comments(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))
