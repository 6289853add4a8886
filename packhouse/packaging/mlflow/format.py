"""The files that make a folder with ``model.onnx`` an MLflow model, written without loading the weights.

MLflow's loader falls back to the CPU, with a warning only, where a provider is missing or does not start. Models for other
devices therefore forbid it in their session options, which its second attempt uses too: they load where they can run, or not.
"""

import importlib.util
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import yaml

from packhouse.accelerators import SessionSettings
from packhouse.artifacts import ArtifactStore
from packhouse.candidates import MODEL_NAME, Candidate, TensorInfo
from packhouse.errors import PackagingFailed, Problem
from packhouse.packaging.contents import Content, below, model_contents
from packhouse.packaging.golden import fixed_batch, golden_inputs
from packhouse.packaging.job import PackagingJob
from packhouse.pins import parse_runtime
from packhouse.ranking import Ranked

FOLDER = "mlflow_model"  # where a package has more than the model
EPOCH = "1980-01-01 00:00:00.000000"
CPU = "CPUExecutionProvider"
EXECUTION_MODES = ("SEQUENTIAL", "PARALLEL")
NO_FALLBACK = {"session.disable_cpu_ep_fallback": "1"}
LOADER = ("mlflow-skinny", "numpy", "onnx", "pandas")  # what MLflow imports to load and call an ONNX model
EXAMPLE_NAME, SERVING_NAME = "input_example.json", "serving_input_example.json"
MAX_EXAMPLE_VALUES = 1 << 20  # more makes a text that nobody reads


def problems(where: str) -> Sequence[Problem]:
    """Say whether MLflow is missing, which the format is written with."""
    if importlib.util.find_spec("mlflow"):
        return ()
    return (Problem(where, "needs MLflow, which is not installed", "pip install 'packhouse[mlflow]'"),)


def depends_on() -> dict[str, str | None]:
    """Return what the files say of this environment: the versions of Python, and of MLflow and what it loads with."""
    return {"python": platform.python_version(), **{name: _installed(name) for name in LOADER}}


def model_folder(job: PackagingJob, ranked: Ranked, store: ArtifactStore) -> dict[str, Content]:
    """Return the files of an MLflow model in a folder of its own.

    Raises:
        PackagingFailed: the candidate has a file whose name is taken, or that not every system can have; or MLflow could not
            load the model.
    """
    return below(FOLDER, model_contents(job.candidate(ranked.candidate), store, description(job, ranked, store)))


def description(job: PackagingJob, ranked: Ranked, store: ArtifactStore) -> dict[str, Content]:
    """Return ``MLmodel``, the environment files and an input example for a model that lies beside them as ``model.onnx``.

    Raises:
        PackagingFailed: the provider is a plug-in's, which MLflow's loader does not register.
    """
    if plugin := job.accelerator(ranked.accelerator).plugin:
        raise PackagingFailed(
            f"{job.candidate(ranked.candidate).name!r} was ranked on {ranked.accelerator}, whose provider is in the plug-in "
            f"{plugin}, which MLflow does not load; package it as Zipfile, without export_in_mlflow_format"
        )
    from mlflow import pyfunc
    from mlflow.models import Model

    candidate = job.candidate(ranked.candidate)
    settings = job.accelerator(ranked.accelerator).session_for(candidate.settings)
    example = _input_example(job, candidate, store)
    model = Model(
        utc_time_created=EPOCH,
        model_uuid=candidate.digest[:32],
        signature=_signature(candidate.inputs, candidate.outputs),
        saved_input_example_info=_example_info() if example else None,
        metadata={"candidate": candidate.name, "accelerator": ranked.accelerator},
    )
    pyfunc.add_to_model(
        model, loader_module="mlflow.onnx", data=MODEL_NAME, conda_env="conda.yaml", python_env="python_env.yaml"
    )
    model.add_flavor(
        "onnx",
        data=MODEL_NAME,
        providers=[
            [settings.execution_provider, settings.provider_options]
            if settings.provider_options
            else settings.execution_provider
        ],
        onnx_session_options=_session_options(settings) or None,
        code=None,
    )
    return {"MLmodel": Content.of(model.to_yaml().encode()), **_environment(requirements(job, ranked)), **example}


def requirements(job: PackagingJob, ranked: Ranked) -> list[str]:
    """Return what a model needs to be loaded, pinned: the runtime that it was measured with, and MLflow's loader as it is here.

    MLflow itself is the part of it without a server, which any installation of MLflow of that version satisfies.
    """
    pins = parse_runtime(job.accelerator(ranked.accelerator).runtime)
    runtime = [str(pin) for pin in pins] or ["==".join(job.runtime_on(ranked.accelerator))]
    pinned = {pin.name for pin in pins}
    return sorted([*runtime, *(f"{name}=={metadata.version(name)}" for name in LOADER if name not in pinned)])


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _session_options(settings: SessionSettings) -> dict[str, Any]:
    """Return the session options as MLflow's loader reads them."""
    options = settings.session_options.model_dump(exclude_none=True)
    if "execution_mode" in options:
        options["execution_mode"] = EXECUTION_MODES[options["execution_mode"]]
    if settings.execution_provider != CPU:
        options["extra_session_config"] = {**options.get("extra_session_config", {}), **NO_FALLBACK}
    return options


def _environment(requirements: Sequence[str]) -> dict[str, Content]:
    """Return the files that tools make an environment of: pip, virtualenv or conda."""
    python = platform.python_version()
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": list(requirements)}],
    }
    return {
        "conda.yaml": _yaml(conda),
        "python_env.yaml": _yaml({"python": python, "dependencies": ["-r requirements.txt"]}),
        "requirements.txt": Content.of("".join(f"{line}\n" for line in requirements).encode()),
    }


def _input_example(job: PackagingJob, candidate: Candidate, store: ArtifactStore) -> dict[str, Content]:
    """Return the first sample as MLflow's tools take it, from a file and as a request; none where it is huge."""
    if any(value.dtype == "unknown" for value in candidate.inputs):
        return {}
    arrays = golden_inputs(job, candidate, fixed_batch(candidate), store)
    if sum(array.size for array in arrays.values()) > MAX_EXAMPLE_VALUES:
        return {}
    tensors = {name: array.tolist() for name, array in arrays.items()}
    return {EXAMPLE_NAME: _json(tensors), SERVING_NAME: _json({"inputs": tensors})}


def _example_info() -> dict[str, str]:
    return {"artifact_path": EXAMPLE_NAME, "serving_input_path": SERVING_NAME, "type": "ndarray"}


def _signature(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Any:
    """Return MLflow's signature; it knows tensors only, and is silent on the outputs where one is a sequence or a map."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    def schema(values: Sequence[TensorInfo]) -> Any:
        if any(value.dtype == "unknown" for value in values):
            return None
        tensors = [
            {
                "name": value.name,
                "type": "tensor",
                "tensor-spec": {
                    "dtype": value.dtype,
                    "shape": [size if isinstance(size, int) else -1 for size in value.shape],
                },
            }
            for value in values
        ]
        return Schema.from_json(json.dumps(tensors))

    return ModelSignature(inputs=schema(inputs), outputs=schema(outputs))


def _yaml(value: Any) -> Content:
    return Content.of(yaml.safe_dump(value, sort_keys=False).encode())


def _json(value: Any) -> Content:
    return Content.of(json.dumps(value).encode())
