"""Intervals: that they cover the truth as often as they say, against distributions that are known."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from packhouse.statistics import (
    CONFIDENCE,
    Interval,
    bootstrap_interval,
    median_interval,
    paired_share_interval,
    percentile_interval,
    runs_for,
    share_interval,
    shared_confidence,
)

percentiles = st.sampled_from([5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0]) | st.floats(2, 98)
confidences = st.sampled_from([0.5, 0.75, 0.9, 0.95, 0.99, 0.999]) | st.floats(0.5, 0.999)


def covering(n: int, percentile: float, low: int, high: int) -> float:
    """Return the probability that a percentile lies between the samples of two ranks (from 1) of `n`."""
    return float(stats.binom.cdf(high - 1, n, percentile / 100) - stats.binom.cdf(low - 1, n, percentile / 100))


def bimodal(random: np.random.Generator, shape: Any) -> Any:
    return np.where(random.random(shape) < 0.7, random.normal(1, 0.1, shape), random.normal(3, 0.3, shape))


def bimodal_quantile(share: float) -> float:
    grid = np.linspace(-1, 6, 200_001)
    return float(np.interp(share, 0.7 * stats.norm.cdf(grid, 1, 0.1) + 0.3 * stats.norm.cdf(grid, 3, 0.3), grid))


DISTRIBUTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], float]] = {
    "normal": (lambda random, shape: random.normal(5, 2, shape), stats.norm(5, 2).ppf, 5.0),
    "exponential": (lambda random, shape: random.exponential(2, shape), stats.expon(scale=2).ppf, 2.0),
    "lognormal": (lambda random, shape: random.lognormal(0, 0.5, shape), stats.lognorm(0.5).ppf, math.exp(0.125)),
    "bimodal": (bimodal, bimodal_quantile, 0.7 * 1 + 0.3 * 3),
}
MANY = 4000


def share_covered(found: list[Interval | None], true: float) -> float:
    assert all(found)
    return sum(ends is not None and ends.low <= true <= ends.high for ends in found) / len(found)


class TestPercentileInterval:
    @pytest.mark.parametrize(("n", "percentile"), [(8, 50), (30, 50), (200, 50), (40, 75), (60, 90), (200, 95), (600, 99)])
    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_covers_the_percentile_as_often_as_it_says(self, name: str, n: int, percentile: float) -> None:
        draw, quantile, _ = DISTRIBUTIONS[name]
        samples = draw(np.random.default_rng(100 + n), (MANY, n))

        covered = share_covered([percentile_interval(row, percentile) for row in samples], quantile(percentile / 100))

        noise = 4 * math.sqrt(0.01 * 0.99 / MANY)
        assert covered >= CONFIDENCE - noise

    @pytest.mark.parametrize(("n", "percentile"), [(100, 50), (200, 95)])
    def test_of_less_confidence_covers_it_less_often(self, n: int, percentile: float) -> None:
        samples = np.random.default_rng(7).exponential(1, (MANY, n))
        true = float(stats.expon.ppf(percentile / 100))

        covered = share_covered([percentile_interval(row, percentile, 0.8) for row in samples], true)

        assert 0.78 <= covered <= 0.9

    @given(n=st.integers(1, 600), percentile=percentiles, confidence=confidences)
    def test_has_the_narrowest_ranks_that_leave_out_no_more_than_a_tail_on_each_side(
        self, n: int, percentile: float, confidence: float
    ) -> None:
        found = percentile_interval(range(1, n + 1), percentile, confidence)
        tail, share = (1 - confidence) / 2, percentile / 100
        slack = 1e-9

        if found is None:
            assert stats.binom.cdf(0, n, share) > tail - slack or stats.binom.sf(n - 1, n, share) > tail - slack
            return
        low, high = int(found.low), int(found.high)
        assert stats.binom.cdf(low - 1, n, share) <= tail + slack
        assert stats.binom.sf(high - 1, n, share) <= tail + slack
        assert stats.binom.cdf(low, n, share) >= tail - slack
        assert stats.binom.sf(high - 2, n, share) >= tail - slack
        assert covering(n, percentile, low, high) >= confidence - slack

    @pytest.mark.parametrize(("n", "percentile"), [(8, 50), (37, 50), (120, 90), (300, 95), (600, 99)])
    def test_is_that_of_the_quantile_test_of_scipy(self, n: int, percentile: float) -> None:
        samples = np.random.default_rng(n).lognormal(0, 1, n)

        expected: Any = stats.quantile_test(samples, p=percentile / 100).confidence_interval(CONFIDENCE)
        found = percentile_interval(samples, percentile)

        # Where the two choose the ranks of their ends differently, it is by one at most.
        assert found is not None
        ordered = np.sort(samples).tolist()
        for ours, theirs in zip(found, (expected.low, expected.high), strict=True):
            assert abs(ordered.index(ours) - ordered.index(theirs)) <= 1

    def test_does_not_depend_on_the_order_of_the_samples(self) -> None:
        samples = np.random.default_rng(1).normal(size=50)

        assert percentile_interval(samples, 50) == percentile_interval(np.sort(samples)[::-1], 50)
        assert percentile_interval(samples.tolist(), 50) == percentile_interval(samples, 50)

    @pytest.mark.parametrize("percentile", [0, 100])
    def test_there_is_none_of_the_extremes(self, percentile: float) -> None:
        assert percentile_interval(range(1000), percentile) is None
        assert runs_for(percentile) == 1

    def test_there_is_none_of_nothing(self) -> None:
        assert percentile_interval([], 50) is None

    def test_of_the_median_is_that_of_a_sign_test(self) -> None:
        samples = np.random.default_rng(4).exponential(1, 41)

        found = median_interval(samples)

        assert found == percentile_interval(samples, 50)
        assert found is not None
        # The medians that a sign test does not refuse are those within the ends.
        for median, is_refused in ((found.low - 1e-9, True), (found.low + 1e-9, False), (found.high + 1e-9, True)):
            above = int((samples > median).sum())
            assert (float(stats.binomtest(above, 41).pvalue) < 1 - CONFIDENCE) is is_refused

    def test_is_found_by_the_confidence_that_is_asked_for(self) -> None:
        samples = np.random.default_rng(4).exponential(1, 100)
        wide, narrow = median_interval(samples, 0.9999), median_interval(samples, 0.9)

        assert wide is not None
        assert narrow is not None
        assert wide.low < narrow.low < narrow.high < wide.high


class TestRunsFor:
    @given(percentile=percentiles, confidence=confidences)
    def test_are_the_least_of_which_there_is_an_interval(self, percentile: float, confidence: float) -> None:
        runs = runs_for(percentile, confidence)

        assert percentile_interval(range(runs), percentile, confidence) is not None
        assert percentile_interval(range(runs - 1), percentile, confidence) is None

    @given(percentile=percentiles, confidence=confidences)
    def test_leave_the_percentile_beyond_all_samples_no_more_often_than_a_tail(
        self, percentile: float, confidence: float
    ) -> None:
        runs, share, tail = runs_for(percentile, confidence), percentile / 100, (1 - confidence) / 2

        assert max(share, 1 - share) ** runs <= tail * (1 + 1e-9)
        assert runs == 1 or max(share, 1 - share) ** (runs - 1) >= tail * (1 - 1e-9)

    @pytest.mark.parametrize(
        ("percentile", "runs"), [(50, 8), (75, 19), (90, 51), (95, 104), (99, 528), (99.9, 5296), (5, 104)]
    )
    def test_are_known_for_usual_percentiles(self, percentile: float, runs: int) -> None:
        assert runs_for(percentile) == runs


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the ends of Wilson's interval by its formula."""
    z = stats.norm.ppf(1 - (1 - CONFIDENCE) / 2)
    middle = (hits + z * z / 2) / (n + z * z)
    half = z * math.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return middle - half, middle + half


