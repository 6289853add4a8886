"""Real sessions in real workers: what runs where, what goes in and comes out, and what is refused."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from packhouse.errors import EvaluationFailed
from packhouse.evaluation import session_host
from packhouse.evaluation.session_host import SessionHost
from tests.classifiers import CENTRES, points, write_classifier
from tests.evaluation.models import floats, write_identity

CPU = "CPUExecutionProvider"
X, _ = points(7)
TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
}
# The real worker, which also tells what it creates sessions with.
SPYING = """
from packhouse.evaluation import worker
class Session(worker.ort.InferenceSession):
    def __init__(self, model, options, **more):
        worker.Worker.seen = lambda self: more
        super().__init__(model, options, **more)
worker.ort.InferenceSession = Session
worker.main()
"""
# A plug-in provider and a session that note what is done with them, in the place of native code.
PLUGIN = """
import sys
from types import ModuleType, SimpleNamespace as Thing
from packhouse.evaluation import worker
calls, names = [], []
def device(name, kind):
    return Thing(ep_name=name, device=Thing(type=Thing(name=kind)))
def register(name, path):
    calls.append(f"register {name} {path}")
    names.append(name)
class Options(worker.ort.SessionOptions):
    def add_provider_for_devices(self, devices, options):
        calls.append(f"devices {[item.device.type.name for item in devices]} {options}")
class Session:
    def __init__(self, model, options, **more):
        calls.append(f"session {more}")
    def __del__(self):
        calls.append("session is gone")
    get_providers = lambda self: ["fake", "CPUExecutionProvider"]
    get_inputs = lambda self: []
    def get_provider_graph_assignment_info(self):
        return [Thing(ep_name="fake", get_nodes=lambda: [1, 2])]
sys.modules["fake_ep"] = ModuleType("fake_ep")
sys.modules["fake_ep"].get_library_path = lambda: "/somewhere/fake_ep/libfake.so"
worker.ort.register_execution_provider_library = register
worker.ort.unregister_execution_provider_library = lambda name: calls.append(f"unregister {name}")
worker.ort.get_ep_devices = lambda: [device("fake", kind) for _ in names for kind in ["CPU", "NPU", "NPU"]]
worker.ort.SessionOptions, worker.ort.InferenceSession = Options, Session
worker.Worker.noted = lambda self: calls
worker.Worker.end = lambda self: self.close()
worker.main()
"""
# A provider that does not start: the first session ends with an error, a second would be one on the CPU.
FAILING = """
import os
from packhouse.evaluation import worker
class Session(worker.ort.InferenceSession):
    tried = False
    def __init__(self, model, options, **more):
        if not Session.tried:
            Session.tried = True
            os.write(2, b"\\x1b[31m1970 [E:onnxruntime:Default, bridge.cc:1 Get] no libcublas.so\\n\\x1b[m")
            raise {error}
        options = worker._session_options({{}})
        super().__init__(model, options, providers=["CPUExecutionProvider"])
worker.ort.InferenceSession = Session
worker.main()
"""
# An onnxruntime that leaves nodes to the CPU although that was forbidden.
LAX = """
from packhouse.evaluation import worker
class Session(worker.ort.InferenceSession):
    def __init__(self, model, options, **more):
        super().__init__(model, worker._session_options({}), **more)
worker.ort.InferenceSession = Session
worker.main()
"""
AZURE = "AzureExecutionProvider"


@pytest.fixture
def use_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that puts a script in the place of the worker."""

    def use(script: str) -> None:
        (tmp_path / "worker.py").write_text(script)
        monkeypatch.setattr(session_host, "WORKER", tmp_path / "worker.py")

    return use


