"""Time: one tournament per accelerator between the candidates that are still in question."""

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from packhouse.artifacts import ArtifactStore
from packhouse.decision import Grading
from packhouse.errors import EvaluationFailed, PackhouseError
from packhouse.evaluation.records import Evaluation
from packhouse.evaluation.timing import TimingOutcome, TimingRequest, time_candidates
from packhouse.evaluation.tournament import Standing
from packhouse.report.tables import shown, standing_rows
from tasks.device import device_limits, limit_names
from tasks.fan_out import fan_out
from tasks.storage import artifact_store, runtime_environments
from tasks.workers import idle_workers

SHOWN_EVERY_S = 2.0


def timing_key(_: TaskRunContext | None, parameters: dict[str, Any]) -> str:
    """Return the address of what comes of the tournament in the result storage."""
    key: str = parameters["request"].key
    return key


@task(
    task_run_name="time candidates on {request.accelerator.spec}",
    cache_key_fn=timing_key,
    persist_result=True,
    result_serializer="json",
)
def time_on_accelerator(request: TimingRequest) -> TimingOutcome:
    """Hold the tournament of an accelerator, and show how it goes.

    Raises:
        EvaluationFailed: with the reason why nobody could be timed, which no later run takes from the cache.
    """
    show = _Show(request)
    try:
        return _hold(request, show)
    except (PackhouseError, OSError) as error:
        show.step(f"failed: {error}")
        raise EvaluationFailed(str(error)) from error


def _hold(request: TimingRequest, show: "_Show") -> TimingOutcome:
    python = runtime_environments().python(request.accelerator.runtime, show.step)
    if limits := limit_names(request.accelerator):
        show.step(f"waiting for the limit {' and '.join(limits)}")
    with device_limits(request.accelerator):
        outcome = time_candidates(request, artifact_store(), show.standings, show.step, python, idle=idle_workers)
    show.end(outcome)
    return outcome


async def time_all(request: TimingRequest | None, accelerator: str, evaluations: Sequence[Evaluation]) -> Grading:
    """Return the evaluations with latency and throughput added, as far as there is something to time."""
    if request is None:
        return Grading(accelerator=accelerator, evaluations=tuple(evaluations))
    is_usable = partial(can_be_reused, store=artifact_store())
    (outcome,) = await fan_out(time_on_accelerator, [(request,)], expected=EvaluationFailed, is_usable=is_usable)
    if outcome.is_cached:
        _log(accelerator, "done before: taken from the result storage")
    if isinstance(outcome.value, EvaluationFailed):
        timed = {candidate.digest for candidate in request.candidates}
        reason = f"it could not be timed: {outcome.value}"
        failed = [item.model_copy(update={"failure": reason}) if item.candidate in timed else item for item in evaluations]
        return Grading(accelerator=accelerator, evaluations=tuple(failed))
    timing: TimingOutcome = outcome.value
    return Grading(accelerator=accelerator, evaluations=tuple(timing.applied_to(evaluations)), timing=timing.summary)


def can_be_reused(outcome: TimingOutcome, store: ArtifactStore) -> bool:
    """Whether another run may take an outcome from the result storage: it is worth it, and its files are undamaged."""
    return outcome.is_worth_keeping and all(store.is_intact(artifact) for artifact in outcome.artifacts)


class _Show:
    """Tells the log, the terminal and the Prefect UI how a tournament goes, now and then: every message costs time."""

    def __init__(self, request: TimingRequest) -> None:
        self._spec = request.accelerator.spec
        self._names = {candidate.digest: candidate.name for candidate in request.candidates}
        self._budget_s = request.plan.seconds_per_candidate * len(request.candidates)
        self._began = self._shown = time.monotonic()
        self._artifact = create_progress_artifact(0.0, key=f"timing-{self._spec}", description=f"Timing on {self._spec}")

    def step(self, step: str) -> None:
        self._began = time.monotonic()
        _log(self._spec, step)

    def standings(self, standings: Sequence[Standing]) -> None:
        if time.monotonic() - self._shown < SHOWN_EVERY_S:
            return
        self._shown = time.monotonic()
        open_ones = sum(item.state == "measuring" for item in standings)
        decided = f"{len(standings) - open_ones} of {len(standings)} decided after {standings[0].round} rounds"
        for item in standings:
            get_run_logger().info(
                "%s on %s: %s",
                self._names[item.candidate],
                self._spec,
                standing_text(item),
                extra={"subject": f"{self._names[item.candidate]} on {self._spec}", "step": standing_text(item)},
            )
        best = standings[0]
        self._update(f"Timing on {self._spec}: {decided}; best {self._names[best.candidate]}, {standing_text(best)}")

    def end(self, outcome: TimingOutcome) -> None:
        summary = outcome.summary
        text = f"done: {summary.state} after {summary.rounds} rounds" + (f", {summary.cause}" if summary.cause else "")
        _log(self._spec, text)
        create_table_artifact(
            key=f"timings-{self._spec}",
            table=standing_rows(outcome, self._names),
            description=f"Latency and throughput on {self._spec}: {text}",
        )
        self._update(f"Timing on {self._spec} {text}", progress=100.0)

    def _update(self, description: str, progress: float | None = None) -> None:
        spent = 100 * (time.monotonic() - self._began) / self._budget_s
        if isinstance(self._artifact, UUID):
            update_progress_artifact(self._artifact, min(99.0, spent) if progress is None else progress, description)


def standing_text(standing: Standing) -> str:
    """Return where a candidate stands in words: ``12.3 ± 0.2 ms, decided``."""
    low, high = standing.interval or (math.nan, math.nan)
    width = f" ± {shown((high - low) / 2)}" if standing.interval else ""
    state = {"measuring": "measuring", "decided": "decided", "left": "decided, out"}[standing.state]
    return f"{shown(standing.estimate)}{width} {standing.unit}, {state} (round {standing.round})"


def _log(spec: str, step: str) -> None:
    get_run_logger().info("timing on %s: %s", spec, step, extra={"subject": f"timing on {spec}", "step": step})