class TestShareInterval:
    @given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_is_wilsons(self, counts: tuple[int, int]) -> None:
        assert share_interval(*counts) == pytest.approx(wilson(*counts), abs=1e-12)
        assert share_interval(*counts).low <= counts[0] / counts[1] <= share_interval(*counts).high

    @pytest.mark.parametrize("n", [30, 100, 400])
    def test_covers_the_share_as_often_as_it_says_on_average(self, n: int) -> None:
        ends = [share_interval(hits, n) for hits in range(n + 1)]
        shares = np.linspace(0.02, 0.98, 97)
        covered = [
            sum(stats.binom.pmf(hits, n, share) for hits, end in enumerate(ends) if end.low <= share <= end.high)
            for share in shares
        ]

        assert CONFIDENCE - 0.002 <= np.mean(covered) <= CONFIDENCE + 0.006
        assert min(covered) >= 0.96

    def test_is_narrower_with_less_confidence(self) -> None:
        assert share_interval(80, 100, 0.9).low > share_interval(80, 100).low


class TestPairedShareInterval:
    @pytest.mark.parametrize("n", [50, 200, 1000])
    @pytest.mark.parametrize(
        ("first", "second", "shared"), [(0.9, 0.9, 0.85), (0.9, 0.8, 0.78), (0.6, 0.6, 0.4), (0.95, 0.9, 0.9)]
    )
    def test_covers_the_difference_of_hits_that_go_together(self, n: int, first: float, second: float, shared: float) -> None:
        counts = np.random.default_rng(n).multinomial(
            n, [shared, first - shared, second - shared, 1 - first - second + shared], MANY
        )

        found: list[Interval | None] = [paired_share_interval(int(ours), int(theirs), n) for _, ours, theirs, _ in counts]

        assert share_covered(found, first - second) >= CONFIDENCE - 0.008

    @pytest.mark.parametrize(("only_first", "only_second"), [(10, 10), (30, 5), (100, 100)])
    def test_is_not_wider_than_it_has_to_be(self, only_first: int, only_second: int) -> None:
        n = 1000
        found = paired_share_interval(only_first, only_second, n)
        error = math.sqrt(only_first + only_second - (only_first - only_second) ** 2 / n) / n

        assert (found.high - found.low) / (2 * 2.5758 * error) == pytest.approx(1, abs=0.06)

    @pytest.mark.parametrize(("only_first", "only_second"), [(0, 8), (4, 4), (3, 15), (30, 10), (60, 50), (100, 60)])
    def test_agrees_with_mcnemars_test(self, only_first: int, only_second: int) -> None:
        found = paired_share_interval(only_first, only_second, 1000)
        pvalue = stats.binomtest(only_first, only_first + only_second).pvalue

        assert not (found.low <= 0 <= found.high) or pvalue > 0.002
        assert found.low <= 0 <= found.high or pvalue < 0.02

    @given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100), confidences)
    def test_is_mirrored_where_the_two_change_places(self, ours: int, theirs: int, both: int, confidence: float) -> None:
        n = max(1, ours + theirs + both)
        one, other = paired_share_interval(ours, theirs, n, confidence), paired_share_interval(theirs, ours, n, confidence)

        assert one == pytest.approx((-other.high, -other.low))
        assert -1 <= one.low <= one.high <= 1

    def test_of_candidates_that_agree_everywhere_lies_around_zero(self) -> None:
        found = paired_share_interval(0, 0, 100)

        assert found.low == -found.high < 0

    def test_is_positive_where_the_first_has_more_hits(self) -> None:
        assert paired_share_interval(60, 10, 500).low > 0