# The real worker, which notes the first number of every batch that a session runs.
COUNTING = """
from packhouse.evaluation import worker
starts = []
class Session(worker.ort.InferenceSession):
    def run(self, names, feed, *more):
        starts.append(int(feed["x"].flat[0]))
        return super().run(names, feed, *more)
worker.ort.InferenceSession = Session
worker.Worker.seen = lambda self: {"starts": starts}
worker.main()
"""
# The real worker, which tells what its bound calls compute, and how often it runs without a binding.
BOUND = """
from packhouse.evaluation import worker
runs = []
class Session(worker.ort.InferenceSession):
    def run(self, *arguments, **more):
        runs.append(1)
        return super().run(*arguments, **more)
worker.ort.InferenceSession = Session
def outputs(self):
    found = []
    for call in self.calls:
        call()
        (binding,) = call.args
        found.append([array.tolist() for array in binding.copy_outputs_to_cpu()])
    return {"outputs": found}
worker.Worker.outputs = outputs
worker.Worker.plain_runs = lambda self: {"runs": len(runs)}
worker.main()
"""
# The real worker, which tells how many sessions it has created, and the one in use.
RENEWING = """
import time
from packhouse.evaluation import worker
created, alive, ended = [], [], []
class Session(worker.ort.InferenceSession):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.number = len(created)
        created.append((arguments, more))
    def __del__(self):
        ended.append(self.number)
worker.ort.InferenceSession = Session
worker.Worker.seen = lambda self: {
    "created": len(created), "number": self.session.number, "ended": ended,
    "same": all((args[0], more) == (created[0][0][0], created[0][1]) for args, more in created)
}
def script(self, medians):
    self.time = lambda runs: {"wall_ns": [medians.pop(0)] * runs}
    self.left = lambda: {"left": len(medians)}
    return {}
worker.Worker.script = script
worker.main()
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SessionHost]:
    with SessionHost(tmp_path) as host:
        yield host


def give(host: SessionHost, folder: Path, **arrays: Any) -> None:
    """Let the worker read these arrays, each for the input of its name."""
    np.savez(folder / "data.npz", **arrays)
    host.ask("read_data", path=str(folder / "data.npz"), inputs={name: name for name in arrays})


def create(host: SessionHost, model: Path, provider: str = CPU, **session_options: Any) -> dict[str, Any]:
    options: dict[str, str] = session_options.pop("provider_options", {})
    plugin = {key: session_options.pop(key) for key in ("plugin", "device") if key in session_options}
    return host.ask(
        "create_session",
        model=str(model),
        provider=provider,
        provider_options=options,
        session_options=session_options,
        **plugin,
    )


def predict(host: SessionHost, folder: Path, batch_size: int = 32, samples: int | None = None) -> dict[str, Any]:
    host.ask("predict", batch_size=batch_size, output=str(folder / "predictions.npz"), samples=samples)
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto],
    *,
    weights: Mapping[str, Any] | None = None,
    batch: int | str = "n",
) -> Path:
    """Write a model with the input ``x`` (batch × 2, floats)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def output(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


class TestPredictions:
    @pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
    def test_are_those_of_the_model_for_every_sample_in_order(self, host: SessionHost, tmp_path: Path, batch_size: int) -> None:
        give(host, tmp_path, x=X)
        create(host, write_classifier(tmp_path / "a.onnx"))

        np.testing.assert_allclose(predict(host, tmp_path, batch_size)["y"], X @ CENTRES.T, rtol=1e-5)

    @pytest.mark.parametrize("batch", [1, 3, 4, 7, 16])
    def test_of_a_fixed_batch_size_are_as_many_as_the_samples(self, host: SessionHost, tmp_path: Path, batch: int) -> None:
        give(host, tmp_path, x=X)
        create(host, write_classifier(tmp_path / "a.onnx", batch=batch))

        found = predict(host, tmp_path, batch_size=32)["y"]

        assert found.shape == (7, 3)
        np.testing.assert_allclose(found, X @ CENTRES.T, rtol=1e-5)

    @pytest.mark.parametrize(("batch", "count"), [("n", 1), (1, 1), (4, 4), (16, 7)])
    def test_of_the_first_sample_alone_are_those_of_the_first_batch_where_its_size_is_fixed(
        self, host: SessionHost, tmp_path: Path, batch: int | str, count: int
    ) -> None:
        give(host, tmp_path, x=X)
        create(host, write_classifier(tmp_path / "a.onnx", batch=batch))

        found = predict(host, tmp_path, batch_size=1, samples=1)["y"]

        np.testing.assert_allclose(found, X[:count] @ CENTRES.T, rtol=1e-5)

    def test_of_texts_are_texts(self, host: SessionHost, tmp_path: Path) -> None:
        texts = np.array(["Grüße", "", "a\nb", "日本"])
        give(host, tmp_path, x=texts)
        create(host, write_identity(tmp_path / "a.onnx", {"x": (TensorProto.STRING, ("n",))}))

        assert predict(host, tmp_path, batch_size=3)["x_out"].tolist() == texts.tolist()

    @pytest.mark.parametrize("stored", ["float64", "int32", ">i4"])
    def test_are_made_of_samples_in_the_types_of_the_inputs(self, host: SessionHost, tmp_path: Path, stored: str) -> None:
        samples = np.array([[0, 1], [1, 3]], stored)
        give(host, tmp_path, **dict.fromkeys(TYPES, samples))
        create(host, write_identity(tmp_path / "a.onnx", {dtype: (kind, ("n", 2)) for dtype, kind in TYPES.items()}))

        found = predict(host, tmp_path)

        assert {name: str(array.dtype) for name, array in found.items()} == {f"{dtype}_out": dtype for dtype in TYPES}
        for dtype in TYPES:
            assert found[f"{dtype}_out"].tolist() == samples.astype(dtype).tolist()

    def test_have_the_names_of_the_outputs_in_the_order_of_the_model(self, host: SessionHost, tmp_path: Path) -> None:
        # "file" and "allow_pickle" are parameters of numpy.savez; exporters write names with slashes and colons.
        names = ["file", "/head/Softmax:0", "allow_pickle", "a", "Grüße", "x.npy"]
        nodes = [helper.make_node("Mul", ["x", f"w{index}"], [name]) for index, name in enumerate(names)]
        weights = {f"w{index}": np.float32(index) for index in range(len(names))}
        give(host, tmp_path, x=X)
        create(host, save(tmp_path / "a.onnx", nodes, [output(name, "n", 2) for name in names], weights=weights))

        found = predict(host, tmp_path, batch_size=3)

        assert [name.removesuffix(".npy") for name in found] == [name.removesuffix(".npy") for name in names]
        for index, array in enumerate(found.values()):
            np.testing.assert_allclose(array, X * index)

    @pytest.mark.parametrize(("batch", "last"), [("n", [4, 5, 6]), (4, [4, 5, 6, 0])])
    def test_are_made_of_a_full_last_batch_only_where_the_model_wants_one(
        self, host: SessionHost, tmp_path: Path, batch: int | str, last: list[int]
    ) -> None:
        """The sum over a batch shows what is in it; as a single value it is one entry of the predictions."""
        nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
        give(host, tmp_path, x=X)
        create(host, save(tmp_path / "a.onnx", nodes, [output("y")], batch=batch))

        np.testing.assert_allclose(predict(host, tmp_path, 4)["y"], [X[:4].sum(), X[last].sum()], rtol=1e-5)

    def test_of_outputs_that_are_no_tensors_are_left_out(self, host: SessionHost, tmp_path: Path) -> None:
        sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["n", 2])
        nodes = [helper.make_node("SequenceConstruct", ["x", "x"], ["s"]), helper.make_node("Neg", ["x"], ["y"])]
        give(host, tmp_path, x=X)
        create(host, save(tmp_path / "a.onnx", nodes, [sequence, output("y", "n", 2)]))

        assert list(predict(host, tmp_path)) == ["y"]

    def test_are_refused_where_no_output_is_a_tensor(self, host: SessionHost, tmp_path: Path) -> None:
        sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["n", 2])
        give(host, tmp_path, x=X)
        create(host, save(tmp_path / "a.onnx", [helper.make_node("SequenceConstruct", ["x"], ["s"])], [sequence]))

        with pytest.raises(EvaluationFailed, match="none of its outputs is a tensor"):
            predict(host, tmp_path)

    def test_of_the_same_samples_have_the_same_bytes(self, host: SessionHost, tmp_path: Path) -> None:
        give(host, tmp_path, x=X)
        create(host, write_classifier(tmp_path / "a.onnx"))

        contents = []
        for _ in range(2):
            predict(host, tmp_path)
            contents.append((tmp_path / "predictions.npz").read_bytes())

        assert contents[0] == contents[1]


