"""Whole evaluations of real models in real worker processes."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.errors import ArtifactError, EvaluationFailed
from packhouse.evaluation import device_lock as lock_module
from packhouse.evaluation import session_host
from packhouse.evaluation.device_lock import device_lock
from packhouse.evaluation.evaluate import evaluate
from packhouse.evaluation.fingerprint import this_machine
from packhouse.evaluation.records import Evaluation, EvaluationRequest
from tests.classifiers import CENTRES, points, write_classifier, write_family, write_points
from tests.evaluation.models import ACCURACY, LATENCY, SIZE, requests_for, write_identity

CPU = "CPUExecutionProvider"
# The real worker, which dies or hangs at a request, or only for one candidate.
BROKEN = """
import os, signal, time
from packhouse.evaluation import worker
def predict(self, plain=worker.Worker.predict, **arguments):
    if "{victim}" in [node.name for node in self.session.get_outputs()] or "{victim}" == "all":
        {fate}
    return plain(self, **arguments)
worker.Worker.predict = predict
worker.main()
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that run at once do not wait for each other's devices."""
    monkeypatch.setattr(lock_module, "LOCK_FOLDER", tmp_path_factory.mktemp("locks"))


def with_data(tmp_path: Path, count: int = 90, **arrays: Any) -> dict[str, Any]:
    path = write_points(tmp_path / "data.npz", count, **arrays)
    return {"data": {"path": str(path), "labels": "label", "batch_size": 32}}


