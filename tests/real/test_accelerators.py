"""Real execution providers in real environments: what runs on them runs there wholly, and what falls back is refused."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from packhouse.accelerators import Accelerator, InferenceSettings
from packhouse.errors import EvaluationFailed
from packhouse.evaluation.probe import probe
from packhouse.evaluation.runtimes import RuntimeEnvironments
from packhouse.evaluation.session_host import SessionHost
from packhouse.evaluation.sessions import session_arguments
from tests.classifiers import CENTRES, points, write_classifier
from tests.jobs import write_job
from tests.real.conftest import Packhouse

pytestmark = pytest.mark.real

STOCK = f"onnxruntime=={metadata.version('onnxruntime')}"
X, _ = points(7)

OPENVINO = Accelerator(
    execution_provider="OpenVINOExecutionProvider",
    provider_options={"device_type": "CPU"},
    runtime=("onnxruntime-openvino==1.24.1",),
)
QNN = Accelerator(  # the simulator of the NPU, which is a CPU device
    execution_provider="QNNExecutionProvider",
    provider_options={"backend_path": "{plugin}/libQnnHtp.so"},
    runtime=(STOCK, "onnxruntime-qnn==2.7.0"),
    plugin="onnxruntime_qnn",
)
NXRT = Accelerator(execution_provider="cpu_ep", runtime=(STOCK, "nxrt-ep-cpu==0.1.0.dev6"), plugin="nxrt_ep_cpu")
INTEL = Accelerator(
    execution_provider="OpenVINOExecutionProvider",
    runtime=(STOCK, "onnxruntime-ep-openvino==1.8.1"),
    plugin="onnxruntime_ep_openvino",
)
Run = Callable[[Accelerator, Path], dict[str, Any]]


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> RuntimeEnvironments:
    return RuntimeEnvironments(tmp_path_factory.mktemp("runtimes"))


@pytest.fixture
def run(environments: RuntimeEnvironments, tmp_path: Path) -> Run:
    """A function that runs a model on an accelerator and returns the answer of create_session and the predictions."""

    def run(accelerator: Accelerator, model: Path, **arrays: Any) -> dict[str, Any]:
        np.savez(tmp_path / "data.npz", **(arrays or {"x": X}))
        with SessionHost(tmp_path, environments.python(accelerator.runtime)) as host:
            host.ask("read_data", path=str(tmp_path / "data.npz"), inputs={name: name for name in arrays or {"x": X}})
            created = host.ask("create_session", **session_arguments(accelerator, InferenceSettings(), model))
            host.ask("predict", batch_size=1, output=str(tmp_path / "predictions.npz"))
        assert host._process.returncode == 0, (tmp_path / "worker.log").read_text()
        with np.load(tmp_path / "predictions.npz") as file:
            return {**created, "predictions": {name: file[name] for name in file.files}}

    return run


def on(accelerator: Accelerator, **changes: Any) -> Accelerator:
    return Accelerator.model_validate({**accelerator.model_dump(), **changes})


def save(path: Path, *nodes: tuple[str, str, str], shape: tuple[int | str, ...]) -> Path:
    """Write a model of nodes with one input and one output each, from the input ``x`` to the output ``y``."""
    graph = helper.make_graph(
        [helper.make_node(operator, [source], [target]) for operator, source, target in nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("accelerator", "version"), [(OPENVINO, "1.24.1"), (QNN, STOCK), (NXRT, STOCK)], ids=["openvino", "qnn", "nxrt"]
)
def test_a_candidate_runs_with_all_nodes_on_the_provider(
    run: Run, tmp_path: Path, accelerator: Accelerator, version: str
) -> None:
    found = run(accelerator, write_classifier(tmp_path / "a.onnx", batch=1))

    assert list(found["placement"]) == [accelerator.execution_provider]
    assert found["placement"][accelerator.execution_provider] > 0
    assert found["onnxruntime"] == version.removeprefix("onnxruntime==")
    np.testing.assert_allclose(found["predictions"]["y"], X @ CENTRES.T, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("accelerator", [OPENVINO, QNN, NXRT], ids=["openvino", "qnn", "nxrt"])
def test_the_probe_runs_where_candidates_do(environments: RuntimeEnvironments, accelerator: Accelerator) -> None:
    assert probe(accelerator, environments.python(accelerator.runtime)) is None


class TestNodeFallback:
    def test_of_everything_is_refused_although_the_provider_is_listed_first(self, run: Run, tmp_path: Path) -> None:
        """The plug-in registers, finds a device, is first in the session's providers, and leaves a Det to the CPU."""
        model = save(tmp_path / "a.onnx", ("Det", "x", "y"), shape=("n", 2, 2))

        with pytest.raises(EvaluationFailed) as caught:
            run(NXRT, model)

        assert str(caught.value) == "cpu_ep does not take all of its nodes: 0 run there, 1 on CPUExecutionProvider (Det)"

    def test_of_some_nodes_is_refused_with_their_number(self, run: Run, tmp_path: Path) -> None:
        model = save(tmp_path / "a.onnx", ("Erf", "x", "h"), ("Det", "h", "y"), shape=(2, 2))

        with pytest.raises(EvaluationFailed) as caught:
            run(NXRT, model)

        assert str(caught.value) == "cpu_ep does not take all of its nodes: 1 run there, 1 on CPUExecutionProvider (Det)"