class TestSessions:
    def test_count_their_nodes_by_provider(self, host: SessionHost, tmp_path: Path) -> None:
        created = create(host, write_classifier(tmp_path / "a.onnx", layers=3), graph_optimization_level=0)

        assert created["placement"] == {CPU: 4}
        assert created["duration_ns"] > 0

    def test_are_refused_for_a_provider_that_this_onnxruntime_does_not_have(self, host: SessionHost, tmp_path: Path) -> None:
        with pytest.raises(EvaluationFailed, match=r"^CUDAExecutionProvider is not in this onnxruntime") as caught:
            create(host, write_classifier(tmp_path / "a.onnx"), "CUDAExecutionProvider")

        assert CPU in str(caught.value)

    def test_are_refused_where_the_nodes_would_silently_run_on_the_cpu(self, host: SessionHost, tmp_path: Path) -> None:
        """The Azure provider is in every wheel, and takes no node of a model like this."""
        with pytest.raises(
            EvaluationFailed,
            match=r"^AzureExecutionProvider does not take all of its nodes: 0 run there, 2 on CPUExecutionProvider \(MatMul\)$",
        ):
            create(host, write_classifier(tmp_path / "a.onnx"), "AzureExecutionProvider")

    def test_are_refused_where_the_provider_does_not_start_with_the_reason_from_the_log(
        self, tmp_path: Path, use_worker: Callable[[str], None]
    ) -> None:
        error = "RuntimeError('This session contains graph nodes that are assigned to the default CPU EP, but')"
        use_worker(FAILING.format(error=error))

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed) as caught:
            create(host, write_classifier(tmp_path / "a.onnx"), AZURE)

        found = f"{AZURE} is in onnxruntime {onnxruntime.__version__} and does not work here"
        assert str(caught.value) == f"{found}; all would run on the CPU: no libcublas.so"

    @pytest.mark.parametrize("error", ["RuntimeError", "ValueError"])
    def test_are_refused_where_the_constructor_would_retry_on_the_cpu(
        self, tmp_path: Path, use_worker: Callable[[str], None], error: str
    ) -> None:
        use_worker(FAILING.format(error=f"{error}('no\\nbackend')"))

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed) as caught:
            create(host, write_classifier(tmp_path / "a.onnx"), AZURE)

        assert str(caught.value) == (
            f"{AZURE} failed to create the session, and onnxruntime's retry on the CPU is refused: {error}: no backend"
        )

    def test_are_refused_where_nodes_are_elsewhere_although_that_was_forbidden(
        self, tmp_path: Path, use_worker: Callable[[str], None]
    ) -> None:
        use_worker(LAX)

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed, match="0 run there, 2 on CPUExecutionProvider"):
            create(host, write_classifier(tmp_path / "a.onnx"), AZURE)

    def test_are_refused_by_an_onnxruntime_that_does_not_tell_where_nodes_run(
        self, tmp_path: Path, use_worker: Callable[[str], None]
    ) -> None:
        use_worker("from packhouse.evaluation import worker\nworker.ort.InferenceSession = object\nworker.main()")

        with (
            SessionHost(tmp_path) as host,
            pytest.raises(EvaluationFailed, match=r"does not tell which .*; use 1\.24 or later"),
        ):
            create(host, write_classifier(tmp_path / "a.onnx"))

    @pytest.mark.parametrize("level", [0, 1, 2, 3, 99])
    def test_are_optimized_as_asked(self, host: SessionHost, tmp_path: Path, level: int) -> None:
        nodes = [helper.make_node("MatMul", ["a", "b"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
        weights = {name: np.eye(2, dtype=np.float32) for name in "ab"}
        model = save(tmp_path / "a.onnx", nodes, [output("y", "n", 2)], weights=weights)

        assert create(host, model, graph_optimization_level=level)["placement"] == {CPU: 1 if level else 2}

    @pytest.mark.parametrize(
        ("more", "options"),
        [
            (3, {"intra_op_num_threads": 4}),
            (0, {"intra_op_num_threads": 1}),
            (5, {"execution_mode": 1, "inter_op_num_threads": 6, "intra_op_num_threads": 1}),
            (0, {"execution_mode": 0, "inter_op_num_threads": 6, "intra_op_num_threads": 1}),
            (0, {"intra_op_num_threads": 1, "execution_mode": None, "extra_session_config": None}),
        ],
    )
    def test_have_the_threads_that_were_asked_for(
        self, host: SessionHost, tmp_path: Path, more: int, options: dict[str, Any]
    ) -> None:
        host.ask("providers")  # has imported everything that starts threads
        before = threads_of(host.pid)

        create(host, write_classifier(tmp_path / "a.onnx"), **options)

        assert threads_of(host.pid) - before == more

    def test_have_the_further_entries_that_were_asked_for(self, host: SessionHost, tmp_path: Path) -> None:
        with pytest.raises(EvaluationFailed, match=r"[Cc]onflicting session configuration"):
            create(
                host,
                write_classifier(tmp_path / "a.onnx"),
                extra_session_config={"session.disable_cpu_ep_fallback": "1"},
            )

    def test_have_exactly_the_provider_and_its_options(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "worker.py").write_text(SPYING)
        monkeypatch.setattr(session_host, "WORKER", tmp_path / "worker.py")

        with SessionHost(tmp_path) as host:
            create(host, write_classifier(tmp_path / "a.onnx"), provider_options={"arena": "1"})
            assert host.ask("seen") == {"providers": [CPU], "provider_options": [{"arena": "1"}], "enable_fallback": 0}

    @pytest.mark.parametrize("defect", ["operator", "weights", "truncated", "lost data", "missing"])
    def test_are_refused_for_models_that_do_not_load(self, host: SessionHost, tmp_path: Path, defect: str) -> None:
        path = write_classifier(tmp_path / "a.onnx", external="w.bin" if defect == "lost data" else None)
        if defect == "operator":
            path.write_bytes(path.read_bytes().replace(b"MatMul", b"MatFul"))
        elif defect == "weights":
            model = onnx.load(path)
            model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-1]
            onnx.save(model, path)
        elif defect == "truncated":
            path.write_bytes(path.read_bytes()[:-10])
        else:
            (tmp_path / ("w.bin" if defect == "lost data" else "a.onnx")).unlink()

        with pytest.raises(EvaluationFailed, match="ONNXRuntimeError"):
            create(host, path)
        assert CPU in host.ask("providers")["providers"]

    def test_are_refused_where_an_input_cannot_be_fed(self, host: SessionHost, tmp_path: Path) -> None:
        give(host, tmp_path, x=X)
        create(host, write_identity(tmp_path / "a.onnx", {"x": (TensorProto.BFLOAT16, ("n", 2))}))

        with pytest.raises(EvaluationFailed, match=r"it has an input of type tensor\(bfloat16\), which cannot be fed"):
            predict(host, tmp_path)

    def test_that_fail_while_they_run_say_why(self, host: SessionHost, tmp_path: Path) -> None:
        reshape = helper.make_node("Reshape", ["x", "shape"], ["y"])
        give(host, tmp_path, x=X)
        create(host, save(tmp_path / "a.onnx", [reshape], [output("y", 5)], weights={"shape": np.array([5])}))

        with pytest.raises(EvaluationFailed, match=r"ONNXRuntimeError.*Reshape"):
            predict(host, tmp_path)

    def test_that_miss_an_input_say_which(self, host: SessionHost, tmp_path: Path) -> None:
        give(host, tmp_path, x=X)
        create(host, write_identity(tmp_path / "a.onnx", {"x": floats("n", 2), "z": floats("n", 2)}))

        with pytest.raises(EvaluationFailed, match="z"):
            predict(host, tmp_path)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


class TestPlugins:
    def test_give_the_provider_on_a_device_of_the_kind_and_outlive_the_session(
        self, tmp_path: Path, use_worker: Callable[[str], None]
    ) -> None:
        use_worker(PLUGIN)
        options = {"backend_path": "{plugin}/libHtp.so", "level": "3"}

        with SessionHost(tmp_path) as host:
            for _ in range(2):
                created = create(host, tmp_path / "a", "fake", plugin="fake_ep", device="npu", provider_options=options)
            host.ask("end")
            calls: Any = host.ask("noted")

        assert created["placement"] == {"fake": 2}
        made = [
            "devices ['NPU'] {'backend_path': '/somewhere/fake_ep/libHtp.so', 'level': '3'}",
            "session {'enable_fallback': 0}",
        ]
        assert calls == [
            "register fake /somewhere/fake_ep/libfake.so",
            *made,
            *made,
            "session is gone",
            "session is gone",
            "unregister fake",
        ]

    def test_are_refused_where_they_drive_no_device_of_the_kind(
        self, tmp_path: Path, use_worker: Callable[[str], None]
    ) -> None:
        use_worker(PLUGIN)

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed) as caught:
            create(host, tmp_path / "a", "fake", plugin="fake_ep", device="gpu")

        assert str(caught.value) == "fake of fake_ep drives a cpu here, and no gpu; write device: cpu"

    def test_are_refused_where_their_provider_has_another_name(self, tmp_path: Path, use_worker: Callable[[str], None]) -> None:
        use_worker(PLUGIN)

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed, match=r"^fake_ep has no other_ep, but fake$"):
            create(host, tmp_path / "a", "other_ep", plugin="fake_ep")

    def test_are_refused_where_they_find_no_device(self, tmp_path: Path, use_worker: Callable[[str], None]) -> None:
        use_worker(PLUGIN.replace("for _ in names", "for _ in []"))

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed, match="fake_ep finds no device here for fake"):
            create(host, tmp_path / "a", "fake", plugin="fake_ep")

    @pytest.mark.parametrize(
        ("plugin", "what"),
        [
            ("no_such_ep", r"no_such_ep cannot be imported \(No module named 'no_such_ep'\); is its package in this"),
            ("json", r"json has no get_library_path\(\), so it is no plug-in provider"),
        ],
    )
    def test_are_refused_that_are_none(self, host: SessionHost, tmp_path: Path, plugin: str, what: str) -> None:
        with pytest.raises(EvaluationFailed, match=what):
            create(host, write_classifier(tmp_path / "a.onnx"), "fake", plugin=plugin)

    def test_are_refused_where_onnxruntime_cannot_load_their_library(
        self, tmp_path: Path, use_worker: Callable[[str], None]
    ) -> None:
        (tmp_path / "libfake.so").write_text("no library")
        add = f"import json, sys; json.get_library_path = lambda: {str(tmp_path / 'libfake.so')!r}\n"
        use_worker(f"{add}from packhouse.evaluation import worker; worker.main()")

        with (
            SessionHost(tmp_path) as host,
            pytest.raises(EvaluationFailed, match=r"cannot load the library of json: .*libfake\.so"),
        ):
            create(host, write_classifier(tmp_path / "a.onnx"), "fake", plugin="json")

    def test_are_refused_by_an_onnxruntime_that_takes_none(self, tmp_path: Path, use_worker: Callable[[str], None]) -> None:
        use_worker("from packhouse.evaluation import worker\ndel worker.ort.register_execution_provider_library\nworker.main()")

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed, match=r"takes no plug-in providers; use 1\.24"):
            create(host, write_classifier(tmp_path / "a.onnx"), "fake", plugin="json")