def arrays_of(store: ArtifactStore, artifact: Artifact | None) -> dict[str, Any]:
    """Return the arrays of an .npz file in the store."""
    assert artifact
    assert store.is_intact(artifact)
    with np.load(store.path(artifact.sha256), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


class TestEvaluation:
    def test_says_everything_about_a_candidate_on_an_accelerator(self, tmp_path: Path, store: ArtifactStore) -> None:
        metrics = [
            ACCURACY,
            {"name": "latency", "type": "latency", "sub_types": [{"name": "avg"}, {"name": "p95"}]},
            {"name": "rate", "type": "throughput", "sub_types": [{"name": "avg"}, {"name": "max"}]},
            SIZE | {"sub_types": [{"name": "bytes"}]},
            {"name": "memory", "type": "peak_memory", "sub_types": [{"name": "bytes"}]},
            {"name": "start", "type": "startup", "sub_types": [{"name": "session_creation"}, {"name": "first_inference"}]},
        ]
        model = write_classifier(tmp_path / "models" / "a.onnx", error=0.5, layers=2, external="a.bin")
        config = with_data(tmp_path)
        config["data"]["timing_batch_size"] = 4
        config["accelerators"] = [{"session_options": {"graph_optimization_level": 0}}]
        (request,) = requests_for(model.parent, store, *metrics, **config)

        evaluation = evaluate(request, store)

        samples, labels = points(90)
        turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
        scores = samples @ turn @ CENTRES.T
        assert evaluation.candidate == request.candidate.digest
        assert evaluation.accelerator == "cpu-cpu"
        assert evaluation.failure is None
        assert evaluation.placement == {CPU: 3}
        assert evaluation.runtime_version == onnxruntime.__version__
        assert (evaluation.fingerprint, evaluation.computer) == (request.fingerprint, this_machine())
        assert evaluation.duration_s > 0

        np.testing.assert_allclose(arrays_of(store, evaluation.predictions)["y"], scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(arrays_of(store, evaluation.sample_outputs)["y"], scores[:4], rtol=1e-4, atol=1e-5)
        assert evaluation.values["accuracy-accuracy_score"] == np.mean(scores.argmax(axis=1) == labels)
        assert 0.5 < evaluation.values["accuracy-accuracy_score"] < 1

        assert evaluation.timing_batch_size == 4
        assert (evaluation.samples, evaluation.tournament) == (None, None)

        sizes = [path.stat().st_size for path in model.parent.iterdir()]
        assert len(sizes) == 2
        assert evaluation.values["size-bytes"] == sum(sizes)
        assert evaluation.values["memory-bytes"] == evaluation.peak_memory_bytes
        assert evaluation.startup_ms == {
            name: evaluation.values[f"start-{name}"] for name in ("session_creation", "first_inference")
        }
        assert all(value > 0 for value in evaluation.startup_ms.values())
        assert {name: (value.unit, value.n) for name, value in evaluation.metrics.items()} == {
            "accuracy-accuracy_score": ("", 90),
            "size-bytes": ("B", 1),
            "memory-bytes": ("B", 1),
            "start-session_creation": ("ms", 1),
            "start-first_inference": ("ms", 1),
        }

    def test_survives_its_way_through_json(self, tmp_path: Path, store: ArtifactStore) -> None:
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, ACCURACY, LATENCY, **with_data(tmp_path))
        again = EvaluationRequest.model_validate_json(request.model_dump_json())
        assert (again, again.key) == (request, request.key)

        evaluation = evaluate(again, store)

        assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation

    def test_measures_only_what_is_asked_for(self, tmp_path: Path, store: ArtifactStore) -> None:
        said: list[str] = []
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, SIZE)

        evaluation = evaluate(request, store, said.append)

        assert evaluation.predictions is None
        assert list(evaluation.metrics) == ["size-bytes"]
        assert evaluation.placement
        assert said == ["creating the session", "running the samples"]

    def test_without_data_runs_on_generated_samples(self, tmp_path: Path, store: ArtifactStore) -> None:
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, LATENCY)

        evaluation = evaluate(request, store)

        assert (evaluation.metrics, evaluation.predictions) == ({}, None)
        assert arrays_of(store, evaluation.sample_outputs)["y"].shape == (4, 3)

    @pytest.mark.parametrize("batch", [1, 7, 64])
    def test_of_a_fixed_batch_size_predicts_every_sample_once(self, tmp_path: Path, store: ArtifactStore, batch: int) -> None:
        write_classifier(tmp_path / "models" / "a.onnx", batch=batch)
        write_classifier(tmp_path / "models" / "b.onnx")
        fixed, free = requests_for(tmp_path / "models", store, ACCURACY, LATENCY, **with_data(tmp_path, 50))

        evaluations = [evaluate(fixed, store), evaluate(free, store)]

        predicted, expected = (arrays_of(store, evaluation.predictions)["y"] for evaluation in evaluations)
        assert predicted.shape == (50, 3)
        np.testing.assert_allclose(predicted, expected, rtol=1e-5)
        assert evaluations[0].values["accuracy-accuracy_score"] == evaluations[1].values["accuracy-accuracy_score"]

    @pytest.mark.parametrize(("batch", "expected"), [(8, 8), ("n", 2)])
    def test_says_how_many_samples_are_timed_at_once(
        self, tmp_path: Path, store: ArtifactStore, batch: int | str, expected: int
    ) -> None:
        write_classifier(tmp_path / "models" / "a.onnx", batch=batch)
        config = with_data(tmp_path)
        config["data"]["timing_batch_size"] = 2
        (request,) = requests_for(tmp_path / "models", store, LATENCY, **config)

        assert evaluate(request, store).timing_batch_size == expected

    def test_of_texts_compares_them_with_the_labels(self, tmp_path: Path, store: ArtifactStore) -> None:
        write_identity(tmp_path / "models" / "a.onnx", {"word": (TensorProto.STRING, ("n",))})
        np.savez(tmp_path / "data.npz", word=["Kiel", "Köln", "Bonn", "Ulm"], label=["Kiel", "Köln", "Bern", "Ulm"])
        data = {"path": str(tmp_path / "data.npz"), "labels": "label", "batch_size": 3}
        (request,) = requests_for(tmp_path / "models", store, ACCURACY, LATENCY, data=data)

        assert evaluate(request, store).values["accuracy-accuracy_score"] == 0.75

    def test_uses_a_function_of_the_user(self, tmp_path: Path, store: ArtifactStore) -> None:
        (tmp_path / "margin.py").write_text(
            "def margin(outputs, labels):\n"
            "    ordered = outputs['y'].copy(); ordered.sort(axis=1)\n"
            "    return {'mean': (ordered[:, -1] - ordered[:, -2]).mean(), 'count': len(labels)}\n"
        )
        custom = {
            "name": "margin",
            "type": "custom",
            "sub_types": [
                {"name": "mean", "priority": 1, "higher_is_better": True},
                {"name": "count", "higher_is_better": True},
            ],
            "user_config": {"function": f"{tmp_path / 'margin.py'}:margin"},
        }
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, custom, **with_data(tmp_path))

        values = evaluate(request, store).values

        scores = np.sort(points(90)[0] @ CENTRES.T, axis=1)
        assert values == {"margin-mean": pytest.approx((scores[:, 2] - scores[:, 1]).mean(), rel=1e-5), "margin-count": 90}

    def test_leaves_out_a_metric_that_is_no_number(self, tmp_path: Path, store: ArtifactStore) -> None:
        (tmp_path / "mine.py").write_text("def nan(outputs, labels):\n    return float('nan')\n")
        function = {"user_config": {"function": f"{tmp_path / 'mine.py'}:nan"}}
        custom = {"name": "mine", "type": "custom", "sub_types": [{"name": "nan", "higher_is_better": True}], **function}
        models = write_family(tmp_path / "models", [0.0])
        (request,) = requests_for(models, store, ACCURACY, custom, **with_data(tmp_path))

        assert list(evaluate(request, store).values) == ["accuracy-accuracy_score"]

    @pytest.mark.parametrize(("tuned", "nodes"), [({"graph_optimization_level": 0}, 2), ({}, 1)])
    def test_lets_settings_of_the_candidate_win_over_those_of_the_accelerator(
        self, tmp_path: Path, store: ArtifactStore, tuned: dict[str, int], nodes: int
    ) -> None:
        path = write_identity(tmp_path / "models" / "a.onnx", {"x": (TensorProto.FLOAT, ("n", 2))})
        add_a_foldable_node(path)
        candidates = {"type": "list", "models": [{"name": "a", "path": str(path), "session_options": tuned}]}
        (request,) = requests_for(
            path.parent,
            store,
            SIZE,
            candidates=candidates,
            accelerators=[{"session_options": {"graph_optimization_level": 99}}],
        )

        assert evaluate(request, store).placement == {CPU: nodes}

    def test_tells_what_is_going_on(self, tmp_path: Path, store: ArtifactStore) -> None:
        said: list[str] = []
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, ACCURACY, LATENCY, **with_data(tmp_path))

        evaluate(request, store, said.append)

        assert said == ["creating the session", "running the samples"]

    def test_waits_for_a_tournament_on_the_device(self, tmp_path: Path, store: ArtifactStore) -> None:
        said: list[str] = []
        waits, goes_on = threading.Event(), threading.Event()

        def say(step: str) -> None:
            said.append(step)
            if step == "waiting for the device":
                waits.set()

        def measure() -> None:
            with device_lock("cpu", exclusive=True):
                goes_on.set()
                waits.wait(60)

        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, LATENCY)
        other = threading.Thread(target=measure)
        other.start()
        assert goes_on.wait(60)

        evaluate(request, store, say)
        other.join(60)

        assert said[:2] == ["waiting for the device", "creating the session"]

    def test_shares_the_device_with_other_evaluations(self, tmp_path: Path, store: ArtifactStore) -> None:
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, LATENCY)

        said: list[str] = []
        with device_lock("cpu", exclusive=False):
            evaluate(request, store, said.append)
        assert said[0] == "creating the session"

    def test_leaves_nothing_but_its_artifacts(self, tmp_path: Path, store: ArtifactStore) -> None:
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, ACCURACY, LATENCY, **with_data(tmp_path))
        blobs = tmp_path / "store" / "blobs" / "sha256"
        before = {path.name for path in blobs.iterdir()}

        evaluation = evaluate(request, store)

        made = {artifact.sha256 for artifact in evaluation.artifacts}
        assert len(made) == 2
        assert {path.name for path in blobs.iterdir()} - before == made
        assert list(blobs.parent.iterdir()) == [blobs]


