"""Timing real candidates in real workers: what is recorded, who takes part, and that one's end is not the others'."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packhouse.accelerators import SessionOptions
from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.config.loading import parse_config
from packhouse.evaluation import device_lock as lock_module
from packhouse.evaluation import session_host, timing, tournament
from packhouse.evaluation.device_lock import device_lock
from packhouse.evaluation.latency import Timings
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.evaluation.surroundings import Surroundings
from packhouse.evaluation.timing import Timed, TimingOutcome, TimingRequest, in_question, time_candidates
from packhouse.evaluation.tournament import Standing, Summary
from packhouse.metrics import Goal, Metric, Tolerance
from packhouse.plan import prepare
from tests.classifiers import write_classifier, write_family
from tests.evaluation.models import LATENCY, write_identity
from tests.evaluation.test_tournament import metric

ONE_THREAD = {"session_options": {"intra_op_num_threads": 1}}
# The real worker, which meets a fate in the fifth turn of one candidate.
BROKEN = """
import os, signal
from packhouse.evaluation import worker
turns = []
def time(self, runs, lead_in=0, plain=worker.Worker.time):
    if lead_in or self.is_timed and runs != 10:
        turns.append(runs)
    if len(turns) == 5 and self.session.get_outputs()[0].name == "victim_out":
        {fate}
    return plain(self, runs, lead_in)
worker.Worker.time = time
worker.main()
"""
HANG = "os.kill(os.getpid(), signal.SIGSTOP)"
# Times two candidates of a request from a file, and prints what came of it.
TIME = """
import sys
import threading
from pathlib import Path
from packhouse.artifacts import ArtifactStore
from packhouse.evaluation import device_lock, timing
device_lock.LOCK_FOLDER = Path(sys.argv[1])
request = timing.TimingRequest.model_validate_json(sys.stdin.read())
print(timing.time_candidates(request, ArtifactStore(Path(sys.argv[2]))).summary.model_dump_json())
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests that run at once do not wait for each other's devices."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setattr(lock_module, "LOCK_FOLDER", folder)
    return folder


def request_for(models: Path, store: ArtifactStore, *metrics: Mapping[str, Any], **config: Any) -> TimingRequest:
    """Return the tournament that a configuration asks for if no candidate has failed, with all that it needs in the store."""
    document = {
        "candidates": {"type": "folder", "path": str(models)},
        "accelerators": [ONE_THREAD],
        "metrics": metrics or [LATENCY],
        "output_dir": str(models.parent / "out"),
        "timing": {"seconds_per_candidate": 5.0},
        **config,
    }
    plan = prepare(parse_config(document)).receive(store)
    evaluations = [Evaluation(candidate=item.candidate.digest, accelerator="cpu-cpu") for item in plan.requests]
    request = plan.timing_on("cpu-cpu", evaluations)
    assert request
    return request