def mean_of(samples: NDArray[np.float64]) -> Callable[[NDArray[np.intp]], NDArray[np.float64]]:
    return lambda draws: np.asarray(samples[draws].mean(axis=1))


class TestBootstrapInterval:
    @pytest.mark.parametrize("n", [50, 200])
    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_covers_the_mean_about_as_often_as_it_says(self, name: str, n: int) -> None:
        draw, _, mean = DISTRIBUTIONS[name]
        rows = draw(np.random.default_rng(n), (400, n))

        covered = share_covered([bootstrap_interval(mean_of(row), n) for row in rows], mean)

        # Its error is of the order 1/√n where a distribution is skewed; and that of the simulation is 0.005.
        assert covered >= CONFIDENCE - 0.025

    def test_of_less_confidence_covers_the_mean_less_often(self) -> None:
        rows = np.random.default_rng(2).normal(size=(400, 100))

        covered = share_covered([bootstrap_interval(mean_of(row), 100, 0.8) for row in rows], 0.0)

        assert 0.73 <= covered <= 0.87

    def test_is_about_that_of_the_normal_distribution_for_a_mean(self) -> None:
        row = np.random.default_rng(3).normal(size=400)
        found = bootstrap_interval(mean_of(row), 400, 0.99, 4000)

        half = 2.5758 * row.std() / math.sqrt(400)
        assert found == pytest.approx((row.mean() - half, row.mean() + half), abs=0.15 * half)

    def test_is_the_same_each_time(self) -> None:
        row = np.random.default_rng(3).normal(size=50)

        assert bootstrap_interval(mean_of(row), 50) == bootstrap_interval(mean_of(row), 50)

    @pytest.mark.parametrize(("n", "resamples"), [(5, 1000), (2_000, 700), (300_000, 10), (2_000_000, 3)])
    def test_statistic_gets_as_many_draws_of_all_units_as_are_asked_for(self, n: int, resamples: int) -> None:
        shapes = []

        def statistic(draws: NDArray[np.intp]) -> NDArray[np.float64]:
            shapes.append(draws.shape)
            assert 0 <= draws.min() <= draws.max() < n
            return np.zeros(len(draws))

        bootstrap_interval(statistic, n, 0.99, resamples)

        assert sum(draws for draws, _ in shapes) == resamples
        assert {units for _, units in shapes} == {n}
        assert all(draws == 1 or draws * units <= 1 << 20 for draws, units in shapes)

    def test_draws_without_a_value_are_left_out(self) -> None:
        def statistic(draws: NDArray[np.intp]) -> NDArray[np.float64]:
            return np.where(np.arange(len(draws)) % 3 == 0, [np.nan, np.inf] * (len(draws) // 2), draws.mean(axis=1))

        found = bootstrap_interval(statistic, 10)

        assert found is not None
        assert 0 < found.low < found.high < 9

    @pytest.mark.parametrize(("known", "is_found"), [(1, True), (0.51, True), (0.5, False), (0, False)])
    def test_there_is_none_where_most_draws_have_no_value(self, known: float, is_found: bool) -> None:
        def statistic(draws: NDArray[np.intp]) -> NDArray[np.float64]:
            return np.where(np.arange(len(draws)) < known * len(draws), 1.0, np.nan)

        assert (bootstrap_interval(statistic, 10) is not None) is is_found


@pytest.mark.parametrize(("comparisons", "confidence"), [(0, 0.99), (1, 0.99), (2, 0.995), (10, 0.999)])
def test_several_intervals_share_the_doubt(comparisons: int, confidence: float) -> None:
    assert shared_confidence(comparisons) == pytest.approx(confidence)


def test_shared_doubt_can_be_any() -> None:
    assert shared_confidence(5, 0.9) == pytest.approx(0.98)


def test_hull_has_both_in_it() -> None:
    ends = [Interval(0, 2), Interval(1, 3), Interval(-1, 0.5)]
    for one, other in itertools.product(ends, ends):
        assert one.hull(other) == Interval(min(one.low, other.low), max(one.high, other.high))


def test_bootstrap_goes_on_like_a_normal_distribution_where_draws_do_not_reach() -> None:
    """A thousand draws know nothing about one in a hundred thousand."""
    values = np.random.default_rng(1).normal(0, 1, 400)

    found = bootstrap_interval(lambda draws: values[draws].mean(axis=1), 400, 1 - 1e-5)

    assert found is not None
    half = stats.norm.isf(0.5e-5) * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