Prepare = Callable[..., dict[str, Any]]


@pytest.fixture
def timed(host: SessionHost, tmp_path: Path) -> Prepare:
    """A function that prepares a classifier for timing."""

    def prepare(batch_size: int = 1, io_binding: bool = False, **classifier: Any) -> dict[str, Any]:
        give(host, tmp_path, x=X)
        create(host, write_classifier(tmp_path / "a.onnx", **classifier))
        return host.ask("prepare_timing", batch_size=batch_size, io_binding=io_binding)

    return prepare


class TestTiming:
    @pytest.mark.parametrize("io_binding", [False, True])
    @pytest.mark.parametrize("batch_size", [1, 4, 32])
    def test_it_runs_as_often_as_asked(self, host: SessionHost, timed: Prepare, batch_size: int, io_binding: bool) -> None:
        assert timed(batch_size, io_binding)["batch_size"] == batch_size

        for runs in (1, 10, 40):
            for lead_in in (0, 3):
                answer = host.ask("time", runs=runs, lead_in=lead_in)
                assert len(answer["wall_ns"]) == len(answer["cpu_ns"]) == runs
                assert all(isinstance(ns, int) and ns > 0 for ns in (*answer["wall_ns"], *answer["cpu_ns"]))
                assert answer["turn_cpu_ns"] >= sum(answer["cpu_ns"])
                assert answer["involuntary_switches"] >= 0

    def test_runs_before_those_that_count_are_done_but_not_told(self, host: SessionHost, counting: Prepare) -> None:
        counting()

        host.ask("time", runs=2, lead_in=3)

        assert host.ask("seen")["starts"] == [0, 1, 2, 3, 4, 5]

    def test_it_goes_through_the_samples_in_turn(self, host: SessionHost, counting: Prepare) -> None:
        """One run of the first sample has been timed when the timing was prepared."""
        counting()

        for runs in (2, 3, 4):
            host.ask("time", runs=runs)

        assert host.ask("seen")["starts"] == [index % len(X) for index in range(10)]

    def test_another_size_of_batch_cuts_the_samples_otherwise(self, host: SessionHost, counting: Prepare) -> None:
        """Seven samples are two batches of five, of which the second is filled up from the start."""
        counting(5)

        host.ask("time", runs=3)

        assert host.ask("seen")["starts"] == [0, 5, 0, 5]

    @pytest.fixture
    def counting(self, host: SessionHost, tmp_path: Path) -> Iterator[Prepare]:
        """A function that prepares a worker that notes the first sample of every run."""
        (tmp_path / "worker.py").write_text(COUNTING)

        def prepare(batch_size: int = 1) -> dict[str, Any]:
            host.__exit__(None, None, None)
            host.__init__(tmp_path)  # type: ignore[misc]
            np.savez(tmp_path / "data.npz", x=np.stack([np.arange(7), np.arange(7)], axis=1).astype(np.float32))
            host.ask("read_data", path=str(tmp_path / "data.npz"), inputs={"x": "x"})
            create(host, write_classifier(tmp_path / "a.onnx"))
            return host.ask("prepare_timing", batch_size=batch_size)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session_host, "WORKER", tmp_path / "worker.py")
            yield prepare

    def test_a_fixed_batch_size_wins(self, timed: Prepare) -> None:
        assert timed(1, batch=4)["batch_size"] == 4

    def test_the_first_inference_has_its_own_time(self, timed: Prepare) -> None:
        assert timed(1)["duration_ns"] > 0

    def test_peak_memory_is_at_least_what_the_weights_take(self, host: SessionHost, tmp_path: Path) -> None:
        size = 64 << 20
        weights = np.ones((2, size // 8), np.float32)
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("ReduceMax", ["h"], ["y"], axes=[1])]
        model = save(tmp_path / "a.onnx", nodes, [output("y", "n", 1)], weights={"w": weights})
        give(host, tmp_path, x=X)
        create(host, model)
        predict(host, tmp_path, batch_size=1)

        assert host.ask("peak_memory")["bytes"] >= size


class TestRenewal:
    @pytest.fixture
    def renewing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionHost]:
        """A worker that tells of its sessions, prepared for timing."""
        (tmp_path / "worker.py").write_text(RENEWING)
        monkeypatch.setattr(session_host, "WORKER", tmp_path / "worker.py")
        with SessionHost(tmp_path) as host:
            give(host, tmp_path, x=X)
            create(host, write_classifier(tmp_path / "a.onnx"), intra_op_num_threads=1)
            host.ask("prepare_timing", batch_size=1)
            yield host

    def renew(self, host: SessionHost, **changes: Any) -> Any:
        return host.ask("renew_session", **{"warmup": 10, "settled": 0.02, "max_s": 0.0, **changes})["median_ns"]

    def test_keeps_the_first_session_and_then_gives_a_new_one_each_time_of_the_same_kind(self, renewing: SessionHost) -> None:
        found = []
        for _ in range(3):
            assert self.renew(renewing) > 0
            found.append(renewing.ask("seen"))

        assert [(item["created"], item["number"], item["ended"]) for item in found] == [(1, 0, []), (2, 1, [0]), (3, 2, [0, 1])]
        assert found[-1]["same"]

    def test_leaves_what_the_worker_computes_as_it_was(self, renewing: SessionHost, tmp_path: Path) -> None:
        before = predict(renewing, tmp_path)
        for _ in range(2):
            self.renew(renewing)

        assert len(renewing.ask("time", runs=3)["wall_ns"]) == 3
        np.testing.assert_array_equal(predict(renewing, tmp_path)["y"], before["y"])

    @pytest.mark.parametrize(
        ("medians", "changes", "left", "found"),
        [
            ([900, 500, 300, 300, 1], {"max_s": 600.0}, 1, 300),
            ([1000, 1019, 1], {"max_s": 600.0}, 1, 1019),
            ([1000, 1021, 1021, 1], {"max_s": 600.0}, 1, 1021),
            ([900, 500, 300, 1], {"max_s": -1.0}, 3, 900),
            ([900, 500, 300, 1], {"warmup": 25, "max_s": -1.0}, 1, 300),
            ([500, 500, 500, 1], {"warmup": 21, "max_s": 600.0}, 1, 500),
            ([900, 850, 1], {"settled": 0.1, "max_s": 600.0}, 1, 850),
        ],
    )
    def test_warms_up_until_two_blocks_agree_or_the_time_is_up(
        self, renewing: SessionHost, medians: list[int], changes: dict[str, Any], left: int, found: int
    ) -> None:
        renewing.ask("script", medians=medians)

        assert self.renew(renewing, **changes) == found
        assert renewing.ask("left")["left"] == left


