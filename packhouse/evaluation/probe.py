"""Whether an accelerator works on this machine: what counts is that a model really runs on it, not what is listed."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from packhouse.accelerators import Accelerator, InferenceSettings
from packhouse.errors import EvaluationFailed
from packhouse.evaluation.session_host import SessionHost
from packhouse.evaluation.sessions import session_arguments

TIMEOUT_S = 120.0
INPUTS, OUTPUTS = 4, 3


def probe(accelerator: Accelerator, python: str = sys.executable) -> str | None:
    """Run a tiny model on exactly `accelerator`, with the onnxruntime of `python`; return why it does not run, or None."""
    with tempfile.TemporaryDirectory(prefix="packhouse-") as folder:
        scratch = Path(folder)
        model, data = scratch / "probe.onnx", scratch / "data.npz"
        onnx.save(_model(), model)
        np.savez(data, x=np.ones((1, INPUTS), np.float32))
        try:
            with SessionHost(scratch, python, TIMEOUT_S) as host:
                host.ask("read_data", path=str(data), inputs={"x": "x"})
                host.ask("create_session", **session_arguments(accelerator, InferenceSettings(), model))
                host.ask("predict", batch_size=1, output=str(scratch / "outputs.npz"))
        except EvaluationFailed as error:
            return str(error)
    return None


def _model() -> onnx.ModelProto:
    """Return a matrix product and a sum of floats in fixed shapes: what every provider can run."""
    weights = {"w": np.ones((INPUTS, OUTPUTS), np.float32), "b": np.ones(OUTPUTS, np.float32)}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, OUTPUTS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