def arrays_of(store: ArtifactStore, artifact: Artifact | None) -> Timings:
    assert artifact
    assert store.is_intact(artifact)
    return Timings.load(store.path(artifact.sha256))


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tournament of two real candidates, of which one takes batches of eight only, with all that was told meanwhile."""
    folder = tmp_path_factory.mktemp("timed")
    write_classifier(folder / "models" / "a.onnx")
    write_classifier(folder / "models" / "b.onnx", layers=40, batch=8)
    store, said, told = ArtifactStore(folder / "store"), list[str](), list[list[Standing]]()
    rate = {"name": "rate", "type": "throughput", "sub_types": [{"name": "avg"}]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_module, "LOCK_FOLDER", folder)
        request = request_for(folder / "models", store, LATENCY, rate, timing={})
        outcome = time_candidates(request, store, lambda standings: told.append(list(standings)), said.append)
    return request, outcome, store, said, told


class TestOutcome:
    def test_has_samples_of_every_candidate_in_ns_round_by_round(self, timed: Any) -> None:
        request, outcome, store, *_ = timed

        found = [arrays_of(store, item.samples) for item in outcome.candidates]
        assert [item.candidate for item in outcome.candidates] == [candidate.digest for candidate in request.candidates]
        for timings in found:
            rounds = len(timings.rounds)
            assert {timings.wall_ns.dtype, timings.cpu_ns.dtype, timings.rounds.dtype, timings.sessions.dtype} == {
                np.dtype(np.int64)
            }
            assert timings.kept.dtype == np.bool_
            assert timings.wall_ns.shape == timings.cpu_ns.shape == (rounds, timings.wall_ns.shape[1])
            assert timings.sessions.shape == timings.kept.shape == (rounds,)
            assert (timings.wall_ns > 0).all()
            assert (timings.cpu_ns > 0).all()
            np.testing.assert_array_equal(timings.rounds, np.arange(rounds))
        assert max(len(timings.rounds) for timings in found) == outcome.summary.rounds

    def test_has_metrics_made_of_the_samples(self, timed: Any) -> None:
        request, outcome, store, *_ = timed

        for item, batch_size in zip(outcome.candidates, (1, 8), strict=True):
            timings = arrays_of(store, item.samples)
            assert item.failure is None
            assert list(item.metrics) == ["latency-p50", "rate-avg"]
            for measured in request.metrics:
                value = timings.value(measured, batch_size)
                found = item.metrics[measured.name]
                assert found.model_copy(update={"ordering": None}) == value
                assert (found.unit, found.n) == (measured.unit, int(timings.kept.sum()) * timings.wall_ns.shape[1])
        orderings = [item.metrics["latency-p50"].ordering for item in outcome.candidates]
        assert orderings[0] < orderings[1]
        assert [item.metrics["rate-avg"].ordering for item in outcome.candidates] == [None, None]

    def test_says_how_it_went(self, timed: Any) -> None:
        request, outcome, store, said, told = timed
        summary = outcome.summary

        assert (outcome.key, outcome.accelerator) == (request.key, "cpu-cpu")
        assert summary.began_ns < summary.ended_ns
        assert summary.sessions >= 3
        assert summary.rounds >= 30
        last = max(os.sched_getaffinity(0))
        assert summary.pinned == (f"CPU {last}" if len(os.sched_getaffinity(0)) > 1 else "not pinned")
        assert summary.scheduler == "SCHED_FIFO 10" or summary.scheduler.startswith("SCHED_OTHER (SCHED_FIFO: ")
        assert said == ["creating the sessions", "timing"]
        assert told
        digests = {candidate.digest for candidate in request.candidates}
        assert {item.candidate for standings in told for item in standings} == digests
        rounds = [Surroundings.model_validate(item) for item in json.loads(store.path(outcome.rounds.sha256).read_text())]
        assert len(rounds) == summary.rounds
        assert all(first.ended_ns <= second.began_ns for first, second in pairwise(rounds))
        assert summary.began_ns <= rounds[0].began_ns < rounds[-1].ended_ns <= summary.ended_ns

    def test_names_its_files_and_leaves_no_others(self, timed: Any) -> None:
        request, outcome, store, *_ = timed

        assert outcome.artifacts == (outcome.rounds, *(item.samples for item in outcome.candidates))
        given = {request.data.sha256, *(file.sha256 for item in request.candidates for file in item.files.values())}
        blobs = store.path(outcome.rounds.sha256).parent
        assert {path.name for path in blobs.iterdir()} == given | {item.sha256 for item in outcome.artifacts}
        assert list(blobs.parent.iterdir()) == [blobs]

    def test_and_request_survive_their_way_through_json(self, timed: Any) -> None:
        request, outcome, *_ = timed

        assert TimingOutcome.model_validate_json(outcome.model_dump_json()) == outcome
        again = TimingRequest.model_validate_json(request.model_dump_json())
        assert (again, again.key) == (request, request.key)


class TestThreads:
    @pytest.mark.parametrize("options", [{}, {"intra_op_num_threads": 0}])
    def test_that_are_not_set_leave_workers_where_they_are(
        self, tmp_path: Path, store: ArtifactStore, options: dict[str, int]
    ) -> None:
        models = write_family(tmp_path / "models", [0.0])
        request = request_for(models, store, accelerators=[{"session_options": options}])

        summary = time_candidates(request, store).summary

        assert summary.pinned == "not pinned (the number of threads is not set)"
        assert summary.scheduler == "SCHED_OTHER (the number of threads is not set)"

    @pytest.mark.parametrize(("second", "is_one_thread", "threads"), [(1, True, 1), (2, False, 2), (None, False, None)])
    def test_are_the_most_of_any_candidate(
        self,
        tmp_path: Path,
        store: ArtifactStore,
        monkeypatch: pytest.MonkeyPatch,
        second: int | None,
        is_one_thread: bool,
        threads: int | None,
    ) -> None:
        seen: dict[str, Any] = {}

        class Spy(tournament.Tournament):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                seen.update(options)
                super().__init__(*arguments, **options)

        asked: list[int | None] = []
        monkeypatch.setattr(timing, "Tournament", Spy)
        monkeypatch.setattr(timing, "cpus_for", asked.append)
        request = request_for(write_family(tmp_path / "models"), store, timing={"seconds_per_candidate": 0.1})
        first, other = request.candidates
        options = SessionOptions(intra_op_num_threads=0 if second is None else second)
        tuned = other.model_copy(update={"settings": other.settings.model_copy(update={"session_options": options})})

        time_candidates(request.model_copy(update={"candidates": (first, tuned)}), store)

        assert seen["is_one_thread"] == is_one_thread
        assert asked == ([threads, threads] if threads else [])

    def test_do_not_spin_while_they_wait(self, tmp_path: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[dict[str, Any]] = []
        plain = session_host.SessionHost.ask

        def ask(self: session_host.SessionHost, request: str, **arguments: Any) -> dict[str, Any]:
            if request == "create_session":
                seen.append(arguments["session_options"])
            return plain(self, request, **arguments)

        monkeypatch.setattr(session_host.SessionHost, "ask", ask)
        options = {"intra_op_num_threads": 1, "extra_session_config": {"session.intra_op.allow_spinning": "1", "x.y": "2"}}
        models = write_family(tmp_path / "models", [0.0])

        time_candidates(request_for(models, store, accelerators=[{"session_options": options}]), store)

        off = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
        assert seen == [{"intra_op_num_threads": 1, "extra_session_config": {"x.y": "2", **off}}]


class TestFailures:
    @pytest.fixture
    def models(self, tmp_path: Path) -> Path:
        for name in ("a", "b", "victim"):
            write_identity(tmp_path / "models" / f"{name}.onnx", {name: (1, ("n", 2))})
        return tmp_path / "models"

    @pytest.fixture
    def request_of_three(self, models: Path, store: ArtifactStore, tmp_path: Path) -> TimingRequest:
        names = ("a", "b", "victim")
        arrays: dict[str, Any] = {name: np.ones((9, 2), np.float32) for name in names}
        np.savez(tmp_path / "data.npz", **arrays)
        return request_for(models, store, data={"path": str(tmp_path / "data.npz")})

    @pytest.fixture
    def break_worker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """A function that puts a worker in place that meets a fate in the middle of the tournament."""

        def use(fate: str) -> None:
            (tmp_path / "worker.py").write_text(BROKEN.format(fate=fate))
            monkeypatch.setattr(session_host, "WORKER", tmp_path / "worker.py")

        return use

    @pytest.mark.parametrize(
        ("fate", "reason"),
        [
            (
                f"os.kill(os.getpid(), {int(signal.SIGKILL)})",
                "its process was killed by SIGKILL during 'time' (out of memory?)",
            ),
            ("os._exit(3)", "its process ended with exit code 3 during 'time'"),
            ("raise MemoryError('no more')", "MemoryError: no more"),
            (HANG, "it did not finish 'time' within 1 s and was stopped"),
        ],
    )
    def test_of_one_in_the_middle_is_only_its_own(
        self,
        request_of_three: TimingRequest,
        store: ArtifactStore,
        break_worker: Callable[[str], None],
        monkeypatch: pytest.MonkeyPatch,
        fate: str,
        reason: str,
    ) -> None:
        break_worker(fate)
        if fate == HANG:
            monkeypatch.setattr(tournament, "MIN_TIMEOUT_S", 1.0)

        outcome = time_candidates(request_of_three, store)

        a, b, victim = outcome.candidates
        assert victim.failure == f"while it was timed: {reason}"
        assert (victim.metrics, victim.samples) == ({}, None)
        assert (a.failure, b.failure) == (None, None)
        assert outcome.summary.rounds >= 5
        for item in (a, b):
            np.testing.assert_array_equal(arrays_of(store, item.samples).rounds, np.arange(outcome.summary.rounds))
        assert not outcome.is_worth_keeping

    def test_of_one_that_cannot_start_is_only_its_own(self, tmp_path: Path, store: ArtifactStore) -> None:
        write_classifier(tmp_path / "models" / "a.onnx")
        path = write_classifier(tmp_path / "models" / "b.onnx")
        path.write_bytes(path.read_bytes().replace(b"MatMul", b"MatFul"))

        good, bad = time_candidates(request_for(path.parent, store), store).candidates

        assert good.failure is None
        assert bad.failure
        assert bad.failure.startswith("while it was timed: ")
        assert "MatFul" in bad.failure

    def test_of_all_give_an_outcome_too(self, tmp_path: Path, store: ArtifactStore) -> None:
        path = write_classifier(tmp_path / "models" / "b.onnx")
        path.write_bytes(path.read_bytes().replace(b"MatMul", b"MatFul"))

        outcome = time_candidates(request_for(path.parent, store), store)

        assert (outcome.summary.state, outcome.summary.cause) == ("undecided", "no candidate could be timed")
        assert not outcome.is_worth_keeping

    def test_leave_no_process_behind(
        self, request_of_three: TimingRequest, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pids: list[int] = []

        def stop(self: tournament.Tournament) -> None:
            pids.extend(entrant.player.pid for entrant in self._entrants)
            raise KeyboardInterrupt

        monkeypatch.setattr(tournament.Tournament, "play", stop)

        with pytest.raises(KeyboardInterrupt):
            time_candidates(request_of_three, store)

        assert len(pids) == 3
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


class TestDevice:
    def test_is_waited_for(self, tmp_path: Path, store: ArtifactStore) -> None:
        request = request_for(write_family(tmp_path / "models", [0.0]), store, timing={"seconds_per_candidate": 0.1})
        said: list[str] = []
        waits = threading.Event()

        def say(step: str) -> None:
            said.append(step)
            if step == "waiting for the device":
                waits.set()

        thread = threading.Thread(target=lambda: time_candidates(request, store, say=say))
        with device_lock("cpu", exclusive=False):
            thread.start()
            assert waits.wait(60)
            assert said == ["waiting for the device"]
        thread.join(60)
        assert said == ["waiting for the device", "creating the sessions", "timing"]

    def test_has_one_tournament_at_a_time_of_all_processes(self, tmp_path: Path, store: ArtifactStore, own_locks: Path) -> None:
        request = request_for(write_family(tmp_path / "models"), store).model_dump_json()
        command = [sys.executable, "-c", TIME, str(own_locks), str(tmp_path / "store")]
        running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in running:
            assert process.stdin
            process.stdin.write(request)
            process.stdin.close()
        summaries = []
        for process in running:
            assert process.stdout
            summaries.append(Summary.model_validate_json(process.stdout.read()))
            assert process.wait(120) == 0
            process.stdout.close()

        first, second = sorted(summaries, key=lambda item: item.began_ns)
        assert first.began_ns < first.ended_ns <= second.began_ns < second.ended_ns


def with_metric(request: TimingRequest, **changes: Any) -> TimingRequest:
    """Return a request whose metric has changes."""
    (only,) = request.metrics
    return request.model_copy(update={"metrics": (only.model_copy(update=changes),)})


def with_plan(request: TimingRequest, **changes: Any) -> TimingRequest:
    return request.model_copy(update={"plan": request.plan.model_copy(update=changes)})


def with_session(request: TimingRequest, **options: Any) -> TimingRequest:
    changed = request.accelerator.model_copy(update={"session_options": SessionOptions(**options)})
    return request.model_copy(update={"accelerator": changed})


def renamed(request: TimingRequest) -> TimingRequest:
    candidates = tuple(item.model_copy(update={"name": f"new-{item.name}"}) for item in request.candidates)
    return request.model_copy(update={"candidates": candidates})


TimingChange = Callable[[TimingRequest], TimingRequest]
CHANGES_IT: dict[str, TimingChange] = {
    "fewer candidates": lambda request: request.model_copy(update={"candidates": request.candidates[:1]}),
    "data": lambda request: request.model_copy(update={"data": request.data.model_copy(update={"sha256": "0" * 64})}),
    "inputs": lambda request: request.model_copy(update={"input_keys": {"x": "input_1"}}),
    "threads": lambda request: with_session(request, intra_op_num_threads=2),
    "device": lambda request: request.model_copy(
        update={"accelerator": request.accelerator.model_copy(update={"device": "npu"})}
    ),
    "sub type": lambda request: with_metric(request, sub_type="p95"),
    "type": lambda request: with_metric(request, type="throughput"),
    "priority": lambda request: with_metric(request, priority=-1),
    "tolerance": lambda request: with_metric(request, tolerance=Tolerance(value=0.1)),
    "direction": lambda request: with_metric(request, higher_is_better=True),
    "name of the metric": lambda request: with_metric(request, name="speed"),
    "runs": lambda request: with_plan(request, runs=12345),
    "warm-up": lambda request: with_plan(request, warmup=12345),
    "batch size": lambda request: with_plan(request, batch_size=3),
    "time": lambda request: with_plan(request, seconds_per_candidate=3.0),
    "binding": lambda request: with_plan(request, io_binding=True),
    "machine": lambda request: request.model_copy(
        update={"fingerprint": request.fingerprint.model_copy(update={"runtime_version": "0.1"})}
    ),
}
LEAVES_IT: dict[str, TimingChange] = {
    "nothing": lambda request: request,
    "names of candidates": renamed,
    "order of candidates": lambda request: request.model_copy(update={"candidates": request.candidates[::-1]}),
    "goal": lambda request: with_metric(request, goal=Goal(type="threshold", value=1.0)),
}


class TestKey:
    @pytest.fixture
    def request_of_two(self, tmp_path: Path, store: ArtifactStore) -> TimingRequest:
        return request_for(write_family(tmp_path / "models"), store)

    @pytest.mark.parametrize("changed", CHANGES_IT)
    def test_changes_with_what_decides_the_outcome(self, request_of_two: TimingRequest, changed: str) -> None:
        assert CHANGES_IT[changed](request_of_two).key != request_of_two.key

    @pytest.mark.parametrize("changed", LEAVES_IT)
    def test_stays_with_what_does_not(self, request_of_two: TimingRequest, changed: str) -> None:
        assert LEAVES_IT[changed](request_of_two).key == request_of_two.key

    def test_changes_with_another_way_of_measuring(
        self, request_of_two: TimingRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = request_of_two.key
        monkeypatch.setattr(timing, "PROTOCOL_VERSION", timing.PROTOCOL_VERSION + 1)

        assert before.startswith("timing-")
        assert request_of_two.key != before


def evaluation(name: str, failure: str | None = None, **values: float) -> Evaluation:
    metrics = {metric_name: MetricValue(value=value, unit="", n=100) for metric_name, value in values.items()}
    return Evaluation(candidate=name, accelerator="cpu-cpu", failure=failure, metrics=metrics)


def judged(kind: Any = None, value: float = 0.0, name: str = "accuracy") -> Metric:
    """Return a metric of which more is better, with a goal if there is a kind of one."""
    goal = Goal(type=kind, value=value) if kind else None
    changes = {"name": name, "type": "accuracy", "higher_is_better": True, "goal": goal, "tolerance": Tolerance()}
    return metric().model_copy(update=changes)


TIMED = metric()
TIMED_ABSOLUTE = TIMED.model_copy(update={"goal": Goal(type="threshold", value=1.0)})
TIMED_RELATIVE = TIMED.model_copy(update={"goal": Goal(type="percent-max-degradation", value=10)})


class TestQuestion:
    FIELD = (evaluation("good", accuracy=0.9), evaluation("bad", accuracy=0.5), evaluation("broken", "it crashed"))

    def chosen(self, others: list[Metric], timed: Metric, baseline: str | None = None) -> list[str]:
        return [item.candidate for item in in_question(self.FIELD, others, [timed], baseline)]

    def test_is_about_all_who_have_not_failed(self) -> None:
        assert self.chosen([judged()], TIMED) == ["good", "bad"]
        assert self.chosen([judged()], TIMED_RELATIVE, "broken") == ["good", "bad"]

    @pytest.mark.parametrize("timed", [TIMED, TIMED_ABSOLUTE])
    @pytest.mark.parametrize("baseline", [None, "bad"])
    def test_leaves_out_who_misses_a_goal_of_another_metric(self, timed: Metric, baseline: str | None) -> None:
        assert self.chosen([judged("threshold", 0.8)], timed, baseline) == ["good"]

    def test_keeps_the_baseline_that_a_goal_of_a_timed_metric_refers_to(self) -> None:
        assert self.chosen([judged("threshold", 0.8)], TIMED_RELATIVE, "bad") == ["good", "bad"]
        assert self.chosen([judged("threshold", 0.8)], TIMED_RELATIVE, "good") == ["good"]
        assert self.chosen([judged("threshold", 0.8)], TIMED_RELATIVE, "broken") == ["good"]

    def test_compares_with_the_baseline(self) -> None:
        assert self.chosen([judged("max-degradation", 0.3)], TIMED, "good") == ["good"]
        assert self.chosen([judged("max-degradation", 0.5)], TIMED, "good") == ["good", "bad"]

    def test_may_be_about_nobody(self) -> None:
        assert self.chosen([judged("threshold", 0.99)], TIMED) == []


BLOB = Artifact(sha256="a" * 64, size_bytes=1)
VALUE = MetricValue(value=1.5, unit="ms", n=100, interval=(1.4, 1.6), ordering=1.45)


def outcome_of(*timed: Timed, **summary: Any) -> TimingOutcome:
    return TimingOutcome(
        key="timing-1",
        accelerator="cpu-cpu",
        summary=Summary(**{"state": "decided", "clock": "cpu", **summary}),
        candidates=timed,
        rounds=BLOB,
    )


class TestApplying:
    EVALUATIONS = (evaluation("a", accuracy=0.9), evaluation("b", accuracy=0.8), evaluation("out", accuracy=0.1))

    def test_adds_what_was_timed_and_leaves_who_was_not(self) -> None:
        outcome = outcome_of(
            Timed(candidate="b", failure="it hung"), Timed(candidate="a", metrics={"p50": VALUE}, samples=BLOB)
        )

        a, b, out = outcome.applied_to(self.EVALUATIONS)

        assert out == self.EVALUATIONS[2]
        assert (a.values, a.samples, a.clock, a.tournament) == ({"accuracy": 0.9, "p50": 1.5}, BLOB, "cpu", "timing-1")
        assert a.metrics["p50"] == VALUE
        assert a.failure is None
        assert (b.failure, b.values, b.samples) == ("it hung", {"accuracy": 0.8}, None)

    @pytest.mark.parametrize(("state", "expected"), [("decided", "timing-1"), ("undecided", "timing-1"), ("unstable", None)])
    def test_counts_as_a_tournament_unless_it_was_disturbed(self, state: str, expected: str | None) -> None:
        (found,) = outcome_of(Timed(candidate="a", metrics={"p50": VALUE}), state=state).applied_to(self.EVALUATIONS[:1])

        assert found.tournament == expected
        assert found.values["p50"] == 1.5

    @pytest.mark.parametrize(
        ("state", "failure", "expected"),
        [
            ("decided", None, True),
            ("undecided", None, True),
            ("unstable", None, False),
            ("decided", "it hung", False),
        ],
    )
    def test_is_worth_keeping_where_all_were_timed_undisturbed(self, state: str, failure: str | None, expected: bool) -> None:
        outcome = outcome_of(Timed(candidate="a"), Timed(candidate="b", failure=failure), state=state)

        assert outcome.is_worth_keeping == expected