class TestBinding:
    def test_gives_as_many_outputs_of_the_same_values(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "worker.py").write_text(BOUND)
        monkeypatch.setattr(session_host, "WORKER", tmp_path / "worker.py")
        nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("ReduceSum", ["x"], ["z"], keepdims=0)]
        with SessionHost(tmp_path) as host:
            give(host, tmp_path, x=X)
            create(host, save(tmp_path / "a.onnx", nodes, [output("y", "n", 2), output("z")]))
            host.ask("prepare_timing", batch_size=4, io_binding=True)
            assert len(host.ask("time", runs=5)["wall_ns"]) == 5
            host.ask("renew_session", warmup=10, settled=0.02, max_s=0.0)
            host.ask("renew_session", warmup=10, settled=0.02, max_s=0.0)
            assert host.ask("plain_runs") == {"runs": 0}
            outputs = host.ask("outputs")["outputs"]

        assert [len(item) for item in outputs] == [2, 2]
        for (y, z), batch in zip(outputs, (X[[0, 1, 2, 3]], X[[4, 5, 6, 0]]), strict=True):
            np.testing.assert_allclose(y, -batch)
            np.testing.assert_allclose(z, batch.sum(), rtol=1e-5)

    def test_of_texts_is_refused_with_the_setting_to_change(self, host: SessionHost, tmp_path: Path) -> None:
        give(host, tmp_path, x=np.array(["a", "b"]))
        create(host, write_identity(tmp_path / "a.onnx", {"x": (TensorProto.STRING, ("n",))}))

        with pytest.raises(EvaluationFailed) as caught:
            host.ask("prepare_timing", batch_size=1, io_binding=True)

        assert str(caught.value) == "its input 'x' holds texts, which cannot be bound; set timing.io_binding: false"
        assert host.ask("prepare_timing", batch_size=1)["batch_size"] == 1


