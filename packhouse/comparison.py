"""How two candidates compare on a metric: by how much one is worse, how sure that is, and what a tolerance makes of it."""

import math
from typing import Literal, Protocol

from packhouse.evaluation.records import Evaluation
from packhouse.metrics import TIMED_TYPES, Metric
from packhouse.records import Record
from packhouse.statistics import CONFIDENCE

SLACK = 1.5  # without it, a difference as large as the tolerance could never be decided
Verdict = Literal["worse", "tied", "undecided"]


class Effect(Record):
    """By how much one candidate is worse than another on a metric: positive is worse, negative is better.

    In the metric's unit, or relative to the better value (0.05 is 5 %). `low` and `high` are the ends of the interval; they
    are equal where there is no uncertainty, and infinite where nothing is known.
    """

    estimate: float
    low: float
    high: float
    is_relative: bool = False
    clock: Literal["wall", "cpu"] | None = None

    @classmethod
    def exactly(cls, estimate: float) -> "Effect":
        """Return an effect without uncertainty, in the metric's unit."""
        return cls(estimate=estimate, low=estimate, high=estimate)

    @classmethod
    def unknown(cls, estimate: float, *, is_relative: bool) -> "Effect":
        """Return an effect of which only an estimate is known, and not how sure it is."""
        return cls(estimate=estimate, low=-math.inf, high=math.inf, is_relative=is_relative)

    @property
    def is_exact(self) -> bool:
        """Whether there is no uncertainty."""
        return self.low == self.high

    @property
    def is_known(self) -> bool:
        """Whether there is an interval at all."""
        return (self.low, self.high) != (-math.inf, math.inf)

    def verdict(self, metric: Metric, best: float) -> Verdict:
        """Say whether the candidate is worse than one with the value `best` by more than the metric's tolerance.

        It is worse where the whole interval lies beyond the tolerance, and tied where it lies within one and a half times the
        tolerance, since there is nothing more to be found out then. A tolerance that is not tested looks at the estimate alone.
        What is not known decides nothing.
        """
        if not self.is_known:
            return "undecided"
        limit = metric.tolerance.limit(best, is_relative=self.is_relative)
        low, high = (self.low, self.high) if metric.tolerance.is_tested else (self.estimate, self.estimate)
        if low > limit and not (limit > 0 and math.isclose(low, limit, rel_tol=1e-9)):
            return "worse"
        return "tied" if low == high or (high <= SLACK * limit and low >= -SLACK * limit) else "undecided"

    def describe(self, metric: Metric) -> str:
        """Return the effect and its interval in words."""
        scale, unit = (100.0, " %") if self.is_relative else (1.0, f" {metric.unit}" if metric.unit else "")
        sign = -1.0 if metric.higher_is_better else 1.0  # words follow the value, not what is worse
        ends = sorted(sign * scale * end for end in (self.low, self.high))
        text = f"{_signed(sign * scale * self.estimate)}{unit}"
        if self.is_exact:
            return text
        if not self.is_known:
            return f"{text}, and it is not known how sure that is"
        clock = {None: "", "wall": " in the same rounds", "cpu": " of CPU time in the same rounds"}[self.clock]
        return f"{text}{clock} ({100 * CONFIDENCE:g} % interval {_signed(ends[0])} to {_signed(ends[1])}{unit})"


class Compare(Protocol):
    """A way to compare two evaluations on a metric that both have a value for."""

    def __call__(self, metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
        """Return by how much `other` is worse than `best`; the interval is one of so many that shall hold together."""


def compare_values(metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:  # noqa: ARG001
    """Compare two numbers as they are."""
    sign = 1.0 if metric.higher_is_better else -1.0
    return Effect.exactly(sign * (best.values[metric.name] - other.values[metric.name]))


def compare_intervals(metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
    """Compare two numbers that were measured apart, by their intervals; numbers without any count as exact.

    The interval of the difference has half of its width by Pythagoras from the two, as for independent errors.
    """
    ours, theirs = best.metrics[metric.name], other.metrics[metric.name]
    effect = compare_values(metric, best, other, comparisons=comparisons)
    is_stable = metric.type not in TIMED_TYPES or (best.is_stable and other.is_stable)
    if not (is_stable and ours.is_supported and theirs.is_supported):
        return Effect.unknown(effect.estimate, is_relative=False)
    if ours.interval is None and theirs.interval is None:
        return effect
    (our_low, our_high), (their_low, their_high) = (item.interval or (item.value, item.value) for item in (ours, theirs))
    down = math.hypot(ours.value - our_low, their_high - theirs.value)
    up = math.hypot(our_high - ours.value, theirs.value - their_low)
    if not metric.higher_is_better:
        down, up = up, down
    return Effect(estimate=effect.estimate, low=effect.estimate - down, high=effect.estimate + up)


def _signed(number: float) -> str:
    return f"{number:+.3g}" if number else "0"
