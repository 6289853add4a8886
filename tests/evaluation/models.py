"""Models and requests for the tests of evaluation: identities of any type, and plans made of real configurations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from packhouse.artifacts import ArtifactStore
from packhouse.candidates import Candidate, FolderSource, identify
from packhouse.config.loading import parse_config
from packhouse.evaluation.records import EvaluationRequest
from packhouse.plan import prepare

Signature = Mapping[str, tuple[int, tuple[int | str | None, ...]]]

ACCURACY = {"name": "accuracy", "type": "accuracy", "sub_types": [{"name": "accuracy_score", "priority": 1}]}
LATENCY = {"name": "latency", "type": "latency", "sub_types": [{"name": "p50", "priority": 2}]}
SIZE = {"name": "size", "type": "size_on_disk", "sub_types": [{"name": "bytes", "priority": 3}]}


def write_identity(path: Path, signature: Signature) -> Path:
    """Write a model that gives each input, a type and shape by name, back as the output ``<name>_out``."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in signature],
        "identity",
        [helper.make_tensor_value_info(name, *kind) for name, kind in signature.items()],
        [helper.make_tensor_value_info(f"{name}_out", *kind) for name, kind in signature.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def write_constant(path: Path) -> Path:
    """Write a model without inputs."""
    node = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))
    graph = helper.make_graph([node], "constant", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def candidates_with(folder: Path, *signatures: Signature) -> tuple[Candidate, ...]:
    """Return one real candidate per signature."""
    for index, signature in enumerate(signatures):
        write_identity(folder / f"{index}.onnx", signature)
    return identify(FolderSource(path=folder).find())


def floats(*shape: int | str | None) -> tuple[int, tuple[int | str | None, ...]]:
    """Return the type and shape of an input of floats."""
    return TensorProto.FLOAT, shape


def requests_for(models: Path, store: ArtifactStore, *metrics: Mapping[str, Any], **config: Any) -> list[EvaluationRequest]:
    """Return the evaluations that a configuration asks for, with everything that they need in the store."""
    document = {
        "candidates": {"type": "folder", "path": str(models)},
        "metrics": metrics,
        "output_dir": str(models.parent / "out"),
        **config,
    }
    return list(prepare(parse_config(document)).receive(store).requests)
