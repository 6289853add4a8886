"""Latency and throughput: what to measure, the raw samples of one candidate, and the numbers that are made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from packhouse.errors import InputError
from packhouse.evaluation.records import MetricValue
from packhouse.metrics import TIMED_TYPES, Metric
from packhouse.records import Record
from packhouse.statistics import Interval, bootstrap_interval, percentile_interval, runs_for

MIN_WARMUP = 10
MIN_RUNS = 100
NS_PER_MS = 1e6
TAIL_FROM = 75.0  # percentiles from here on are compared over all runs, since a round has too few

Clock = Literal["wall", "cpu"]
Nanoseconds = NDArray[np.int64]
Values = NDArray[np.float64]


class TimingConfig(Record):
    """How long candidates are timed, and how they are fed."""

    seconds_per_candidate: float = Field(
        default=20.0,
        gt=0,
        allow_inf_nan=False,
        description="Time that the candidates of an accelerator may take together, for each of them; slow ones up to three "
        "times as long, until 200 rounds are played.",
    )
    io_binding: bool = Field(
        default=False,
        description="Bind inputs and outputs to memory on the device beforehand, so that copies are not timed.",
    )


class TimingPlan(Record):
    """How to time: at least `runs` runs of each candidate after `warmup` ones, each of `batch_size` samples.

    All candidates together may take `seconds_per_candidate` seconds for each of them, and slow ones up to three times as long,
    until 200 rounds are played. With `io_binding`, inputs and outputs are
    bound to memory beforehand, and copies are not timed.
    """

    warmup: int = MIN_WARMUP
    runs: int = MIN_RUNS
    batch_size: int = 1
    seconds_per_candidate: float = 20.0
    io_binding: bool = False

    @classmethod
    def for_metrics(cls, metrics: Sequence[Metric], batch_size: int, config: TimingConfig | None = None) -> Self:
        """Return a plan that supports every percentile asked for and every count that is configured.

        Raises:
            InputError: a configured count is no number, or negative.
        """
        timed = [metric for metric in metrics if metric.type in TIMED_TYPES]
        return cls(
            warmup=max([MIN_WARMUP, *(_configured(metric, "warmup_num") for metric in timed)]),
            runs=max(
                [
                    MIN_RUNS,
                    *(_configured(metric, "repeat_test_num") for metric in timed),
                    *(needed_runs(metric.sub_type) for metric in timed),
                ]
            ),
            batch_size=batch_size,
            **(config or TimingConfig()).model_dump(),
        )


@dataclass(frozen=True)
class Timings:
    """The runs of one candidate, round by round, in ns.

    `wall_ns` and `cpu_ns` have the shape (rounds, runs a round), and are the time that passed and that the process computed;
    `rounds` (rounds,) has the number of each round, by which it is paired with other candidates' rounds; `sessions` (rounds,)
    the number of the session; `kept` (rounds,) is false for rounds that were disturbed.
    """

    wall_ns: Nanoseconds
    cpu_ns: Nanoseconds
    rounds: NDArray[np.int64]
    sessions: NDArray[np.int64]
    kept: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write the arrays to an .npz file."""
        with path.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})

    def of_kept_rounds(self) -> Self:
        """Return the rounds that were not disturbed."""
        return type(self)(**{name: array[self.kept] for name, array in vars(self).items()})

    def ns(self, clock: Clock = "wall") -> Nanoseconds:
        """Return the times by a clock, shape (rounds, runs a round)."""
        return self.wall_ns if clock == "wall" else self.cpu_ns

    def estimate(self, metric: Metric, batch_size: int) -> tuple[float, Interval | None]:
        """Return the value of a timed metric over all rounds that were kept, and its interval if that is quick to find."""
        wall = self.of_kept_rounds().wall_ns.reshape(1, -1)
        value = float(statistic(metric, wall, batch_size)[0])
        if metric.sub_type == "avg":
            return value, None
        return value, percentile_interval(_in_unit(metric, wall[0], batch_size), percentile_of(metric.sub_type))

    def value(self, metric: Metric, batch_size: int) -> MetricValue:
        """Return the value of a timed metric over all rounds that were kept, by the wall clock, with its interval.

        A single round, in which all runs depend on each other, supports no value.
        """
        wall = self.of_kept_rounds().wall_ns
        needed = needed_runs(metric.sub_type) if len(wall) > 1 else wall.size + 1
        interval = _interval(metric, wall, batch_size) if wall.size >= needed else None
        return MetricValue(
            value=float(statistic(metric, wall.reshape(1, -1), batch_size)[0]),
            unit=metric.unit,
            n=int(wall.size),
            interval=interval,
            needed_n=needed,
        )


def statistic(metric: Metric, ns: NDArray[Any], batch_size: int) -> Values:
    """Return a timed metric of each row of `ns`, shape (rows, runs): latency in ms, throughput in samples per second.

    ``avg`` of the throughput is all samples over all time; its other sub types are statistics of the rates of single runs.
    Percentiles are interpolated linearly.
    """
    if metric.sub_type == "avg":
        return _in_unit(metric, ns.mean(axis=1), batch_size)
    return np.asarray(np.percentile(_in_unit(metric, ns, batch_size), percentile_of(metric.sub_type), axis=1))


def percentile_of(sub_type: str) -> float:
    """Return the percentile that a sub type names: p95 is 95, p999 is 99.9; the extremes are percentiles too."""
    if sub_type in ("min", "max"):
        return 0.0 if sub_type == "min" else 100.0
    digits = sub_type.removeprefix("p")
    return float(f"{digits[:2]}.{digits[2:] or 0}")


def needed_runs(sub_type: str) -> int:
    """Return the number of runs from which a sub type is supported: from which its interval exists."""
    return 2 if sub_type == "avg" else runs_for(percentile_of(sub_type))


def is_tail(metric: Metric) -> bool:
    """Whether a metric looks at the few slowest runs (or highest rates), of which a single round has too few.

    The largest of all is no such thing: it has no distribution to learn about, and rounds are compared by their own.
    """
    return metric.sub_type not in ("avg", "max") and percentile_of(metric.sub_type) >= TAIL_FROM


def _interval(metric: Metric, ns: Nanoseconds, batch_size: int) -> Interval | None:
    """Return the interval by drawing whole rounds, whose runs depend on each other, or by order statistics if that is wider."""
    if metric.sub_type in ("min", "max"):
        return None
    drawn = bootstrap_interval(lambda rounds: statistic(metric, ns[rounds].reshape(len(rounds), -1), batch_size), len(ns))
    if metric.sub_type == "avg" or drawn is None:
        return drawn
    ordered = percentile_interval(_in_unit(metric, ns.ravel(), batch_size), percentile_of(metric.sub_type))
    return drawn.hull(ordered) if ordered else drawn


def _in_unit(metric: Metric, ns: NDArray[Any], batch_size: int) -> Values:
    """Return times as latencies in ms, or as rates in samples per second."""
    return ns / NS_PER_MS if metric.type == "latency" else batch_size * 1e9 / ns


def _configured(metric: Metric, setting: str) -> int:
    value = metric.settings.get(setting) or 0
    where = f"metrics: {metric.name}, metric_config.{setting}"
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError.at(where, f"{value!r} is no whole number", "give the number of runs") from error
    if number < 0:
        raise InputError.at(where, f"{value!r} is negative", "give the number of runs, or leave the setting out")
    return number