def add_a_foldable_node(path: Path) -> None:
    """Let the model multiply with the product of two weights, which an optimizer multiplies beforehand."""
    model = onnx.load(path)
    weights = [numpy_helper.from_array(np.eye(2, dtype=np.float32), name) for name in "ab"]
    nodes = [helper.make_node("MatMul", ["a", "b"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["x_out"])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    onnx.save(model, path)


class TestFailures:
    def failure(self, request: EvaluationRequest, store: ArtifactStore) -> str:
        with pytest.raises(EvaluationFailed) as caught:
            evaluate(request, store)
        return str(caught.value)

    @pytest.fixture
    def break_worker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """A function that puts a worker in place that meets a fate when it predicts."""

        def use(fate: str, victim: str = "all") -> None:
            (tmp_path / "worker.py").write_text(BROKEN.format(fate=fate, victim=victim))
            monkeypatch.setattr(session_host, "WORKER", tmp_path / "worker.py")

        return use

    def test_an_accelerator_that_is_not_there_is_the_reason(self, tmp_path: Path, store: ArtifactStore) -> None:
        gpu = {"device": "gpu", "execution_provider": "CUDAExecutionProvider"}
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, SIZE, accelerators=[gpu])

        assert self.failure(request, store).startswith("CUDAExecutionProvider is not in this onnxruntime")

    def test_a_candidate_that_fell_back_to_the_cpu_is_failed_not_slow(self, tmp_path: Path, store: ArtifactStore) -> None:
        cloud = {"execution_provider": "AzureExecutionProvider"}
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, LATENCY, accelerators=[cloud])

        assert "AzureExecutionProvider does not take all of its nodes" in self.failure(request, store)

    def test_a_killed_worker_is_the_reason_and_others_go_on(
        self, tmp_path: Path, store: ArtifactStore, break_worker: Callable[..., None]
    ) -> None:
        write_classifier(tmp_path / "models" / "good.onnx")
        write_identity(tmp_path / "models" / "victim.onnx", {"x": (TensorProto.FLOAT, ("n", 2))})
        good, victim = requests_for(tmp_path / "models", store, ACCURACY, **with_data(tmp_path))
        break_worker("os.kill(os.getpid(), signal.SIGKILL)", "x_out")
        outcomes: dict[str, Any] = {}

        def run(name: str, request: EvaluationRequest) -> None:
            try:
                outcomes[name] = evaluate(request, store)
            except EvaluationFailed as error:
                outcomes[name] = error

        threads = [threading.Thread(target=run, args=pair) for pair in (("good", good), ("victim", victim))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

        assert str(outcomes["victim"]) == "its process was killed by SIGKILL during 'predict' (out of memory?)"
        assert outcomes["good"].values["accuracy-accuracy_score"] > 0.5

    @pytest.mark.parametrize(
        ("fate", "reason"),
        [
            (f"os.kill(os.getpid(), {int(signal.SIGSEGV)})", "its process was killed by SIGSEGV during 'predict'"),
            ("os._exit(9)", "its process ended with exit code 9 during 'predict'"),
            ("raise MemoryError('too large')", "MemoryError: too large"),
        ],
    )
    def test_a_worker_that_ends_is_the_reason(
        self, tmp_path: Path, store: ArtifactStore, break_worker: Callable[..., None], fate: str, reason: str
    ) -> None:
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, ACCURACY, **with_data(tmp_path))
        break_worker(fate)

        assert self.failure(request, store) == reason
        assert list((tmp_path / "store" / "blobs").iterdir()) == [tmp_path / "store" / "blobs" / "sha256"]

    def test_a_model_that_does_not_load_is_the_reason(self, tmp_path: Path, store: ArtifactStore) -> None:
        path = write_classifier(tmp_path / "models" / "a.onnx")
        path.write_bytes(path.read_bytes().replace(b"MatMul", b"MatFul"))
        (request,) = requests_for(path.parent, store, SIZE)

        assert "MatFul" in self.failure(request, store)

    def test_outputs_that_are_not_finite_are_the_reason(self, tmp_path: Path, store: ArtifactStore) -> None:
        huge = np.full((90, 2), 3e38, np.float32)
        config = with_data(tmp_path, x=huge)
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, ACCURACY, **config)

        assert "values of its output 'y' are not finite" in self.failure(request, store)

    def test_labels_that_do_not_fit_the_outputs_are_the_reason(self, tmp_path: Path, store: ArtifactStore) -> None:
        config = with_data(tmp_path, label=np.array(["a", "b", "c"] * 30))
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, ACCURACY, **config)

        assert self.failure(request, store).startswith("accuracy-accuracy_score cannot be computed")

    @pytest.mark.parametrize("lost", ["data", "model"])
    def test_bytes_that_were_lost_from_the_store_are_told(self, tmp_path: Path, store: ArtifactStore, lost: str) -> None:
        (request,) = requests_for(write_family(tmp_path / "models", [0.0]), store, ACCURACY, **with_data(tmp_path))
        artifact = request.data if lost == "data" else request.candidate.files[request.candidate.entry]
        store.path(artifact.sha256).unlink()

        with pytest.raises(ArtifactError, match=f"{artifact.sha256} is missing from the result storage"):
            evaluate(request, store)