class TestOccupying:
    def test_keeps_all_threads_of_the_session_on_the_cpus(self, host: SessionHost, tmp_path: Path) -> None:
        host.ask("providers")  # has imported everything that starts threads
        last = max(os.sched_getaffinity(0))
        before = {task.name for task in Path(f"/proc/{host.pid}/task").iterdir()}

        answer = host.ask("occupy", cpus=[last], priority=None)
        create(host, write_classifier(tmp_path / "a.onnx"), intra_op_num_threads=3)

        started = {task.name for task in Path(f"/proc/{host.pid}/task").iterdir()} - before
        assert answer == {"pinned": f"CPU {last}", "scheduler": "SCHED_OTHER"}
        assert os.sched_getaffinity(host.pid) == {last}
        assert len(started) >= 2
        assert {frozenset(os.sched_getaffinity(int(task))) for task in started} == {frozenset({last})}

    def test_names_every_cpu(self, host: SessionHost) -> None:
        allowed = sorted(os.sched_getaffinity(0))

        assert host.ask("occupy", cpus=allowed, priority=None)["pinned"] == "CPU " + ", ".join(map(str, allowed))

    def test_leaves_a_worker_where_it_is_if_no_cpus_are_given(self, host: SessionHost) -> None:
        assert host.ask("occupy", cpus=None, priority=None) == {"pinned": "not pinned", "scheduler": "SCHED_OTHER"}
        assert os.sched_getaffinity(host.pid) == os.sched_getaffinity(0)

    def test_says_what_the_system_refuses(self, host: SessionHost) -> None:
        answer = host.ask("occupy", cpus=[9999], priority=9999)

        assert answer["pinned"].startswith("not pinned ([Errno")
        assert answer["scheduler"].startswith("SCHED_OTHER (SCHED_FIFO: [Errno")
        assert os.sched_getscheduler(host.pid) == os.SCHED_OTHER

    def test_says_the_priority_that_it_has(self, host: SessionHost) -> None:
        answer = host.ask("occupy", cpus=None, priority=10)["scheduler"]

        if os.sched_getscheduler(host.pid) == os.SCHED_FIFO:
            assert (answer, os.sched_getparam(host.pid).sched_priority) == ("SCHED_FIFO 10", 10)
        else:
            assert answer.startswith("SCHED_OTHER (SCHED_FIFO: ")
