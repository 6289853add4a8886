"""Comparisons round by round, on simulated timings of which the truth is known."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from packhouse.comparison import Effect, compare_intervals
from packhouse.evaluation.latency import Timings
from packhouse.evaluation.pairs import paired_effect
from packhouse.evaluation.records import Evaluation
from packhouse.metrics import Metric, Tolerance
from packhouse.statistics import runs_for
from tests.timings import timings_of

MS = 1e6
NS = NDArray[np.float64]


def metric(sub_type: str = "p50", kind: Any = "latency") -> Metric:
    return Metric(
        name="speed",
        type=kind,
        sub_type=sub_type,
        priority=1,
        higher_is_better=kind == "throughput",
        goal=None,
        tolerance=Tolerance(value=0.02, is_relative=True),
        settings={},
        function=None,
    )


P50, P95, RATE = metric(), metric("p95"), metric("avg", "throughput")
EVERY = [metric(sub_type, kind) for kind in ("latency", "throughput") for sub_type in ("avg", "min", "p50", "p90", "max")]


def noise(seed: int, rounds: int, spread: float) -> NS:
    """Return by how much each round is slowed down, for all that take part in it."""
    return np.random.default_rng([seed, 0]).lognormal(0, spread, (rounds, 1))


def runs(seed: int, factor: float = 1.0, rounds: int = 60, a_round: int = 8, spread: float = 0.3, jitter: float = 0.05) -> NS:
    """Return the runs in ns of a candidate that is slower by `factor`; rounds of the same shape have their noise in common."""
    own = np.random.default_rng([seed, 1, round(factor * 1000)]).lognormal(0, jitter, (rounds, a_round))
    return factor * MS * noise(seed, rounds, spread) * own


def ends(effect: Effect) -> tuple[float, float, float]:
    return effect.low, effect.estimate, effect.high


class TestCommonNoise:
    @pytest.mark.parametrize("of", [P50, metric("avg"), metric("p75"), metric("p90"), RATE])
    def test_cancels_out_so_that_five_per_cent_are_found_where_intervals_overlap(self, of: Metric) -> None:
        one, other = timings_of(runs(1)), timings_of(runs(1, 1.05))

        effect = paired_effect(of, one, other)

        assert 0 < effect.low < effect.high < 0.12
        assert effect.is_relative
        apart = [
            Evaluation(candidate="a", accelerator="cpu-cpu", metrics={"speed": timings.value(of, 1)})
            for timings in (one, other)
        ]
        assert compare_intervals(of, *apart).low < 0 < compare_intervals(of, *apart).high

    @pytest.mark.parametrize("of", [P50, RATE])
    def test_leaves_the_true_ratio_in_the_interval_as_often_as_it_says(self, of: Metric) -> None:
        true = 0.05 if of is P50 else 1 - 1 / 1.05
        found = [paired_effect(of, timings_of(runs(seed, rounds=30)), timings_of(runs(seed, 1.05, 30))) for seed in range(300)]

        assert sum(effect.low <= true <= effect.high for effect in found) >= 300 * 0.97
        assert sum(effect.low > 0 for effect in found) >= 290

    @pytest.mark.parametrize("of", [P50, metric("p90"), RATE])
    def test_makes_no_difference_of_candidates_that_are_alike(self, of: Metric) -> None:
        found = []
        for seed in range(200):
            common, random = noise(seed, 30, 0.3), np.random.default_rng([seed, 2])
            one, other = (timings_of(MS * common * random.lognormal(0, 0.05, (30, 8))) for _ in range(2))
            found.append(paired_effect(of, one, other))

        assert sum(effect.low > 0 or effect.high < 0 for effect in found) <= 7
        assert sum(effect.verdict(of, 1.0) == "worse" for effect in found) <= 1

    def test_is_of_the_round_and_not_of_its_place(self) -> None:
        base, slower = runs(4), runs(4, 1.05)
        order = np.random.default_rng(1).permutation(60)

        shuffled = timings_of(slower[order], rounds=order.tolist())

        assert paired_effect(P50, timings_of(base), shuffled) == paired_effect(P50, timings_of(base), timings_of(slower))


class TestRounds:
    @pytest.mark.parametrize("of", EVERY)
    @pytest.mark.parametrize("whose", [0, 1, 2])
    def test_that_were_disturbed_have_no_influence(self, of: Metric, whose: int) -> None:
        base, slower = runs(5, rounds=40), runs(5, 1.1, rounds=40)
        kept = np.arange(40) % 4 > 0
        disturbed = np.where(kept[:, None], 1.0, 50.0)
        one = timings_of(base * (disturbed if whose != 1 else 1), kept=kept.tolist() if whose != 1 else None)
        other = timings_of(slower * (disturbed if whose != 0 else 1), kept=kept.tolist() if whose != 0 else None)

        assert paired_effect(of, one, other) == paired_effect(of, timings_of(base[kept]), timings_of(slower[kept]))

    @pytest.mark.parametrize("of", EVERY)
    def test_that_only_one_took_part_in_have_no_influence(self, of: Metric) -> None:
        base, slower = runs(6, rounds=40), runs(6, 1.1, rounds=40)

        left_early = timings_of(slower[:25])
        late = timings_of(base[10:], rounds=range(10, 40))

        found = paired_effect(of, late, left_early)
        assert found == paired_effect(of, timings_of(base[10:25]), timings_of(slower[10:25]))

    @pytest.mark.parametrize("sub_type", ["avg", "p50", "p90", "max"])
    @pytest.mark.parametrize("confidence", [0.99, 0.999])
    def test_that_are_too_few_leave_all_unknown(self, sub_type: str, confidence: float) -> None:
        def effect_of(rounds: int) -> Effect:
            one, other = timings_of(runs(7, rounds=rounds)), timings_of(runs(7, 1.5, rounds))
            return paired_effect(metric(sub_type), one, other, confidence=confidence)

        least = runs_for(50, confidence)
        for rounds in (1, 2, least - 1):
            assert (effect_of(rounds).low, effect_of(rounds).high) == (-math.inf, math.inf)
            assert effect_of(rounds).estimate == pytest.approx(0.5, abs=0.15)
        assert math.isfinite(effect_of(least).low)
        assert effect_of(least).low > 0

    @pytest.mark.parametrize("of", [P50, P95])
    def test_that_nobody_shares_leave_all_unknown(self, of: Metric) -> None:
        one, other = timings_of(runs(8, rounds=20)), timings_of(runs(8, rounds=20), rounds=range(20, 40))

        assert paired_effect(of, one, other) == Effect.unknown(0.0, is_relative=True)

    def test_may_have_different_numbers_of_runs(self) -> None:
        one, other = timings_of(runs(9, a_round=8)), timings_of(runs(9, 1.05, a_round=2))

        for of in (P50, P95):
            assert paired_effect(of, one, other).estimate == pytest.approx(0.05, abs=0.04)


class TestDirection:
    @pytest.mark.parametrize("of", EVERY)
    def test_is_positive_for_what_is_worse_and_ends_are_in_order(self, of: Metric) -> None:
        fast, slow = timings_of(runs(10)), timings_of(runs(10, 1.5))

        worse, better = paired_effect(of, fast, slow), paired_effect(of, slow, fast)

        assert 0 < worse.low <= worse.estimate <= worse.high
        assert better.low <= better.estimate <= better.high < 0

    @pytest.mark.parametrize("sub_type", ["avg", "p50", "p90"])
    def test_of_rates_is_relative_to_the_rate_of_the_better(self, sub_type: str) -> None:
        base = runs(11)
        fast, slow = timings_of(base), timings_of(base * 2)

        assert ends(paired_effect(metric(sub_type, "throughput"), fast, slow)) == pytest.approx((0.5, 0.5, 0.5), abs=1e-5)
        assert ends(paired_effect(metric(sub_type, "latency"), fast, slow)) == pytest.approx((1, 1, 1), abs=1e-5)
        assert ends(paired_effect(metric(sub_type, "throughput"), slow, fast)) == pytest.approx((-1, -1, -1), abs=1e-5)

    def test_of_rates_is_by_sample_where_batches_differ(self) -> None:
        base = runs(12)
        one, other = timings_of(base), timings_of(base * 2)

        same = paired_effect(RATE, one, other, batch_sizes=(4, 8))
        twice = paired_effect(RATE, one, other, batch_sizes=(8, 4))

        assert ends(same) == pytest.approx((0, 0, 0), abs=1e-5)
        assert ends(twice) == pytest.approx((0.75, 0.75, 0.75), abs=1e-5)

    @settings(deadline=None, max_examples=25)
    @given(st.integers(0, 1000), st.sampled_from([0.5, 4.0]), st.sampled_from([P50, P95, RATE]))
    def test_does_not_depend_on_the_speed_of_the_machine(self, seed: int, speed: float, of: Metric) -> None:
        base, slower = np.round(runs(seed, rounds=20)) * 2, np.round(runs(seed, 1.2, 20)) * 2

        found = paired_effect(of, timings_of(base), timings_of(slower))
        expected = paired_effect(of, timings_of(base * speed), timings_of(slower * speed))

        assert ends(found) == pytest.approx(ends(expected))


class TestClock:
    @pytest.mark.parametrize("of", [P50, P95])
    def test_can_be_the_cpus(self, of: Metric) -> None:
        base, slower = runs(13), runs(13, 1.3)
        one, other = timings_of(slower, cpu_ns=base), timings_of(base, cpu_ns=slower)

        by_wall, by_cpu = paired_effect(of, one, other), paired_effect(of, one, other, clock="cpu")

        assert (by_wall.clock, by_cpu.clock) == ("wall", "cpu")
        assert by_wall.high < 0 < by_cpu.low
        assert ends(by_cpu) == ends(paired_effect(of, timings_of(base), timings_of(slower)))


def with_tail(seed: int, factor: float, rounds: int) -> Timings:
    """Return runs of which one in ten takes three times as long, and `factor` times that."""
    random = np.random.default_rng(seed)
    is_slow = random.random((rounds, 8)) < 0.1
    return timings_of(MS * random.lognormal(0, 0.02, (rounds, 8)) * np.where(is_slow, 3 * factor, 1.0))


class TestTails:
    def test_are_told_apart_though_most_runs_are_alike(self) -> None:
        one, other = with_tail(1, 1.0, 80), with_tail(2, 1.5, 80)

        assert abs(paired_effect(P50, one, other).estimate) < 0.02
        assert paired_effect(P95, one, other).low > 0.2

    def test_estimate_is_the_ratio_of_the_percentiles_of_all_runs(self) -> None:
        one, other = with_tail(1, 1.0, 80), with_tail(2, 1.5, 80)

        expected = np.percentile(other.wall_ns, 95) / np.percentile(one.wall_ns, 95) - 1
        assert paired_effect(P95, one, other).estimate == pytest.approx(expected)

    def test_estimate_of_the_middle_is_the_median_of_the_ratios_of_the_rounds(self) -> None:
        one, other = timings_of(runs(14)), timings_of(runs(14, 1.2))

        ratios = np.median(other.wall_ns, axis=1) / np.median(one.wall_ns, axis=1)
        assert paired_effect(P50, one, other).estimate == pytest.approx(np.median(ratios) - 1)

    @pytest.mark.parametrize("of", [P50, metric("p90")])
    def test_interval_is_the_same_each_time_and_wider_with_more_confidence(self, of: Metric) -> None:
        one, other = timings_of(runs(15)), timings_of(runs(15, 1.05))

        narrow, again, wide = (paired_effect(of, one, other, confidence=level) for level in (0.9, 0.9, 0.999))

        assert narrow == again
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_interval_covers_the_true_ratio_about_as_often_as_it_says(self) -> None:
        found = [
            paired_effect(metric("p90"), timings_of(runs(seed, rounds=40)), timings_of(runs(seed, 1.05, 40)))
            for seed in range(60)
        ]

        assert sum(effect.low <= 0.05 <= effect.high for effect in found) >= 57
