"""Whether candidates reach the goals of the metrics, and what to say where they do not."""

import math
from collections.abc import Sequence

from packhouse.evaluation.records import Evaluation
from packhouse.metrics import TIMED_TYPES, Metric


def missed_goals(evaluation: Evaluation, metrics: Sequence[Metric], baseline: Evaluation | None) -> list[str]:
    """Return a sentence for every goal that the evaluation misses, with value, limit and direction."""
    missed = []
    for metric in metrics:
        value = evaluation.values.get(metric.name, math.nan)
        if metric.goal is None:
            continue
        if metric.type in TIMED_TYPES and metric.name in evaluation.metrics and not evaluation.is_stable:
            missed.append(
                f"{metric.name} has a goal, and its measurement was disturbed too much; time it again on a calmer machine"
            )
            continue
        if (measured := evaluation.metrics.get(metric.name)) and not measured.is_supported:
            missed.append(
                f"{metric.name} has a goal and is not supported by {measured.n} samples; it takes {measured.needed_n}, so give "
                "timing.seconds_per_candidate more"
            )
            continue
        reference = baseline.values.get(metric.name) if baseline and metric.goal.is_relative else None
        if metric.goal.is_relative and (reference is None or not math.isfinite(reference)):
            missed.append(f"{metric.name}: the baseline has no value to compare with ({_why_no_value(baseline)})")
            continue
        limit = metric.goal.target(metric.higher_is_better, reference)
        if not (value >= limit if metric.higher_is_better else value <= limit):
            need = "at least" if metric.higher_is_better else "at most"
            source = f"{metric.goal.type} {metric.goal.value:g}" + ("" if reference is None else f", baseline {reference:.6g}")
            found, wanted = told_apart(value, limit)
            missed.append(f"{metric.name} is {found} and must be {need} {wanted} ({source})")
    return missed


def _why_no_value(baseline: Evaluation | None) -> str:
    if baseline is None:
        return "it was not evaluated"
    return baseline.failure or "its own is missing or not finite"


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Write two different numbers with as many digits, six or more, as show that they differ."""
    texts = [(f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in (6, 9, 12, 15, 17)]
    return next((pair for pair in texts if pair[0] != pair[1]), texts[0])
