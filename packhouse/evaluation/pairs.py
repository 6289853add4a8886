"""By how much one candidate is slower than another, found round by round: what disturbs a round disturbs both of them."""

import numpy as np

from packhouse.comparison import Effect
from packhouse.evaluation.latency import Clock, Timings, is_tail, statistic
from packhouse.metrics import Metric
from packhouse.statistics import CONFIDENCE, Interval, bootstrap_interval, median_interval, runs_for

TAIL_RESAMPLES = 2000
LOOKS = 10  # a tournament looks again and again at its comparisons until they are decided: intervals allow for so many looks


def paired_effect(
    metric: Metric,
    best: Timings,
    other: Timings,
    *,
    clock: Clock = "wall",
    batch_sizes: tuple[int, int] = (1, 1),
    confidence: float = CONFIDENCE,
) -> Effect:
    """Return by how much `other` is worse than `best`, relative to it, in the undisturbed rounds that both took part in.

    The estimate is the median of the rounds' ratios, and its interval that of a sign test. Percentiles from the 75th on are
    taken over all of the rounds instead, and their interval is found by drawing rounds. Nothing is known of fewer rounds than a
    sign test takes.
    """
    _, ours, theirs = np.intersect1d(_kept(best), _kept(other), return_indices=True)
    first, second = best.of_kept_rounds().ns(clock)[ours], other.of_kept_rounds().ns(clock)[theirs]
    sign = -1.0 if metric.higher_is_better else 1.0
    if not len(first):
        return Effect.unknown(0.0, is_relative=True)
    ends: Interval | None
    if is_tail(metric):
        ends = bootstrap_interval(
            lambda rounds: (
                statistic(metric, second[rounds].reshape(len(rounds), -1), batch_sizes[1])
                / statistic(metric, first[rounds].reshape(len(rounds), -1), batch_sizes[0])
            ),
            len(first),
            confidence,
            TAIL_RESAMPLES,
        )
        whole = [
            statistic(metric, runs.reshape(1, -1), size)[0] for runs, size in zip((first, second), batch_sizes, strict=True)
        ]
        estimate = whole[1] / whole[0]
    else:
        ratios = statistic(metric, second, batch_sizes[1]) / statistic(metric, first, batch_sizes[0])
        estimate, ends = float(np.median(ratios)), median_interval(ratios, confidence)
    if ends is None or len(first) < runs_for(50, confidence):
        return Effect.unknown(sign * (estimate - 1), is_relative=True)
    low, high = sorted(sign * (end - 1) for end in ends)
    return Effect(estimate=sign * (estimate - 1), low=low, high=high, is_relative=True, clock=clock)


def _kept(timings: Timings) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return timings.rounds[timings.kept]
