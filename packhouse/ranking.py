"""Rank candidates by metric priority, with ties.

Values within a metric's tolerance of the best of their class are tied, and the next priority decides among them. Pure
functions over evaluations: no I/O, no orchestrator, no clock.
"""

import math
from collections.abc import Sequence
from typing import Literal

from packhouse.evaluation.records import Evaluation
from packhouse.metrics import Metric
from packhouse.records import Record


class Ranked(Record):
    """A candidate with its place, 1 first, and what decided it."""

    rank: int
    candidate: str
    accelerator: str
    decided_by: str


class Unranked(Record):
    """A candidate without a place: it failed, was rejected by a goal, or lacks a value to rank by."""

    candidate: str
    accelerator: str
    status: Literal["failed", "rejected", "unranked"]
    reason: str


class Ranking(Record):
    """The order of candidates, of one accelerator or across several."""

    ranked: tuple[Ranked, ...] = ()
    unranked: tuple[Unranked, ...] = ()


def rank(evaluations: Sequence[Evaluation], metrics: Sequence[Metric], baseline: str | None = None) -> Ranking:
    """Order `evaluations` from best to worst; `baseline` is the digest of the candidate that relative goals refer to.

    Laws: the result does not depend on the order of the input; with a tolerance of 0 it is the plain lexicographic order of
    the values by priority; a candidate that failed, missed a goal, or has no finite value for a ranked metric is `unranked`
    with a reason, never last; equal values are ordered by candidate digest, then accelerator.
    """
    order = sorted((metric for metric in metrics if metric.priority > 0), key=lambda metric: metric.priority)
    baselines = {evaluation.accelerator: evaluation for evaluation in evaluations if evaluation.candidate == baseline}
    unranked, eligible = [], []
    for evaluation in sorted(evaluations, key=_identity):
        obstacle = _obstacle(evaluation, metrics, order, baselines.get(evaluation.accelerator))
        if obstacle:
            unranked.append(obstacle)
        else:
            eligible.append(evaluation)
    ordered = _order(eligible, order)
    return Ranking(
        ranked=tuple(
            Ranked(
                rank=place,
                candidate=evaluation.candidate,
                accelerator=evaluation.accelerator,
                decided_by=_decided_by(ordered, place - 1, order),
            )
            for place, evaluation in enumerate(ordered, start=1)
        ),
        unranked=tuple(unranked),
    )


def missed_goals(evaluation: Evaluation, metrics: Sequence[Metric], baseline: Evaluation | None) -> list[str]:
    """Return a sentence for every goal that the evaluation misses, with value, limit and direction."""
    missed = []
    for metric in metrics:
        value = evaluation.values.get(metric.name, math.nan)
        if metric.goal is None:
            continue
        reference = baseline.values.get(metric.name) if baseline and metric.goal.is_relative else None
        if metric.goal.is_relative and (reference is None or not math.isfinite(reference)):
            missed.append(f"{metric.name}: the baseline has no value to compare with ({_why_no_value(baseline)})")
            continue
        limit = metric.goal.target(metric.higher_is_better, reference)
        if not (value >= limit if metric.higher_is_better else value <= limit):
            need = "at least" if metric.higher_is_better else "at most"
            source = f"{metric.goal.type} {metric.goal.value:g}" + ("" if reference is None else f", baseline {reference:.6g}")
            found, wanted = _told_apart(value, limit)
            missed.append(f"{metric.name} is {found} and must be {need} {wanted} ({source})")
    return missed


def _why_no_value(baseline: Evaluation | None) -> str:
    if baseline is None:
        return "it was not evaluated"
    return baseline.failure or "its own is missing or not finite"


def _told_apart(one: float, other: float) -> tuple[str, str]:
    """Write two different numbers with as many digits, six or more, as show that they differ."""
    texts = [(f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in (6, 9, 12, 15, 17)]
    return next((pair for pair in texts if pair[0] != pair[1]), texts[0])


def _identity(evaluation: Evaluation) -> tuple[str, str]:
    return evaluation.candidate, evaluation.accelerator


def _obstacle(
    evaluation: Evaluation, metrics: Sequence[Metric], order: Sequence[Metric], baseline: Evaluation | None
) -> Unranked | None:
    status: Literal["failed", "rejected", "unranked"]
    lacking = [metric.name for metric in order if not math.isfinite(evaluation.values.get(metric.name, math.nan))]
    if evaluation.failure is not None:
        status, reason = "failed", evaluation.failure
    elif lacking:
        status, reason = "unranked", f"no finite value for {', '.join(lacking)}"
    elif missed := missed_goals(evaluation, metrics, baseline):
        status, reason = "rejected", "; ".join(missed)
    else:
        return None
    return Unranked(candidate=evaluation.candidate, accelerator=evaluation.accelerator, status=status, reason=reason)


def _order(evaluations: Sequence[Evaluation], metrics: Sequence[Metric]) -> list[Evaluation]:
    """Split into classes led by their best value, and order each class by the metrics that follow."""
    if not metrics or len(evaluations) < 2:
        return sorted(evaluations, key=_identity)
    return [member for tied in _classes(evaluations, metrics[0]) for member in _order(tied, metrics[1:])]


def _classes(evaluations: Sequence[Evaluation], metric: Metric) -> list[list[Evaluation]]:
    """Return the classes of a metric, best first: each is its leader and all within the tolerance of that leader."""
    sign = -1 if metric.higher_is_better else 1
    waiting = sorted(evaluations, key=lambda evaluation: sign * evaluation.values[metric.name])
    classes = []
    while waiting:
        best = waiting[0].values[metric.name]
        classes.append([evaluation for evaluation in waiting if metric.tolerance.covers(best, evaluation.values[metric.name])])
        waiting = waiting[len(classes[-1]) :]
    return classes


def _decided_by(ordered: Sequence[Evaluation], index: int, metrics: Sequence[Metric]) -> str:
    """Say what put the evaluation at `index` behind the one before it, or the first before the second."""
    if len(ordered) == 1:
        return "the only ranked candidate"
    better, worse = (ordered[0], ordered[1]) if index == 0 else (ordered[index - 1], ordered[index])
    group: Sequence[Evaluation] = ordered
    ties: list[str] = []
    for metric in metrics:
        group = next(tied for tied in _classes(group, metric) if better in tied)
        ours, theirs = better.values[metric.name], worse.values[metric.name]
        if worse not in group:
            mine, other = _told_apart(ours, theirs) if index == 0 else _told_apart(theirs, ours)
            versus = "against" if index == 0 else "behind"
            tied = f" (tied on {', '.join(ties)})" if ties else ""
            return f"{metric.name}: {mine} {versus} {other}{' ' + metric.unit if metric.unit else ''}{tied}"
        ties.append(metric.name)
    last = "digest" if better.candidate != worse.candidate else "accelerator"
    return f"tied on {', '.join(ties) or 'everything'}; ordered by {last}"
