"""Workers that wait for the tournament of their candidate: who gets them, what is left in them, and when they end."""

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from packhouse.accelerators import Accelerator, InferenceSettings
from packhouse.artifacts import ArtifactStore
from packhouse.config.loading import parse_config
from packhouse.errors import EvaluationFailed
from packhouse.evaluation import device_lock, idle_workers
from packhouse.evaluation.evaluate import evaluate
from packhouse.evaluation.idle_workers import IdleWorkers
from packhouse.evaluation.records import Evaluation
from packhouse.evaluation.session_host import SessionHost
from packhouse.evaluation.sessions import session_arguments
from packhouse.evaluation.timing import TimingRequest, time_candidates
from packhouse.plan import Plan, prepare
from tests.classifiers import write_family
from tests.evaluation.models import LATENCY
from tests.evaluation.test_worker import output, save

THREAD = {"session_options": {"intra_op_num_threads": 1}}


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that run at once do not wait for each other's devices."""
    monkeypatch.setattr(device_lock, "LOCK_FOLDER", tmp_path)


@pytest.fixture
def idle() -> Iterator[IdleWorkers]:
    workers = IdleWorkers()
    yield workers
    workers.end()


@pytest.fixture
def plan(tmp_path: Path, store: ArtifactStore) -> Plan:
    write_family(tmp_path / "models", [0.0, 0.3])
    config: dict[str, Any] = {
        "candidates": {"type": "folder", "path": str(tmp_path / "models")},
        "accelerators": [THREAD],
        "metrics": [LATENCY],
        "output_dir": str(tmp_path / "packages"),
        "timing": {"seconds_per_candidate": 3.0},
    }
    return prepare(parse_config(config)).receive(store)


def timing_of(plan: Plan, evaluations: list[Evaluation]) -> TimingRequest:
    request = plan.timing_on("cpu-cpu", evaluations)
    assert request
    return request


