"""Models larger than a protobuf may be: graded and packed without passing through the flow's memory."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.jobs import job
from tests.real.conftest import Packhouse
from tests.real.test_runs import wait_until

WIDTH = 5000
LAYERS = 22
BYTES = LAYERS * WIDTH * WIDTH * 4
LIMIT_BYTES = 1 << 30
pytestmark = pytest.mark.real


def test_a_model_of_2_2_gb_is_graded_and_packed_in_less_than_1_gb_of_the_flow(packhouse: Packhouse, tmp_path: Path) -> None:
    write_large_model(tmp_path / "candidates" / "large" / "model.onnx")
    samples = np.ones((2, WIDTH), dtype=np.float32)
    np.savez(tmp_path / "points.npz", x=samples)
    metrics = [
        {"name": "latency", "type": "latency", "sub_types": [{"name": "p50", "priority": 1}]},
        {"name": "size", "type": "size_on_disk", "sub_types": [{"name": "bytes"}]},
        {"name": "memory", "type": "peak_memory", "sub_types": [{"name": "bytes"}]},
    ]
    config = tmp_path / "packhouse.json"
    config.write_text(json.dumps(job(data={"path": "points.npz"}, metrics=metrics)))
    run = packhouse.start("run", config, "--json")
    peak = 0

    def ended() -> bool:
        nonlocal peak
        status = Path(f"/proc/{run.pid}/status").read_text() if run.poll() is None else ""
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))])
        return run.poll() is not None

    wait_until(ended, timeout_s=500)
    output, errors = run.communicate()
    assert run.returncode == 0, errors
    assert 0 < peak < LIMIT_BYTES
    (evaluation,) = json.loads(output)["job"]["evaluations"]
    assert evaluation["metrics"]["size-bytes"]["value"] > BYTES
    assert evaluation["metrics"]["memory-bytes"]["value"] > BYTES / 2
    with zipfile.ZipFile(tmp_path / "packages" / "points.zip") as archive:
        assert archive.getinfo("CandidateModels/cpu-cpu/BestCandidateModel_1/weights.bin").file_size == BYTES


def write_large_model(path: Path) -> None:
    """Write a chain of matrix products whose weights lie in one file of external data beside it."""
    path.parent.mkdir(parents=True)
    weights = []
    with (path.parent / "weights.bin").open("wb") as file:
        for layer in range(LAYERS):
            values = np.random.default_rng(layer).random((WIDTH, WIDTH), dtype=np.float32) / WIDTH
            tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=values.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": "weights.bin", "offset": file.tell(), "length": values.nbytes}.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(values.tobytes())
            weights.append(tensor)
    names = ["x", *(f"h{layer}" for layer in range(1, LAYERS)), "y"]
    nodes = [helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]) for layer in range(LAYERS)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
