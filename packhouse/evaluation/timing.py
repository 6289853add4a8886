"""Time all candidates of an accelerator that are still in question, on a device that they have to themselves."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from packhouse.accelerators import Accelerator
from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.candidates import Candidate, lay_out
from packhouse.errors import EvaluationFailed
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.evaluate import open_session
from packhouse.evaluation.fingerprint import Fingerprint
from packhouse.evaluation.latency import TimingPlan, Timings
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

    @property
    def key(self) -> str:
        """A digest of what is timed, how and where. What is to be decided has a part: the tournament ends when it is."""
        metrics = [
            [metric.name, metric.type, metric.sub_type, metric.priority, metric.tolerance.model_dump(mode="json")]
            for metric in self.metrics
        ]
        return "timing-" + digest_of(
            {
                "protocol": PROTOCOL_VERSION,
                "candidates": sorted(candidate.digest for candidate in self.candidates),
                "accelerator": self.accelerator.model_dump(mode="json"),
                "metrics": metrics,
                "data": self.data.sha256,
                "inputs": self.input_keys,
                "plan": self.plan.model_dump(mode="json"),
                "fingerprint": self.fingerprint.model_dump(mode="json"),
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
    request: TimingRequest, store: ArtifactStore, tell: Tell = lambda _: None, say: Say = lambda _: None
) -> TimingOutcome:
    """Hold the tournament. `tell` is told the standings from time to time, and `say` what is going on."""
    with (
        store.staging() as scratch,
        device_locks(request.accelerator.devices, exclusive=True, waiting=lambda: say("waiting for the device")),
        ExitStack() as running,
    ):
        say("creating the sessions")
        hosts, failures, batch_sizes, ownership = {}, {}, {}, {"pinned": "", "scheduler": ""}
        for candidate in request.candidates:
            folder = scratch / candidate.digest
            folder.mkdir()
            host = running.enter_context(SessionHost(folder))
            try:
                ownership = _take_the_device(host, request)
                batch_sizes[candidate.digest] = _open(host, candidate, request, store, folder)
            except EvaluationFailed as error:
                failures[candidate.digest] = str(error)
                continue
            hosts[candidate.digest] = host
        say("timing")
        tournament = Tournament(
            hosts, request.metrics, request.plan, batch_sizes=batch_sizes, is_one_thread=_threads(request) == 1, tell=tell
        )
        result = tournament.play()
        timed = [_timed(item.digest, request, result, failures, batch_sizes, store, scratch) for item in request.candidates]
        rounds = json.dumps([seen.model_dump(mode="json") for seen in result.rounds]).encode()
        return TimingOutcome(
            key=request.key,
            accelerator=request.accelerator.spec,
            summary=result.summary.model_copy(update=ownership),
            candidates=tuple(timed),
            rounds=store.put_bytes(rounds),
        )


def _threads(request: TimingRequest) -> int | None:
    """Return the most threads that a candidate computes on; None if that is not known for all of them."""
    found = [request.accelerator.session_for(candidate.settings).threads for candidate in request.candidates]
    known = [threads for threads in found if threads is not None]
    return max(known) if known and len(known) == len(found) else None


def _take_the_device(host: SessionHost, request: TimingRequest) -> dict[str, str]:
    """Keep a worker on CPUs of its own as far as is known how many it needs; return what came of it in words.

    Only then it gets priority over other programs too: threads of a provider that wait for work by spinning would stop them all.
    """
    threads = _threads(request)
    if threads is None:
        reason = "the number of threads is not set"
        return {"pinned": f"not pinned ({reason})", "scheduler": f"SCHED_OTHER ({reason})"}
    answer = host.ask("occupy", cpus=cpus_for(threads), priority=PRIORITY)
    return {"pinned": str(answer["pinned"]), "scheduler": str(answer["scheduler"])}


def _open(host: SessionHost, candidate: Candidate, request: TimingRequest, store: ArtifactStore, folder: Path) -> int:
    """Create a candidate's session and return the batch size that it is timed with."""
    open_session(
        host,
        candidate,
        request.accelerator,
        store.path(request.data.sha256),
        request.input_keys,
        lay_out(candidate, store, folder / "model"),
        WITHOUT_SPINNING,
    )
    prepared = host.ask("prepare_timing", batch_size=request.plan.batch_size, io_binding=request.plan.io_binding)
    return int(prepared["batch_size"])


def _timed(
    digest: str,
    request: TimingRequest,
    result: Result,
    failures: dict[str, str],
    batch_sizes: dict[str, int],
    store: ArtifactStore,
    scratch: Path,
) -> Timed:
    reason = failures.get(digest) or result.failures.get(digest)
    if reason is not None:
        return Timed(candidate=digest, failure=f"while it was timed: {reason}")
    timings = result.timings[digest]
    metrics = {
        metric.name: timings.value(metric, batch_sizes[digest]).model_copy(
            update={"ordering": result.orderings.get(metric.name, {}).get(digest)}
        )
        for metric in request.metrics
    }
    return Timed(candidate=digest, metrics=metrics, samples=_keep(timings, store, scratch))


def _keep(timings: Timings, store: ArtifactStore, scratch: Path) -> Artifact:
    path = scratch / "timings.npz"
    timings.save(path)
    return store.adopt(path)
