"""Clients and entities of the unmodified SDK, as the tests of the fake Azure use them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.fakes.azure import FakeAzure

IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20250101.v1"
CONDA = {
    "name": "serving",
    "dependencies": ["python=3.11", "pip", {"pip": ["azureml-inference-server-http", "onnxruntime", "numpy"]}],
}
# Azure's own program in a batch job needs the first two.
BATCH_PACKAGES = ["azureml-core", "azureml-dataset-runtime[fuse]", "onnxruntime", "numpy"]
BATCH_CONDA = {"name": "scoring", "dependencies": ["python=3.11", "pip", {"pip": BATCH_PACKAGES}]}


def make_client(azure: FakeAzure, workspace: str | None = None, **settings: Any) -> Any:
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()
    return MLClient(credential, azure.subscription_id, azure.resource_group, workspace or azure.workspace, **settings)


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def make_model(path: Path, name: str, version: str | None = "1", **others: Any) -> Any:
    from azure.ai.ml.entities import Model

    return Model(name=name, version=version, path=path, **others)


def make_environment(name: str, image: str = IMAGE, conda: dict[str, Any] = CONDA) -> Any:
    from azure.ai.ml.entities import Environment

    return Environment(name=name, version="1", image=image, conda_file=conda)


def tripling_model() -> bytes:
    """An ONNX model that triples its input."""
    node = onnx.helper.make_node("Mul", ["x", "three"], ["y"])
    three = onnx.numpy_helper.from_array(np.array(3, dtype=np.float32), "three")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "tripling", ends[:1], ends[1:], [three])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()
