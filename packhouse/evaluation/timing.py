"""Time all candidates of an accelerator that are still in question, on a device that they have to themselves."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from packhouse.accelerators import Accelerator
from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.candidates import Candidate, lay_out
from packhouse.errors import EvaluationFailed
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.evaluate import open_session
from packhouse.evaluation.fingerprint import Fingerprint, Machine
from packhouse.evaluation.idle_workers import IdleWorkers
from packhouse.evaluation.latency import TimingPlan
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.evaluation.session_host import SessionHost
from packhouse.evaluation.surroundings import PRIORITY, cpus_for
from packhouse.evaluation.tournament import Result, Standing, Summary, Tournament
from packhouse.goals import missed_goals
from packhouse.metrics import Metric
from packhouse.records import Record, digest_of

# Raised whenever the same request would give other timings than before.
PROTOCOL_VERSION = 1
# Sessions that share a device must not keep its CPUs busy while they wait for work.
WITHOUT_SPINNING = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}

Tell = Callable[[Sequence[Standing]], None]
Say = Callable[[str], None]


class TimingRequest(Record):
    """Everything that a tournament depends on. Its `key` is the address of what comes of it in the result storage."""

    candidates: tuple[Candidate, ...]
    accelerator: Accelerator
    metrics: tuple[Metric, ...]
    data: Artifact
    input_keys: dict[str, str]
    plan: TimingPlan
    fingerprint: Fingerprint
    machine: Machine

    @property
    def devices(self) -> tuple[str, ...]:
        """The physical devices that candidates occupy."""
        return self.accelerator.devices([candidate.settings for candidate in self.candidates])

    @property
    def key(self) -> str:
        """A digest of what is timed, how and where. What is to be decided has a part: the tournament ends when it is."""
        metrics = [
            [
                metric.name,
                metric.type,
                metric.sub_type,
                metric.priority > 0,
                metric.higher_is_better,
                metric.tolerance.model_dump(mode="json"),
            ]
            for metric in sorted(self.metrics, key=lambda metric: (metric.priority < 0, metric.priority, metric.name))
        ]
        return "timing-" + digest_of(
            {
                "protocol": PROTOCOL_VERSION,
                "candidates": sorted(candidate.digest for candidate in self.candidates),
                "accelerator": self.accelerator.identity,
                "metrics": metrics,
                "data": self.data.sha256,
                "inputs": self.input_keys,
                "plan": self.plan.model_dump(mode="json"),
                "fingerprint": self.fingerprint.model_dump(mode="json"),
                "machine": self.machine.model_dump(mode="json"),
            }
        )


class Timed(Record):
    """What a candidate did in a tournament: its timed metrics and raw samples, or why it could not be timed."""

    candidate: str
    failure: str | None = None
    metrics: dict[str, MetricValue] = {}
    samples: Artifact | None = None


class TimingOutcome(Record):
    """What came of a tournament: how it went, what each candidate did, and what was seen of the machine in each round.

    `rounds` is a JSON list of `Surroundings`.
    """

    key: str
    accelerator: str
    summary: Summary
    candidates: tuple[Timed, ...]
    rounds: Artifact

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files that it speaks of."""
        return (self.rounds, *(item.samples for item in self.candidates if item.samples))

    @property
    def is_worth_keeping(self) -> bool:
        """Whether another run may take it instead of a tournament of its own: all were timed, and nothing disturbed them."""
        return self.summary.state != "unstable" and not any(item.failure for item in self.candidates)

    def applied_to(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        """Return the evaluations with what they gave here added, in order; those that did not take part stay as they are."""
        timed = {item.candidate: item for item in self.candidates}
        return [self._applied(item, timed.get(item.candidate)) for item in evaluations]

    def _applied(self, evaluation: Evaluation, timed: Timed | None) -> Evaluation:
        if timed is None:
            return evaluation
        return evaluation.model_copy(
            update={
                "failure": timed.failure,
                "metrics": {**evaluation.metrics, **timed.metrics},
                "samples": timed.samples,
                "clock": self.summary.clock,
                "tournament": self.key if self.summary.state != "unstable" else None,
                "is_stable": self.summary.state != "unstable",
            }
        )


def in_question(
    evaluations: Sequence[Evaluation], metrics: Sequence[Metric], timed: Sequence[Metric], baseline: str | None
) -> list[Evaluation]:
    """Return the evaluations of an accelerator that are worth timing: they have not failed, and miss no goal so far.

    The baseline is timed in any case where a goal of a `timed` metric refers to it. `metrics` are the others.
    """
    reference = next((item for item in evaluations if item.candidate == baseline), None)
    is_needed = any(metric.goal and metric.goal.is_relative for metric in timed)
    return [
        item
        for item in evaluations
        if item.failure is None and (not missed_goals(item, metrics, reference) or (is_needed and item is reference))
    ]


def time_candidates(
    request: TimingRequest,
    store: ArtifactStore,
    tell: Tell = lambda _: None,
    say: Say = lambda _: None,
    python: str = sys.executable,
    *,
    idle: IdleWorkers | None = None,
) -> TimingOutcome:
    """Hold the tournament with the onnxruntime of the interpreter `python`, in the workers that wait in `idle` where some do.

    `tell` is told the standings from time to time, and `say` what is going on.
    """
    with (
        store.staging() as scratch,
        device_locks(request.devices, exclusive=True, waiting=lambda: say("waiting for the device")),
        ExitStack() as running,
    ):
        say("creating the sessions")
        field = _Field(request, store, scratch, python, idle or IdleWorkers())
        for candidate in request.candidates:
            field.open(candidate, running)
        say("timing")
        tournament = Tournament(
            field.hosts,
            request.metrics,
            request.plan,
            batch_sizes=field.batch_sizes,
            is_one_thread=field.threads == 1,
            tell=tell,
        )
        result = tournament.play()
        rounds = json.dumps([seen.model_dump(mode="json") for seen in result.rounds]).encode()
        return TimingOutcome(
            key=request.key,
            accelerator=request.accelerator.spec,
            summary=result.summary.model_copy(update=field.ownership),
            candidates=tuple(field.timed(candidate.digest, result) for candidate in request.candidates),
            rounds=store.put_bytes(rounds),
        )


class _Field:
    """The candidates that take part: their workers by digest, and why others cannot."""

    def __init__(self, request: TimingRequest, store: ArtifactStore, scratch: Path, python: str, idle: IdleWorkers) -> None:
        self._request, self._store, self._scratch, self._python, self._idle = request, store, scratch, python, idle
        self.hosts: dict[str, SessionHost] = {}
        self.batch_sizes: dict[str, int] = {}
        self.ownership: dict[str, str] = {}
        self._failures: dict[str, str] = {}

    @property
    def threads(self) -> int | None:
        """The most threads that a candidate computes on; None if that is not known for all of them."""
        request = self._request
        found = [request.accelerator.session_for(candidate.settings).threads for candidate in request.candidates]
        known = [threads for threads in found if threads is not None]
        return max(known) if len(known) == len(found) else None

    def open(self, candidate: Candidate, running: ExitStack) -> None:
        """Create the session of a candidate in the worker that waits for it, or a new one, until `running` ends."""
        folder = self._scratch / candidate.digest
        folder.mkdir()
        waiting = self._idle.take(running, candidate, self._request.accelerator, self._python)
        host = waiting or running.enter_context(SessionHost(folder, self._python))
        try:
            self.ownership = self._take_the_device(host)
            open_session(
                host,
                candidate,
                self._request.accelerator,
                data=self._store.path(self._request.data.sha256),
                input_keys=self._request.input_keys,
                model=lay_out(candidate, self._store, folder / "model"),
                extra_session_config=WITHOUT_SPINNING,
            )
            plan = self._request.plan
            prepared = host.ask("prepare_timing", batch_size=plan.batch_size, io_binding=plan.io_binding)
        except EvaluationFailed as error:
            self._failures[candidate.digest] = str(error)
            return
        self.hosts[candidate.digest], self.batch_sizes[candidate.digest] = host, int(prepared["batch_size"])

    def timed(self, digest: str, result: Result) -> Timed:
        """Return what a candidate did, with its raw samples taken into the store."""
        reason = self._failures.get(digest) or result.failures.get(digest)
        if reason is not None:
            return Timed(candidate=digest, failure=f"while it was timed: {reason}")
        timings, metrics = result.timings[digest], {}
        for metric in self._request.metrics:
            ordering = result.orderings.get(metric.name, {}).get(digest)
            value = timings.value(metric, self.batch_sizes[digest])
            metrics[metric.name] = value.model_copy(update={"ordering": ordering})
        path = self._scratch / "timings.npz"
        timings.save(path)
        return Timed(candidate=digest, metrics=metrics, samples=self._store.adopt(path))

    def _take_the_device(self, host: SessionHost) -> dict[str, str]:
        """Keep a worker on CPUs of its own as far as is known how many it needs; return what came of it in words.

        Only then it gets priority over other programs too: threads of a provider that spin while they wait would stop them all.
        """
        if self.threads is None:
            reason = "the number of threads is not set"
            return {"pinned": f"not pinned ({reason})", "scheduler": f"SCHED_OTHER ({reason})"}
        answer = host.ask("occupy", cpus=cpus_for(self.threads), priority=PRIORITY)
        return {"pinned": str(answer["pinned"]), "scheduler": str(answer["scheduler"])}
