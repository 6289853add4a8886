"""Register a package in an MLflow server: a run with its files and measurements, a version of a model, and an alias.

The version is made when the files were fetched back from the server and do what they should, and the alias is set last, so
nothing half done can be seen. A package is known by its digest: where it is registered already, nothing is made anew.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packhouse.artifacts import measure
from packhouse.errors import EvaluationFailed, RegistrationFailed, VerificationFailed
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest, PackagedCandidate
from packhouse.packaging.tied import tied
from packhouse.records import digest_of
from packhouse.verification.score import Score

CLIENT = Path(__file__).with_name("client.py")
FOREIGN = ("MLFLOW_", "DATABRICKS_")  # variables of other servers
RETRIES = 2  # of one request; the task that registers tries again too
REMEDIES = {
    401: "check the user name and password, or the token, of the block",
    403: "give the block's user the right to make experiments and registered models",
    404: "check tracking_uri of the block; it has to be an MLflow 3 server",
}
KEY_FORBIDS = re.compile(r"[^/\w.\- :]")  # in the names of metrics and tags
UNREACHABLE = "check that the server runs and that tracking_uri of the block is right"

CheckCopy = Callable[[Path], Score]


@dataclass(frozen=True)
class MLflowRegistry:
    """An MLflow server and how to log in to it; what its requests say never has a secret in it."""

    tracking_uri: str
    registry_uri: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    timeout_s: int = 120
    ca_file: str | None = None
    is_insecure: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that speaks to this server and to no other."""
        given = {
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_REGISTRY_URI": self.registry_uri or self.tracking_uri,
            "MLFLOW_TRACKING_USERNAME": self.username,
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "MLFLOW_TRACKING_TOKEN": self.token,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": self.ca_file,
            "MLFLOW_TRACKING_INSECURE_TLS": "true" if self.is_insecure else None,
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(self.timeout_s),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(RETRIES),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        return {**inherited, **{key: value for key, value in given.items() if value is not None}}

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Return what the server answers, through a process of its own.

        Raises:
            RegistrationFailed: with the server's reason and the remedy.
        """
        done = subprocess.run(
            tied([sys.executable, "-P", str(CLIENT)]),
            check=False,
            input=json.dumps({"do": do, **request}),
            capture_output=True,
            text=True,
            env=self.environment,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise RegistrationFailed(self._without_secrets(f"the process that speaks to {self.tracking_uri} ended: {last}"))
        answer: dict[str, Any] = json.loads(done.stdout)
        if "refused" in answer:
            remedy = REMEDIES.get(answer["status"], UNREACHABLE if answer["is_transient"] else "")
            reason = f"MLflow at {self.tracking_uri}: {answer['refused']}" + (f" → {remedy}" if remedy else "")
            raise RegistrationFailed(self._without_secrets(reason), is_transient=answer["is_transient"])
        found: dict[str, Any] = answer["ok"]
        return found

    def _without_secrets(self, text: str) -> str:
        for secret in (self.password, self.token):
            text = text.replace(secret, "***") if secret else text
        return text


def register_package(
    package: Path, job: PackagingJob, registry: MLflowRegistry, *, name: str, alias: str | None, scratch: Path, check: CheckCopy
) -> str:
    """Register a package folder under a model's name, and return the address of its version.

    `check` opens the copy that was fetched back, runs it, and scores it.

    Raises:
        RegistrationFailed: the server cannot be reached or refuses, or what it gives back is not what it was given.
    """
    manifest = Manifest.model_validate_json((package / MANIFEST_NAME).read_bytes())
    known = {"name": name, "digest": _digest(package, manifest)}
    sizes = {file: entry.size_bytes for file, entry in manifest.files.items()}
    sizes[MANIFEST_NAME] = (package / MANIFEST_NAME).stat().st_size
    found = registry.ask("upload", **known, folder=str(package), sizes=sizes, copy_to=str(scratch))
    scores: dict[str, str] = {}
    if found["copy"]:
        try:
            scores = _checked(Path(found["copy"]), package, check)
        except (VerificationFailed, EvaluationFailed) as error:
            registry.ask("discard", **known, run=found["run"])
            raise RegistrationFailed(
                f"what MLflow at {registry.tracking_uri} gives back is not the package: {error}", is_transient=True
            ) from error
    (packaged,) = manifest.candidates
    made = registry.ask(
        "publish",
        **known,
        run=found["run"],
        metrics=_metrics(packaged),
        params=_params(packaged, job),
        tags={**_tags(packaged), **scores},
        alias=alias,
    )
    return f"{registry.registry_uri or registry.tracking_uri}/#/models/{quote(name)}/versions/{made['version']}"


def _checked(copy: Path, package: Path, check: CheckCopy) -> dict[str, str]:
    """Compare a copy with the package and score it; the score as tags. Opening it compares every file with its manifest."""
    if (copy / MANIFEST_NAME).read_bytes() != (package / MANIFEST_NAME).read_bytes():
        raise VerificationFailed(f"{MANIFEST_NAME} differs")
    return {f"packhouse.scored.{_key(item.metric)}": repr(item.packaged) for item in check(copy).metrics}


def _digest(package: Path, manifest: Manifest) -> str:
    """Return the digest of the package as the release has it."""
    files = {f"{package.name}/{name}": file.sha256 for name, file in manifest.files.items()}
    return digest_of({**files, f"{package.name}/{MANIFEST_NAME}": measure(package / MANIFEST_NAME).sha256})


def _metrics(packaged: PackagedCandidate) -> dict[str, float]:
    """Return every metric, and where it has an interval, its ends as ``<metric>.low`` and ``<metric>.high``."""
    metrics: dict[str, float] = {}
    for own_name, metric in packaged.metrics.items():
        name = _key(own_name)
        metrics[name] = metric.value
        if metric.interval:
            metrics[f"{name}.low"], metrics[f"{name}.high"] = metric.interval
    return metrics


def _key(metric: str) -> str:
    """Return the name of a metric as MLflow takes it: ``recall@10`` as ``recall_10``."""
    return KEY_FORBIDS.sub("_", metric)


def _params(packaged: PackagedCandidate, job: PackagingJob) -> dict[str, str]:
    """Return how the model was run when it was measured."""
    candidate, accelerator = job.candidate(packaged.digest), job.accelerator(packaged.accelerator)
    session = accelerator.session_for(candidate.settings)
    options = session.session_options.model_dump(exclude_none=True)
    return _texts(
        {
            "execution_provider": session.execution_provider,
            "runtime": packaged.runtime,
            "runtime_version": packaged.runtime_version,
            "opset": packaged.opset,
            **{f"provider_options.{key}": value for key, value in session.provider_options.items()},
            **{f"session_options.{key}": value for key, value in options.items()},
        }
    )


def _tags(packaged: PackagedCandidate) -> dict[str, str]:
    return _texts(
        {
            "packhouse.candidate": packaged.name,
            "packhouse.candidate_digest": packaged.digest,
            "packhouse.accelerator": packaged.accelerator,
            "packhouse.rank": packaged.overall_rank,
            "packhouse.decided_by": packaged.decided_by,
        }
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value is not None}
