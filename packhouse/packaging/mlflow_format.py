"""The files that make a folder with ``model.onnx`` an MLflow model, written without loading the weights."""

import importlib.util
import json
from collections.abc import Sequence
from typing import Any

import yaml

from packhouse.candidates import MODEL_NAME, TensorInfo
from packhouse.errors import Problem
from packhouse.packaging.contents import Content
from packhouse.packaging.job import PackagingJob
from packhouse.ranking import Ranked

PYTHON_VERSION = "3.11"
EPOCH = "1980-01-01 00:00:00.000000"
EXECUTION_MODES = ("SEQUENTIAL", "PARALLEL")


def problems(where: str) -> Sequence[Problem]:
    """Say whether MLflow is missing, which the format is written with."""
    if importlib.util.find_spec("mlflow"):
        return ()
    return (Problem(where, "needs MLflow, which is not installed", "pip install 'packhouse[mlflow]'"),)


def description(job: PackagingJob, ranked: Ranked) -> dict[str, Content]:
    """Return ``MLmodel`` and the environment files for a model that lies beside them as ``model.onnx``."""
    from mlflow import pyfunc
    from mlflow.models import Model

    candidate = job.candidate(ranked.candidate)
    settings = job.accelerator(ranked.accelerator).session_for(candidate.settings)
    provider, options = settings.execution_provider, settings.session_options.model_dump(exclude_none=True)
    if "execution_mode" in options:
        options["execution_mode"] = EXECUTION_MODES[options["execution_mode"]]
    requirements = ["mlflow-skinny", "onnx", "pandas", "==".join(job.runtime_on(ranked.accelerator))]
    model = Model(
        utc_time_created=EPOCH,
        model_uuid=candidate.digest[:32],
        signature=_signature(candidate.inputs, candidate.outputs),
        metadata={"candidate": candidate.name, "accelerator": ranked.accelerator},
    )
    pyfunc.add_to_model(
        model, loader_module="mlflow.onnx", data=MODEL_NAME, conda_env="conda.yaml", python_env="python_env.yaml"
    )
    model.add_flavor(
        "onnx",
        data=MODEL_NAME,
        providers=[[provider, settings.provider_options] if settings.provider_options else provider],
        onnx_session_options=options or None,
        code=None,
    )
    python_env = {"python": PYTHON_VERSION, "dependencies": ["-r requirements.txt"]}
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={PYTHON_VERSION}", "pip", {"pip": requirements}],
    }
    return {
        "MLmodel": Content.of(model.to_yaml().encode()),
        "conda.yaml": _yaml(conda),
        "python_env.yaml": _yaml(python_env),
        "requirements.txt": Content.of("".join(f"{line}\n" for line in requirements).encode()),
    }


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
