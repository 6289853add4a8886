"""Small real models and data for tests: linear classifiers of points in the plane, as ONNX files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 3
CENTRES = np.array([[2.0, 0.0], [-1.0, 1.8], [-1.0, -1.8]], dtype=np.float32)


def write_classifier(
    path: Path, *, error: float = 0.0, layers: int = 1, external: str | None = None, batch: Any = "n", padding_bytes: int = 0
) -> Path:
    """Write a classifier of points ``x`` (n × 2) to scores ``y`` (n × 3) and return its path.

    `error` turns the decision by that many radians, so that accuracy falls; `layers` adds work that changes nothing;
    `padding_bytes` adds weights that nothing uses; `external` keeps the weights in a file of that name beside the model.
    """
    turn = np.array([[np.cos(error), -np.sin(error)], [np.sin(error), np.cos(error)]], dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h0"], "scores")]
    eye = np.eye(CLASSES, dtype=np.float32)
    weights = [numpy_helper.from_array(turn @ CENTRES.T, "w"), numpy_helper.from_array(eye, "eye")]
    if padding_bytes:
        padding = np.random.default_rng(0).integers(0, 256, padding_bytes, dtype=np.uint8)
        weights.append(numpy_helper.from_array(padding, "padding"))
    for layer in range(layers):
        output = "y" if layer == layers - 1 else f"h{layer + 1}"
        nodes.append(helper.make_node("MatMul", [f"h{layer}", "eye"], [output], f"layer{layer}"))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def points(count: int = 90, seed: int = 0) -> tuple[Any, Any]:
    """Return `count` points (count × 2, float32) around the centres, and the class of each (int64)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    return (CENTRES[labels] + 0.6 * random.normal(size=(count, 2))).astype(np.float32), labels


def write_points(path: Path, count: int = 90, **arrays: Any) -> Path:
    """Write points as ``x`` and classes as ``label`` to an .npz file, with further or other arrays, and return its path."""
    samples, labels = points(count)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{"x": samples, "label": labels, **arrays})
    return path


def write_family(folder: Path, errors: Sequence[float] = (0.0, 0.5)) -> Path:
    """Write a folder of classifiers ``turned-<error>.onnx``, and return it."""
    for error in errors:
        write_classifier(folder / f"turned-{error}.onnx", error=error)
    return folder
