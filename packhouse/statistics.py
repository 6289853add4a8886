"""How sure a number is: intervals for percentiles, shares, and differences between two candidates that did the same work.

Pure functions over arrays; the same input gives the same output, also where samples are drawn anew (bootstrap). Every interval
is two-sided and covers the true value with the probability `confidence`, at least, where the samples are independent.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.99
RESAMPLES = 1000
SEED = 20240917
NORMAL = NormalDist()
TAIL_DRAWS = 2  # in each tail that it takes to know where it begins; with fewer, a normal distribution's may be wider
CHUNK = 1 << 20  # values drawn at a time

Values = NDArray[np.float64]


class Interval(NamedTuple):
    """The ends of an interval, low first."""

    low: float
    high: float

    def hull(self, other: "Interval") -> "Interval":
        """Return the smallest interval that has both in it."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


def shared_confidence(comparisons: int, confidence: float = CONFIDENCE) -> float:
    """Return the confidence of each of several intervals with which all of them hold together (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, comparisons)


def pair_count(n: int) -> int:
    """Return how many comparisons there are between `n` candidates."""
    return n * (n - 1) // 2


@cache
def runs_for(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the least number of samples for which `percentile_interval` gives an interval; 1 for 0 and 100."""
    if not 0 < percentile < 100:
        return 1
    p, tail = percentile / 100, (1 - confidence) / 2
    about = int(max(np.log(tail) / np.log(p), np.log(tail) / np.log1p(-p)))
    return next(n for n in count(max(1, about)) if _ranks(n, percentile, confidence))


def percentile_interval(
    samples: Sequence[float] | Values, percentile: float, confidence: float = CONFIDENCE
) -> Interval | None:
    """Return the interval of a percentile by order statistics, whatever the distribution; None if there are too few samples.

    The ranks of its ends are quantiles of the binomial distribution (Conover, Practical Nonparametric Statistics, 3.2). The
    percentiles 0 and 100 have no interval.
    """
    values = np.sort(np.asarray(samples, dtype=np.float64))
    ranks = _ranks(len(values), percentile, confidence)
    return Interval(float(values[ranks[0] - 1]), float(values[ranks[1] - 1])) if ranks else None


def median_interval(samples: Sequence[float] | Values, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the interval of the median: that of a sign test."""
    return percentile_interval(samples, 50, confidence)


def share_interval(hits: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of a share of which `hits` of `n` were observed, by Wilson's score."""
    share, z = hits / n, NORMAL.inv_cdf(0.5 + 0.5 * confidence)
    scale = 2 * (n + z**2)
    middle = (2 * n * share + z**2) / scale
    half = z / scale * np.sqrt(4 * n * share * (1 - share) + z**2)
    low, high = 0.0 if hits == 0 else middle - half, 1.0 if hits == n else middle + half
    return Interval(float(low), float(high))


def paired_share_interval(only_first: int, only_second: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the first share minus the second, both of the same `n` samples.

    `only_first` samples are hits of the first alone, `only_second` of the second alone: what McNemar's test looks at. The
    interval is that of Bonett and Price (2012): Wald's with one sample added to both counts.
    """
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = -NORMAL.inv_cdf((1 - confidence) / 2) * np.sqrt((first + second - (first - second) ** 2) / (n + 2))
    return Interval(max(-1.0, float(first - second - half)), min(1.0, float(first - second + half)))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], Values], n: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the interval of a statistic by drawing `n` units with replacement, `resamples` times (percentile bootstrap).

    `statistic` gets the units drawn, as an array of indices of the shape (draws, n), and returns one value for each draw. Where
    a unit is a round or a sample that two candidates share, what they have in common cancels out. Draws for which the statistic
    has no finite value are left out; where these are most of them, there is no interval.
    """
    generator = np.random.default_rng(SEED)
    at_a_time = max(1, CHUNK // n)
    parts = [
        np.asarray(statistic(generator.integers(0, n, (min(at_a_time, resamples - done), n))), dtype=np.float64)
        for done in range(0, resamples, at_a_time)
    ]
    values = np.concatenate(parts)
    finite = values[np.isfinite(values)]
    if len(finite) <= len(values) / 2:
        return None
    tail = (1 - confidence) / 2
    low, high = np.percentile(finite, [100 * tail, 100 - 100 * tail])
    if tail * len(finite) < TAIL_DRAWS:
        middle, half = np.median(finite), -NORMAL.inv_cdf(tail) * np.std(finite)
        low, high = min(low, middle - half), max(high, middle + half)
    return Interval(float(low), float(high))


@cache
def _ranks(n: int, percentile: float, confidence: float) -> tuple[int, int] | None:
    """Return the ranks, from 1, of the samples at the ends of a percentile's interval."""
    if n == 0 or not 0 < percentile < 100:
        return None
    tail = (1 - confidence) / 2
    low, high = _binomial_quantile(tail, n, percentile / 100), _binomial_quantile(1 - tail, n, percentile / 100) + 1
    return (low, high) if low >= 1 and high <= n else None


def _binomial_quantile(q: float, n: int, p: float) -> int:
    """Return the least number of hits in `n` trials that are exceeded with a probability of no more than 1 - `q`."""
    hits = np.arange(n + 1)
    steps = np.log((n - hits[:-1]) / (hits[:-1] + 1)) + math.log(p / (1 - p))  # from one number of hits to the next
    logs = n * math.log1p(-p) + np.concatenate(([0.0], np.cumsum(steps)))
    shares = np.cumsum(np.exp(logs - logs.max()))
    return int(np.searchsorted(shares, q * shares[-1]))
