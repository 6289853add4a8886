"""Timing: what is planned, and what is made of the runs. No real clock decides anything."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from packhouse.errors import InputError, Problem
from packhouse.evaluation.latency import TimingConfig, TimingPlan, Timings, is_tail, needed_runs, percentile_of, statistic
from packhouse.metrics import TIMING_SUB_TYPES, Metric, Tolerance
from tests.timings import timings_of

MS = 1_000_000
PERCENTILES = {"p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "min": 0.0, "max": 100.0}
SAMPLES = st.lists(st.integers(1_000, 10**10), min_size=1, max_size=300)


def metric(sub_type: str, kind: Any = "latency", **settings: Any) -> Metric:
    return Metric(
        name=f"speed-{sub_type}",
        type=kind,
        sub_type=sub_type,
        priority=1,
        higher_is_better=kind == "throughput",
        goal=None,
        tolerance=Tolerance(),
        settings=settings,
        function=None,
    )


def value(samples: list[int], of: Metric, batch_size: int = 1) -> float:
    (found,) = statistic(of, np.array([samples]), batch_size)
    return float(found)


class TestStatistic:
    @given(samples=SAMPLES)
    @pytest.mark.parametrize("sub_type", PERCENTILES)
    def test_percentiles_are_those_of_numpy_in_milliseconds(self, samples: list[int], sub_type: str) -> None:
        expected = float(np.percentile(np.array(samples, float), PERCENTILES[sub_type])) / 1e6

        assert value(samples, metric(sub_type)) == pytest.approx(expected, rel=1e-12)

    @given(samples=SAMPLES)
    def test_the_average_is_the_mean(self, samples: list[int]) -> None:
        assert value(samples, metric("avg")) == pytest.approx(math.fsum(samples) / len(samples) / 1e6, rel=1e-12)

    def test_every_sub_type_of_the_configuration_is_known(self) -> None:
        samples = [*range(MS, 1001 * MS, MS)]

        assert {sub_type: round(value(samples, metric(sub_type)), 3) for sub_type in TIMING_SUB_TYPES} == {
            "avg": 500.5,
            "min": 1.0,
            "max": 1000.0,
            "p50": 500.5,
            "p75": 750.25,
            "p90": 900.1,
            "p95": 950.05,
            "p99": 990.01,
            "p999": 999.001,
        }

    @pytest.mark.parametrize("sub_type", TIMING_SUB_TYPES)
    @pytest.mark.parametrize("kind", ["latency", "throughput"])
    def test_each_row_has_its_own(self, kind: str, sub_type: str) -> None:
        rows = np.random.default_rng(1).integers(MS, 9 * MS, (4, 30))

        found = statistic(metric(sub_type, kind), rows, 3)

        assert found.tolist() == [value(row.tolist(), metric(sub_type, kind), 3) for row in rows]

    def test_a_latency_is_of_the_whole_batch(self) -> None:
        assert value([MS], metric("p50"), 8) == 1.0


class TestThroughput:
    @given(samples=SAMPLES, batch_size=st.integers(1, 64))
    def test_the_average_is_all_samples_over_all_time(self, samples: list[int], batch_size: int) -> None:
        expected = batch_size * len(samples) / (math.fsum(samples) / 1e9)

        assert value(samples, metric("avg", "throughput"), batch_size) == pytest.approx(expected, rel=1e-12)

    @given(samples=SAMPLES, batch_size=st.integers(1, 64))
    @pytest.mark.parametrize("sub_type", PERCENTILES)
    def test_the_others_are_percentiles_of_the_rates(self, samples: list[int], batch_size: int, sub_type: str) -> None:
        rates = [batch_size / (sample / 1e9) for sample in samples]

        expected = float(np.percentile(rates, PERCENTILES[sub_type]))
        assert value(samples, metric(sub_type, "throughput"), batch_size) == pytest.approx(expected, rel=1e-12)

    def test_the_average_is_not_the_mean_of_the_rates(self) -> None:
        assert value([1_000_000_000, 3_000_000_000], metric("avg", "throughput"), 4) == 2.0
        assert value([1_000_000_000, 3_000_000_000], metric("max", "throughput"), 4) == 4.0


class TestSubTypes:
    @pytest.mark.parametrize(("sub_type", "percentile"), PERCENTILES.items())
    def test_name_a_percentile(self, sub_type: str, percentile: float) -> None:
        assert percentile_of(sub_type) == percentile

    def test_from_the_75th_on_they_look_at_the_tail(self) -> None:
        assert {sub_type for sub_type in TIMING_SUB_TYPES if is_tail(metric(sub_type))} == {
            "p75",
            "p90",
            "p95",
            "p99",
            "p999",
        }

    def test_need_as_many_runs_as_an_interval_takes(self) -> None:
        assert {sub_type: needed_runs(sub_type) for sub_type in TIMING_SUB_TYPES} == {
            "avg": 2,
            "min": 1,
            "max": 1,
            "p50": 8,
            "p75": 19,
            "p90": 51,
            "p95": 104,
            "p99": 528,
            "p999": 5296,
        }


class TestPlan:
    def test_by_default_it_has_a_hundred_runs_after_ten(self) -> None:
        plan = TimingPlan.for_metrics([metric("avg")], 8)

        assert (plan.warmup, plan.runs, plan.batch_size) == (10, 100, 8)

    @pytest.mark.parametrize(
        ("sub_type", "quantile"), [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)]
    )
    @pytest.mark.parametrize("kind", ["latency", "throughput"])
    def test_it_reaches_beyond_the_percentile_on_both_sides_with_99_per_cent_confidence(
        self, kind: str, sub_type: str, quantile: float
    ) -> None:
        runs = TimingPlan.for_metrics([metric(sub_type, kind)], 1).runs

        assert stats.binom.cdf(0, runs, 1 - quantile) <= 0.005
        assert runs == max(100, math.ceil(math.log(0.005) / math.log(quantile)))

    def test_one_in_a_thousand_takes_5296_runs(self) -> None:
        assert TimingPlan.for_metrics([metric("p999"), metric("p50")], 1).runs == 5296

    def test_it_takes_the_time_and_the_way_of_feeding_from_the_configuration(self) -> None:
        plan = TimingPlan.for_metrics([metric("p50")], 1, TimingConfig(seconds_per_candidate=3.5, io_binding=True))

        assert (plan.seconds_per_candidate, plan.io_binding) == (3.5, True)
        assert (TimingPlan.for_metrics([metric("p50")], 1).seconds_per_candidate) == 20.0

    def test_configured_counts_are_kept_where_they_are_larger(self) -> None:
        metrics = [metric("avg", repeat_test_num=500, warmup_num=20), metric("p50", repeat_test_num=200, warmup_num="40")]

        plan = TimingPlan.for_metrics(metrics, 1)

        assert (plan.warmup, plan.runs) == (40, 500)

    @pytest.mark.parametrize("number", [None, 0, 5, 7.9, "20"])
    def test_configured_counts_never_make_it_smaller(self, number: Any) -> None:
        plan = TimingPlan.for_metrics([metric("p99", repeat_test_num=number, warmup_num=1)], 1)

        assert (plan.warmup, plan.runs) == (10, 528)

    def test_metrics_that_are_not_timed_have_no_part_in_it(self) -> None:
        plan = TimingPlan.for_metrics([metric("accuracy", "accuracy", repeat_test_num=9999, warmup_num=9999)], 1)

        assert (plan.warmup, plan.runs) == (10, 100)

    @pytest.mark.parametrize("setting", ["repeat_test_num", "warmup_num"])
    @pytest.mark.parametrize("number", ["many", [1], {"n": 1}, float("inf"), float("nan")])
    def test_a_count_that_is_no_number_is_refused(self, setting: str, number: Any) -> None:
        with pytest.raises(InputError) as caught:
            TimingPlan.for_metrics([metric("avg", **{setting: number})], 1)

        expected = Problem(
            f"metrics: speed-avg, metric_config.{setting}", f"{number!r} is no whole number", "give the number of runs"
        )
        assert caught.value.problems == (expected,)

    @pytest.mark.parametrize("setting", ["repeat_test_num", "warmup_num"])
    @pytest.mark.parametrize("number", [-1, "-20"])
    def test_a_count_that_is_negative_is_refused(self, setting: str, number: Any) -> None:
        with pytest.raises(InputError) as caught:
            TimingPlan.for_metrics([metric("avg", **{setting: number})], 1)

        (problem,) = caught.value.problems
        assert problem.where == f"metrics: speed-avg, metric_config.{setting}"
        assert problem.what == f"{number!r} is negative"


class TestTimings:
    def test_are_read_back_as_they_were_saved(self, tmp_path: Path) -> None:
        timings = timings_of(
            [[1, 2], [3, 4], [5, 6]], cpu_ns=[[1, 1], [2, 2], [3, 3]], rounds=[0, 2, 5], kept=[True, False, True]
        )

        timings.save(tmp_path / "timings")

        assert (tmp_path / "timings").is_file()
        found = Timings.load(tmp_path / "timings")
        for name, array in vars(timings).items():
            assert getattr(found, name).dtype == array.dtype
            assert getattr(found, name).tolist() == array.tolist()

    def test_of_rounds_that_were_disturbed_are_left_out(self) -> None:
        timings = timings_of([[1, 2], [3, 4], [5, 6]], rounds=[0, 2, 5], kept=[True, False, True]).of_kept_rounds()

        assert (timings.wall_ns.tolist(), timings.rounds.tolist(), bool(timings.kept.all())) == ([[1, 2], [5, 6]], [0, 5], True)
        assert len(timings.sessions) == 2

    def test_there_are_by_both_clocks(self) -> None:
        timings = timings_of([[3, 4]], cpu_ns=[[1, 2]])

        assert (timings.ns().tolist(), timings.ns("cpu").tolist()) == ([[3, 4]], [[1, 2]])


RUNS = np.random.default_rng(3).lognormal(0, 0.2, (60, 8)) * MS


class TestValue:
    @pytest.mark.parametrize("sub_type", ["avg", "p50", "p75", "p90", "p95"])
    @pytest.mark.parametrize("kind", ["latency", "throughput"])
    def test_is_that_of_all_runs_and_lies_in_its_interval(self, kind: str, sub_type: str) -> None:
        timings = timings_of(RUNS)

        found = timings.value(metric(sub_type, kind), 2)

        assert found.value == value(timings.wall_ns.ravel().tolist(), metric(sub_type, kind), 2)
        assert (found.n, found.unit) == (480, "ms" if kind == "latency" else "samples/s")
        assert found.interval is not None
        assert found.interval[0] < found.value < found.interval[1]

    def test_of_the_extremes_has_no_interval(self) -> None:
        assert [timings_of(RUNS).value(metric(name), 1).interval for name in ("min", "max")] == [None, None]

    def test_leaves_disturbed_rounds_out(self) -> None:
        kept = np.arange(60) % 3 > 0
        disturbed = np.where(kept[:, None], RUNS, 1000 * RUNS)

        assert timings_of(disturbed, kept=kept.tolist()).value(metric("avg"), 1) == timings_of(RUNS[kept]).value(
            metric("avg"), 1
        )

    def test_is_by_the_wall_clock(self) -> None:
        assert timings_of(RUNS, cpu_ns=RUNS / 2).value(metric("p50"), 1) == timings_of(RUNS).value(metric("p50"), 1)

    @pytest.mark.parametrize(("sub_type", "needed"), [("avg", 2), ("p50", 8), ("p90", 51), ("p95", 104)])
    def test_of_too_few_runs_is_not_supported_and_has_no_interval(self, sub_type: str, needed: int) -> None:
        runs = RUNS.ravel()

        enough, too_few = (timings_of(runs[:count]).value(metric(sub_type), 1) for count in (needed, needed - 1))

        assert (enough.is_supported, enough.needed_n, enough.interval is not None) == (True, needed, True)
        assert (too_few.is_supported, too_few.needed_n, too_few.interval) == (False, needed, None)

    def test_of_a_single_round_has_no_interval_however_many_runs_there_are(self) -> None:
        assert timings_of(RUNS.reshape(1, -1)).value(metric("p50"), 1).interval is None

    @pytest.mark.parametrize("sub_type", ["p50", "p90", "avg"])
    def test_is_less_sure_where_the_runs_of_a_round_depend_on_each_other(self, sub_type: str) -> None:
        noise = np.random.default_rng(5).lognormal(0, 0.3, (60, 1))
        together = timings_of(np.repeat(noise, 8, axis=1) * MS).value(metric(sub_type), 1)
        alone = timings_of(np.random.default_rng(6).lognormal(0, 0.3, (60, 8)) * MS).value(metric(sub_type), 1)

        assert together.interval is not None
        assert alone.interval is not None
        assert together.interval[1] - together.interval[0] > 1.5 * (alone.interval[1] - alone.interval[0])

    def test_has_an_interval_as_wide_as_order_statistics_give_where_rounds_are_alike(self) -> None:
        alike = np.tile(RUNS[:1], (60, 1))

        found = timings_of(alike).value(metric("p50"), 1)

        assert found.interval is not None
        assert found.interval[0] < found.interval[1]

    @pytest.mark.parametrize("sub_type", ["avg", "p50", "p90"])
    def test_is_the_same_each_time(self, sub_type: str) -> None:
        assert timings_of(RUNS).value(metric(sub_type), 1) == timings_of(RUNS).value(metric(sub_type), 1)

    @pytest.mark.parametrize(
        ("kind", "sub_type", "true"), [("latency", "p50", 1.0), ("latency", "p90", 1.292), ("latency", "avg", 1.0202)]
    )
    def test_is_true_within_the_interval_nearly_always(self, kind: str, sub_type: str, true: float) -> None:
        random = np.random.default_rng(11)
        found = [
            timings_of(random.lognormal(0, 0.2, (40, 4)) * MS).value(metric(sub_type, kind), 1).interval for _ in range(100)
        ]

        assert sum(ends is not None and ends[0] <= true <= ends[1] for ends in found) >= 95
