"""Time one candidate on a device that it has to itself.

The protocol is a function of a `SessionHost` and a plan, and gives raw samples; what is made of them is separate. So another
protocol can take its place without touching either side.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from packhouse.errors import InputError
from packhouse.evaluation.session_host import SessionHost
from packhouse.metrics import Metric
from packhouse.records import Record

MIN_WARMUP = 10
MIN_RUNS = 100
BLOCK = 10
SETTLED = 0.02
MAX_WARMUP_S = 2.0
# Runs after which the largest of them reaches the percentile with 95 % confidence: ln(0.05) / ln(p).
RUNS_FOR = {"p50": 5, "p75": 11, "p90": 29, "p95": 59, "p99": 299, "p999": 2995}
NS_PER_MS = 1e6


class TimingPlan(Record):
    """How long to time: `runs` runs after `warmup` ones, each of `batch_size` samples, within `max_s` seconds."""

    warmup: int = MIN_WARMUP
    runs: int = MIN_RUNS
    batch_size: int = 1
    max_s: float = 30.0

    @classmethod
    def for_metrics(cls, metrics: Sequence[Metric], batch_size: int) -> "TimingPlan":
        """Return a plan that supports every percentile asked for and every count that is configured.

        Raises:
            InputError: a configured count is no number.
        """
        timed = [metric for metric in metrics if metric.type in ("latency", "throughput")]
        return cls(
            warmup=max([MIN_WARMUP, *(_configured(metric, "warmup_num") for metric in timed)]),
            runs=max(
                [
                    MIN_RUNS,
                    *(_configured(metric, "repeat_test_num") for metric in timed),
                    *(RUNS_FOR.get(metric.sub_type, 0) for metric in timed),
                ]
            ),
            batch_size=batch_size,
        )


def time_alone(host: SessionHost, plan: TimingPlan) -> list[int]:
    """Return the wall times, in ns, of up to `plan.runs` runs; at least one block of runs however slow they are.

    Warm-up takes at least `plan.warmup` runs, and goes on until the medians of two blocks in a row differ by less than 2 %,
    or 2 s have passed.
    """
    _warm_up(host, plan)
    samples: list[int] = []
    deadline = time.monotonic() + plan.max_s
    while len(samples) < plan.runs and (not samples or time.monotonic() < deadline):
        samples += host.ask("time", runs=min(BLOCK if not samples else 4 * BLOCK, plan.runs - len(samples)))["samples_ns"]
    return samples


def statistic(samples_ns: Sequence[int], sub_type: str) -> float:
    """Return a sub type of the latency metric, in ms: avg, min, max, or a percentile by linear interpolation."""
    values: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(samples_ns, dtype=np.float64) / NS_PER_MS
    if sub_type == "avg":
        return float(values.mean())
    return float(np.percentile(values, _percentile(sub_type)))


def throughput(samples_ns: Sequence[int], sub_type: str, batch_size: int) -> float:
    """Return a sub type of the throughput metric, in samples per second.

    ``avg`` is all samples over all time; the others are statistics of the rates of the single runs.
    """
    rates: np.ndarray[Any, np.dtype[np.float64]] = batch_size * 1e9 / np.asarray(samples_ns, dtype=np.float64)
    if sub_type == "avg":
        return float(batch_size * 1e9 * len(samples_ns) / sum(samples_ns))
    return float(np.percentile(rates, _percentile(sub_type)))


def _configured(metric: Metric, setting: str) -> int:
    value = metric.settings.get(setting) or 0
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        where = f"metrics: {metric.name}, metric_config.{setting}"
        raise InputError.at(where, f"{value!r} is no whole number", "give the number of runs") from error


def _warm_up(host: SessionHost, plan: TimingPlan) -> None:
    deadline = time.monotonic() + MAX_WARMUP_S
    done, previous = 0, 0.0
    while True:
        median = statistics.median(host.ask("time", runs=BLOCK)["samples_ns"])
        done += BLOCK
        settled = abs(median - previous) <= SETTLED * median
        if done >= plan.warmup and (settled or time.monotonic() > deadline):
            return
        previous = median


def _percentile(sub_type: str) -> float:
    """Return the percentile that a sub type names: p95 is 95, p999 is 99.9; the extremes are percentiles too."""
    if sub_type in ("min", "max"):
        return 0.0 if sub_type == "min" else 100.0
    digits = sub_type.removeprefix("p")
    return float(f"{digits[:2]}.{digits[2:] or 0}")