class Worker:
    """A worker of one candidate, and what it owns."""

    def __init__(self, folder: Path, plan: Plan, accelerator: Accelerator | None = None) -> None:
        folder.mkdir()
        self.owned = ExitStack()
        self.host = self.owned.enter_context(SessionHost(folder))
        self.candidate = plan.candidates[0]
        self.accelerator = accelerator or plan.requests[0].accelerator

    def wait_in(self, idle: IdleWorkers) -> None:
        idle.keep(self.host, self.owned, self.candidate, self.accelerator, sys.executable)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestTournament:
    def test_takes_the_workers_that_evaluated_its_candidates_and_ends_them(
        self, plan: Plan, store: ArtifactStore, idle: IdleWorkers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers: dict[str, set[int]] = {}
        plain = SessionHost.ask

        def ask(self: SessionHost, request: str, **arguments: Any) -> dict[str, Any]:
            workers.setdefault(request, set()).add(self.pid)
            return plain(self, request, **arguments)

        monkeypatch.setattr(SessionHost, "ask", ask)
        evaluations = [evaluate(request, store, idle=idle) for request in plan.requests]
        assert all(is_running(pid) for pid in workers["create_session"])

        outcome = time_candidates(timing_of(plan, evaluations), store, idle=idle)

        assert [item.failure for item in outcome.candidates] == [None, None]
        assert len(workers["create_session"]) == 2
        assert workers["time"] == workers["create_session"]
        assert not any(is_running(pid) for pid in workers["time"])

    def test_starts_a_worker_for_a_candidate_whose_own_one_was_killed(
        self, plan: Plan, store: ArtifactStore, idle: IdleWorkers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept: list[int] = []
        plain = idle.keep

        def keep(host: SessionHost, *others: Any) -> None:
            kept.append(host.pid)
            plain(host, *others)

        monkeypatch.setattr(idle, "keep", keep)
        evaluations = [evaluate(request, store, idle=idle) for request in plan.requests]
        os.kill(kept[0], signal.SIGKILL)

        outcome = time_candidates(timing_of(plan, evaluations), store, idle=idle)

        assert [item.failure for item in outcome.candidates] == [None, None]

    def test_pins_the_threads_of_the_new_session_in_a_worker_that_was_not_pinned(
        self, plan: Plan, store: ArtifactStore, idle: IdleWorkers
    ) -> None:
        evaluations = [evaluate(request, store, idle=idle) for request in plan.requests]

        pinned = time_candidates(timing_of(plan, evaluations), store, idle=idle).summary.pinned

        assert pinned == time_candidates(timing_of(plan, evaluations), store).summary.pinned
        assert pinned.startswith("CPU ")


class TestWaiting:
    def test_worker_is_for_its_own_candidate_accelerator_and_interpreter_only(
        self, plan: Plan, idle: IdleWorkers, tmp_path: Path
    ) -> None:
        worker = Worker(tmp_path / "worker", plan)
        worker.wait_in(idle)
        other = worker.accelerator.model_copy(update={"dimensions": {"n": 1}})

        with ExitStack() as owner:
            assert idle.take(owner, plan.candidates[1], worker.accelerator, sys.executable) is None
            assert idle.take(owner, worker.candidate, other, sys.executable) is None
            assert idle.take(owner, worker.candidate, worker.accelerator, "python") is None
            assert idle.take(owner, worker.candidate, worker.accelerator, sys.executable) is worker.host
            assert idle.take(owner, worker.candidate, worker.accelerator, sys.executable) is None
            assert is_running(worker.host.pid)
        assert not is_running(worker.host.pid)

    def test_worker_has_given_its_session_and_samples_back(self, plan: Plan, idle: IdleWorkers, tmp_path: Path) -> None:
        worker, model = Worker(tmp_path / "worker", plan), tmp_path / "large.onnx"
        columns = 16 << 20
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("ReduceMax", ["h"], ["y"], axes=[1])]
        save(model, nodes, [output("y", "n", 1)], weights={"w": np.ones((2, columns), np.float32)})
        np.savez(tmp_path / "data.npz", x=np.ones((4, 2), np.float32))
        worker.host.ask("read_data", path=str(tmp_path / "data.npz"), inputs={"x": "x"})
        before = resident_bytes(worker.host)
        arguments = session_arguments(worker.accelerator, InferenceSettings(), model)
        worker.host.ask("create_session", **arguments)
        assert resident_bytes(worker.host) > before + columns * 8

        worker.wait_in(idle)

        assert resident_bytes(worker.host) < before + columns
        with pytest.raises(EvaluationFailed):
            worker.host.ask("predict", batch_size=1, output=str(tmp_path / "y.npz"))

    def test_worker_ends_with_its_accelerator_and_no_other(self, plan: Plan, idle: IdleWorkers, tmp_path: Path) -> None:
        worker = Worker(tmp_path / "worker", plan)
        worker.wait_in(idle)

        idle.end("cpu-openvino")
        assert is_running(worker.host.pid)
        idle.end("cpu-cpu")
        assert not is_running(worker.host.pid)

    def test_worker_that_nobody_takes_ends_by_itself(
        self, plan: Plan, idle: IdleWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idle_workers, "MAX_WAIT_S", 1)
        worker = Worker(tmp_path / "worker", plan)
        worker.wait_in(idle)

        deadline = time.monotonic() + 20
        while is_running(worker.host.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)

        with ExitStack() as owner:
            assert idle.take(owner, worker.candidate, worker.accelerator, sys.executable) is None

    def test_worker_that_was_taken_does_not_end_by_itself(
        self, plan: Plan, idle: IdleWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idle_workers, "MAX_WAIT_S", 1)
        worker = Worker(tmp_path / "worker", plan)
        worker.wait_in(idle)

        with ExitStack() as owner:
            taken = idle.take(owner, worker.candidate, worker.accelerator, sys.executable)
            assert taken
            time.sleep(1.5)
            assert "CPUExecutionProvider" in taken.ask("providers")["providers"]

    def test_workers_are_no_more_than_a_limit(
        self, plan: Plan, idle: IdleWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idle_workers, "MAX_WAITING", 1)
        first, second = Worker(tmp_path / "a", plan), Worker(tmp_path / "b", plan)
        second.candidate = plan.candidates[1]

        first.wait_in(idle)
        second.wait_in(idle)

        assert is_running(first.host.pid)
        assert not is_running(second.host.pid)

    def test_second_worker_of_a_candidate_is_ended(self, plan: Plan, idle: IdleWorkers, tmp_path: Path) -> None:
        first, second = Worker(tmp_path / "a", plan), Worker(tmp_path / "b", plan)

        first.wait_in(idle)
        second.wait_in(idle)

        assert is_running(first.host.pid)
        assert not is_running(second.host.pid)

    def test_worker_of_another_device_than_the_cpu_is_ended(self, plan: Plan, idle: IdleWorkers, tmp_path: Path) -> None:
        gpu = Accelerator(device="gpu", execution_provider="CUDAExecutionProvider")
        worker = Worker(tmp_path / "worker", plan, gpu)

        worker.wait_in(idle)

        assert not is_running(worker.host.pid)


def resident_bytes(host: SessionHost) -> int:
    """Return how much memory a worker holds."""
    pages = int(Path(f"/proc/{host.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
