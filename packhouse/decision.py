"""The decision: what the gradings on all accelerators come to, as the job that every package is made of."""

from collections.abc import Sequence
from functools import partial

from packhouse.comparison import Compare, compare_intervals
from packhouse.evaluation.records import Evaluation
from packhouse.evaluation.tournament import Summary
from packhouse.packaging.job import PackagingJob
from packhouse.plan import Plan
from packhouse.ranking import Objective, rank
from packhouse.records import Record


class Grading(Record):
    """What the candidates did on one accelerator, and how timing them went; None where nothing was timed."""

    accelerator: str
    evaluations: tuple[Evaluation, ...]
    timing: Summary | None = None


def decide(plan: Plan, gradings: Sequence[Grading], compare: Compare = compare_intervals) -> PackagingJob:
    """Rank the evaluations per accelerator and across all of them; `compare` knows how sure differences are."""
    metrics, evaluations = plan.config.flat_metrics, tuple(item for grading in gradings for item in grading.evaluations)
    ranked = partial(
        rank,
        metrics=metrics,
        baseline=plan.baseline,
        compare=compare,
        objective=Objective(kind=plan.config.objective, weights=plan.config.weights),
    )
    here = next((request for request in plan.requests if not request.accelerator.runtime), plan.requests[0])
    return PackagingJob(
        candidates=plan.candidates,
        accelerators=plan.config.accelerators,
        metrics=metrics,
        baseline=plan.baseline,
        evaluations=evaluations,
        tournaments={item.accelerator: item.timing for item in gradings if item.timing},
        overall=ranked(evaluations),
        by_accelerator={grading.accelerator: ranked(grading.evaluations) for grading in gradings},
        data=plan.data,
        input_keys=plan.input_keys,
        batch_size=here.batch_size,
        fingerprint=here.fingerprint,
        io_binding=plan.timing.io_binding,
    )