class TestFallbackOfTheConstructor:
    def test_is_refused_with_what_the_provider_said(self, run: Run, tmp_path: Path) -> None:
        """Without a backend the plug-in cannot be created, and onnxruntime's Python interface would retry on the CPU."""
        with pytest.raises(EvaluationFailed) as caught:
            run(on(QNN, provider_options={}), write_classifier(tmp_path / "a.onnx", batch=1))

        assert str(caught.value).startswith(
            "QNNExecutionProvider failed to create the session, and onnxruntime's retry on the CPU is refused: RuntimeError: "
        )
        assert "Could not determine default backend path" in str(caught.value)


class TestAbsentDevices:
    def test_a_provider_that_is_listed_and_does_not_start_is_refused_with_its_reason(
        self, environments: RuntimeEnvironments
    ) -> None:
        """As onnxruntime-gpu lists CUDA where there is no GPU."""
        reason = probe(
            on(OPENVINO, device="gpu", provider_options={"device_type": "GPU"}), environments.python(OPENVINO.runtime)
        )

        assert reason is not None
        assert reason.startswith("OpenVINOExecutionProvider is in onnxruntime 1.24.1 and does not work here; all would run on")
        assert reason.endswith("Device GPU is not available")

    def test_cuda_on_the_stock_wheel_is_refused_with_what_there_is(self, environments: RuntimeEnvironments) -> None:
        cuda = Accelerator(device="gpu", execution_provider="CUDAExecutionProvider", runtime=(STOCK,))

        reason = probe(cuda, environments.python(cuda.runtime))

        assert reason is not None
        assert reason.startswith("CUDAExecutionProvider is not in this onnxruntime")

    def test_a_plugin_that_is_loaded_and_drives_no_such_device_is_refused(self, environments: RuntimeEnvironments) -> None:
        reason = probe(on(INTEL, device="npu"), environments.python(INTEL.runtime))

        assert reason is not None
        assert "onnxruntime_ep_openvino finds no device here" in reason or "and no npu; write device: " in reason

    def test_a_simulator_is_no_npu(self, environments: RuntimeEnvironments) -> None:
        reason = probe(on(QNN, device="npu"), environments.python(QNN.runtime))

        assert reason == "QNNExecutionProvider of onnxruntime_qnn drives a cpu here, and no npu; write device: cpu"


def test_two_distributions_get_two_environments(environments: RuntimeEnvironments) -> None:
    assert environments.python(OPENVINO.runtime) != environments.python((STOCK,)) != environments.python(QNN.runtime)


def test_a_plugin_that_needs_another_distribution_is_refused(environments: RuntimeEnvironments) -> None:
    with pytest.raises(EvaluationFailed, match="brings onnxruntime and onnxruntime-openvino, which overwrite each other's"):
        environments.python(("onnxruntime-openvino==1.24.1", "onnxruntime-qnn==2.7.0"))


def test_an_onnxruntime_that_does_not_tell_where_nodes_run_is_refused(environments: RuntimeEnvironments) -> None:
    old = Accelerator(runtime=("onnxruntime==1.23.2",))

    assert "onnxruntime 1.23.2 does not tell which provider runs each node" in str(probe(old, environments.python(old.runtime)))


def test_a_run_grades_on_accelerators_with_runtimes_of_their_own(packhouse: Packhouse, tmp_path: Path) -> None:
    accelerators = [item.model_dump(mode="json") for item in (Accelerator(), OPENVINO, NXRT)]
    config = write_job(tmp_path, accelerators=accelerators, packaging=[])
    before = packhouse.run("plan", config)
    assert "cpu-openvino: a run will first install onnxruntime-openvino==1.24.1" in " ".join(before.split())
    assert not (packhouse.results.parent / "packhouse-cache").exists()

    release = packhouse.release(config)

    assert {spec: len(found["ranked"]) for spec, found in release["job"]["by_accelerator"].items()} == {
        "cpu-cpu": 2,
        "cpu-openvino": 2,
        "cpu-cpu-ep": 2,
    }
    versions = {item["accelerator"]: item["runtime_version"] for item in release["job"]["evaluations"]}
    assert versions["cpu-openvino"] == "1.24.1"
    after = packhouse.run("plan", config)
    assert "install" not in after
    assert "does not run" not in after
