"""Timing: what is made of the samples, how many are taken, and when the warm-up ends. No real clock decides anything."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, repeat
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.errors import InputError, Problem
from packhouse.evaluation import latency
from packhouse.evaluation.latency import TimingPlan, statistic, throughput, time_alone
from packhouse.metrics import TIMING_SUB_TYPES, Metric, Tolerance

MS = 1_000_000
PERCENTILES = {"p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "min": 0.0, "max": 100.0}
SAMPLES = st.lists(st.integers(1_000, 10**10), min_size=1, max_size=300)


def metric(sub_type: str, kind: Any = "latency", **settings: Any) -> Metric:
    return Metric(
        name=f"speed-{sub_type}",
        type=kind,
        sub_type=sub_type,
        priority=1,
        higher_is_better=False,
        goal=None,
        tolerance=Tolerance(),
        settings=settings,
        function=None,
    )


class TestStatistic:
    @given(samples=SAMPLES)
    @pytest.mark.parametrize("sub_type", PERCENTILES)
    def test_percentiles_are_those_of_numpy_in_milliseconds(self, samples: list[int], sub_type: str) -> None:
        expected = float(np.percentile(np.array(samples, float), PERCENTILES[sub_type])) / 1e6

        assert statistic(samples, sub_type) == pytest.approx(expected, rel=1e-12)

    @given(samples=SAMPLES)
    def test_the_average_is_the_mean(self, samples: list[int]) -> None:
        assert statistic(samples, "avg") == pytest.approx(math.fsum(samples) / len(samples) / 1e6, rel=1e-12)

    def test_every_sub_type_of_the_configuration_is_known(self) -> None:
        samples = [*range(MS, 1001 * MS, MS)]

        assert {sub_type: round(statistic(samples, sub_type), 3) for sub_type in TIMING_SUB_TYPES} == {
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


class TestThroughput:
    @given(samples=SAMPLES, batch_size=st.integers(1, 64))
    def test_the_average_is_all_samples_over_all_time(self, samples: list[int], batch_size: int) -> None:
        expected = batch_size * len(samples) / (math.fsum(samples) / 1e9)

        assert throughput(samples, "avg", batch_size) == pytest.approx(expected, rel=1e-12)

    @given(samples=SAMPLES, batch_size=st.integers(1, 64))
    @pytest.mark.parametrize("sub_type", PERCENTILES)
    def test_the_others_are_percentiles_of_the_rates(self, samples: list[int], batch_size: int, sub_type: str) -> None:
        rates = [batch_size / (sample / 1e9) for sample in samples]

        expected = float(np.percentile(rates, PERCENTILES[sub_type]))
        assert throughput(samples, sub_type, batch_size) == pytest.approx(expected, rel=1e-12)

    def test_the_average_is_not_the_mean_of_the_rates(self) -> None:
        assert throughput([1_000_000_000, 3_000_000_000], "avg", 4) == 2.0
        assert throughput([1_000_000_000, 3_000_000_000], "max", 4) == 4.0


class TestPlan:
    def test_by_default_it_has_a_hundred_runs_after_ten(self) -> None:
        plan = TimingPlan.for_metrics([metric("avg")], 8)

        assert (plan.warmup, plan.runs, plan.batch_size) == (10, 100, 8)

    @pytest.mark.parametrize(
        ("sub_type", "quantile"), [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)]
    )
    @pytest.mark.parametrize("kind", ["latency", "throughput"])
    def test_it_reaches_the_percentile_with_95_per_cent_confidence(self, kind: str, sub_type: str, quantile: float) -> None:
        runs = TimingPlan.for_metrics([metric(sub_type, kind)], 1).runs

        assert 1 - quantile**runs >= 0.95
        assert runs == max(100, math.ceil(math.log(0.05) / math.log(quantile)))

    def test_one_in_a_thousand_takes_2995_runs(self) -> None:
        assert TimingPlan.for_metrics([metric("p999"), metric("p50")], 1).runs == 2995

    def test_configured_counts_are_kept_where_they_are_larger(self) -> None:
        metrics = [metric("avg", repeat_test_num=500, warmup_num=20), metric("p50", repeat_test_num=200, warmup_num="40")]

        plan = TimingPlan.for_metrics(metrics, 1)

        assert (plan.warmup, plan.runs) == (40, 500)

    @pytest.mark.parametrize("number", [None, 0, 5, -3, 7.9, "20"])
    def test_configured_counts_never_make_it_smaller(self, number: Any) -> None:
        plan = TimingPlan.for_metrics([metric("p99", repeat_test_num=number, warmup_num=1)], 1)

        assert (plan.warmup, plan.runs) == (10, 299)

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


@dataclass
class Device:
    """Stands in for a worker: runs take what `times` gives, in nanoseconds, on a clock of its own."""

    times: Iterator[int]
    now_ns: int = 0
    asked: list[int] = field(default_factory=list)

    def ask(self, request: str, runs: int) -> dict[str, Any]:
        assert request == "time"
        self.asked.append(runs)
        samples = [next(self.times) for _ in range(runs)]
        self.now_ns += sum(samples)
        return {"samples_ns": samples}

    def monotonic(self) -> float:
        return self.now_ns / 1e9


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[int], Device]]:
    """A function that times a stand-in device by its own clock, and returns the samples and the device."""

    def run(times: Iterator[int], **plan: Any) -> tuple[list[int], Device]:
        device = Device(times)
        monkeypatch.setattr(latency, "time", device)
        return time_alone(device, TimingPlan(**plan)), device  # type: ignore[arg-type]

    return run


Measure = Callable[..., tuple[list[int], Device]]


def blocks(*medians: int) -> Iterator[int]:
    """Give ten runs of each time, and then the last one for ever."""
    for median in medians:
        yield from repeat(median, 10)
    yield from repeat(medians[-1])


class TestTimeAlone:
    def test_it_takes_the_runs_of_the_plan_and_none_of_the_warm_up(self, measure: Measure) -> None:
        samples, device = measure(chain(repeat(MS, 20), count(MS)), runs=137)

        assert samples == [*range(MS, MS + 137)]
        assert device.asked == [10, 10, 10, 40, 40, 40, 7]

    def test_it_warms_up_until_two_blocks_agree(self, measure: Measure) -> None:
        samples, device = measure(blocks(9 * MS, 5 * MS, 3 * MS, 3 * MS, 2 * MS), runs=10)

        assert device.asked == [10, 10, 10, 10, 10]
        assert samples == [2 * MS] * 10

    @pytest.mark.parametrize(("second", "blocks_until_settled"), [(1020, 2), (1021, 3), (981, 2), (979, 3)])
    def test_two_blocks_agree_within_two_per_cent(self, measure: Measure, second: int, blocks_until_settled: int) -> None:
        _, device = measure(blocks(1000, second), runs=1)

        assert len(device.asked) == blocks_until_settled + 1

    def test_one_slow_run_in_a_block_does_not_unsettle_it(self, measure: Measure) -> None:
        block = [MS] * 9
        _, device = measure(iter([*block, MS, *block, 500 * MS, *repeat(MS, 50)]), runs=1)

        assert device.asked == [10, 10, 1]

    @pytest.mark.parametrize(("warmup", "blocks_of_ten"), [(0, 2), (10, 2), (20, 2), (21, 3), (55, 6)])
    def test_it_warms_up_for_as_long_as_the_plan_says(self, measure: Measure, warmup: int, blocks_of_ten: int) -> None:
        _, device = measure(repeat(MS), runs=1, warmup=warmup)

        assert device.asked == [*[10] * blocks_of_ten, 1]

    def test_it_gives_up_warming_up_after_two_seconds(self, measure: Measure) -> None:
        restless = (MS * (10 if index // 10 % 2 else 20) for index in range(10_000))

        _, device = measure(restless, runs=1)

        warm_up = device.asked[:-1]
        # 200 ms and 100 ms in turn: 13 blocks are 2.0 s, not yet over; 14 are.
        assert len(warm_up) == 14

    def test_a_candidate_that_is_slow_to_warm_up_is_warmed_up_once(self, measure: Measure) -> None:
        samples, device = measure(repeat(3_000 * MS), runs=100)

        assert device.asked == [10, 10]
        assert len(samples) == 10

    def test_it_stops_at_the_block_in_which_the_time_is_over(self, measure: Measure) -> None:
        samples, device = measure(repeat(100 * MS), runs=1000, max_s=4.5)

        # a block of 10 (1.0 s), then one of 40 (5.0 s), which is over the 4.5 s
        assert (len(samples), device.asked[-2:]) == (50, [10, 40])

    def test_it_takes_at_least_one_block_however_slow_the_candidate_is(self, measure: Measure) -> None:
        samples, _ = measure(repeat(60_000 * MS), runs=100, max_s=0.0)

        assert len(samples) == 10

    def test_it_takes_fewer_than_a_block_where_the_plan_says_so(self, measure: Measure) -> None:
        samples, _ = measure(repeat(MS), runs=3)

        assert len(samples) == 3
