"""Evaluate: one task per candidate and accelerator, cached by the digests of everything that it depends on."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from prefect import get_run_logger, task
from prefect.context import TaskRunContext

from packhouse.artifacts import ArtifactStore
from packhouse.errors import EvaluationFailed, PackhouseError
from packhouse.evaluation.evaluate import evaluate
from packhouse.evaluation.fingerprint import this_machine
from packhouse.evaluation.records import Evaluation, EvaluationRequest
from packhouse.report.tables import shown
from tasks.fan_out import fan_out
from tasks.storage import artifact_store, runtime_environments
from tasks.workers import idle_workers


def evaluation_key(_: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Return the address of the evaluation in the result storage."""
    key: str = parameters["request"].key
    return key


@task(
    task_run_name="evaluate {request.candidate.name} on {request.accelerator.spec}",
    cache_key_fn=evaluation_key,
    persist_result=True,
    result_serializer="json",
)
def evaluate_candidate(request: EvaluationRequest, is_timed_next: bool = False) -> Evaluation:
    """Measure a candidate on an accelerator; a worker that may be needed for timing next is kept.

    Raises:
        EvaluationFailed: with the reason, which no later run takes from the cache.
    """
    try:
        say = partial(_log_step, request)
        python = runtime_environments().python(request.accelerator.runtime, say)
        evaluation = evaluate(request, artifact_store(), say, python, idle=idle_workers if is_timed_next else None)
    except (PackhouseError, OSError) as error:
        _log_step(request, f"failed: {error}")
        raise EvaluationFailed(str(error)) from error
    values = (f"{name} {shown(metric.value)} {metric.unit}".strip() for name, metric in evaluation.metrics.items())
    _log_step(request, f"done: {', '.join(values)}")
    return evaluation


async def evaluate_all(requests: Sequence[EvaluationRequest], *, are_timed_next: bool = False) -> list[Evaluation]:
    """Evaluate the requests on the flow's task runner and return their evaluations in order; failed ones say why."""
    store = artifact_store()
    outcomes = await fan_out(
        evaluate_candidate,
        [(request, are_timed_next) for request in requests],
        expected=EvaluationFailed,
        is_usable=partial(has_its_files, store=store),
    )
    evaluations = []
    for request, outcome in zip(requests, outcomes, strict=True):
        if outcome.is_cached:
            _log_step(request, "done before: taken from the result storage")
        evaluations.append(_failed(request, outcome.value) if isinstance(outcome.value, EvaluationFailed) else outcome.value)
    return evaluations


def has_its_files(evaluation: Evaluation, store: ArtifactStore) -> bool:
    """Whether the files that an evaluation speaks of are in the store, undamaged."""
    return all(store.is_intact(artifact) for artifact in evaluation.artifacts)


def _failed(request: EvaluationRequest, reason: EvaluationFailed) -> Evaluation:
    return Evaluation(
        candidate=request.candidate.digest,
        accelerator=request.accelerator.spec,
        failure=str(reason),
        fingerprint=request.fingerprint,
        computer=this_machine(),
    )


def _log_step(request: EvaluationRequest, step: str) -> None:
    subject = f"{request.candidate.name} on {request.accelerator.spec}"
    get_run_logger().info("%s: %s", subject, step, extra={"subject": subject, "step": step})
