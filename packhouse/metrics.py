"""What candidates are graded by: metrics in Olive's configuration shape, and the flat list that the rest works with."""

import difflib
import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from packhouse.records import Record

MetricType = Literal["accuracy", "latency", "throughput", "size_on_disk", "peak_memory", "startup", "custom"]
GoalType = Literal["threshold", "min-improvement", "percent-min-improvement", "max-degradation", "percent-max-degradation"]

QUALITY_TYPES = {"accuracy", "custom"}  # need labels
TIMED_TYPES = {"latency", "throughput"}  # need the device to themselves
TIMING_SUB_TYPES = ("avg", "min", "max", "p50", "p75", "p90", "p95", "p99", "p999")
# The name a sub type may have in a configuration (scikit-learn's or Olive's) → the scikit-learn metric.
QUALITY_SUB_TYPES = {
    "accuracy": "accuracy",
    "accuracy_score": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "f1": "f1",
    "f1_score": "f1",
    "precision": "precision",
    "recall": "recall",
    "roc_auc": "roc_auc",
    "auroc": "roc_auc",
}
# Sub types of every type but `custom`, whose names are free.
SUB_TYPES: dict[str, tuple[str, ...]] = {
    "accuracy": tuple(QUALITY_SUB_TYPES),
    "latency": TIMING_SUB_TYPES,
    "throughput": TIMING_SUB_TYPES,
    "size_on_disk": ("bytes",),
    "peak_memory": ("bytes",),
    "startup": ("session_creation", "first_inference"),
}
HIGHER_IS_BETTER = {
    "accuracy": True,
    "latency": False,
    "throughput": True,
    "size_on_disk": False,
    "peak_memory": False,
    "startup": False,
}
# What metric_config may hold that has an effect here, and what Olive has there besides.
SETTINGS = {
    "average",
    "labels",
    "multi_class",
    "normalize",
    "pos_label",
    "repeat_test_num",
    "threshold",
    "warmup_num",
    "zero_division",
}
OLIVE_SETTINGS = {
    "sleep_num",
    "task",
    "num_classes",
    "num_labels",
    "multidim_average",
    "top_k",
    "ignore_index",
    "validate_args",
}
AVERAGES = {"binary", "macro", "micro", "none", "samples", "weighted"}
UNITS = {"latency": "ms", "throughput": "samples/s", "size_on_disk": "B", "peak_memory": "B", "startup": "ms"}


class Goal(Record):
    """What a metric must reach; relative goals compare with the baseline candidate on the same accelerator.

    With direction d = +1 where higher is better and -1 otherwise, and baseline value b, the value v passes if
    ``d·v ≥ d·target``, where the target is ``value`` (threshold), ``b + d·value`` (min-improvement),
    ``b + d·|b|·value/100`` (percent-min-improvement), ``b - d·value`` (max-degradation) or
    ``b - d·|b|·value/100`` (percent-max-degradation), as in Olive.
    """

    type: GoalType = Field(description="Kind of goal.")
    value: float = Field(allow_inf_nan=False, description="In the metric's unit; per cent (50 is half) for the percent types.")

    @model_validator(mode="after")
    def _steps_are_not_negative(self) -> "Goal":
        if self.is_relative and self.value < 0:
            raise ValueError(f"{self.type} is {self.value:g}, less than zero; give the size only, the type says the direction")
        return self

    @property
    def is_relative(self) -> bool:
        """Whether the goal needs a baseline."""
        return self.type != "threshold"

    def target(self, higher_is_better: bool, baseline: float | None) -> float:
        """Return the value that must be reached; `baseline` is needed for relative goals.

        A per cent is one of ``|baseline|``. Olive writes ``baseline·(1 ± value/100)``, which is the same for a positive
        baseline; for a negative one it would ask for a worse value as an improvement.
        """
        if self.type == "threshold":
            return self.value
        if baseline is None:
            raise ValueError(f"a {self.type} goal needs a baseline value")
        sign = 1 if higher_is_better else -1
        if self.type.endswith("max-degradation"):
            sign = -sign
        step = abs(baseline) * self.value / 100 if self.type.startswith("percent") else self.value
        return baseline + sign * step


class Tolerance(Record):
    """The difference up to which two values count as equal: absolute, or relative to the better one.

    A difference has to exceed it with confidence, if it `is_tested`; else the values are taken as they are.
    """

    value: float = 0.0
    is_relative: bool = False
    is_tested: bool = True

    def limit(self, best: float, *, is_relative: bool) -> float:
        """Return the difference from `best` that is tolerated: in the metric's unit, or relative to `best`."""
        if self.is_relative == is_relative:
            return self.value
        if is_relative:
            return self.value / abs(best) if best else math.inf
        return self.value * abs(best)

    def __str__(self) -> str:
        """Return the tolerance as it is written in a configuration."""
        return f"{self.value * 100:g}%" if self.is_relative else f"{self.value:g}"


class SubType(Record):
    """One number of a metric, for example ``accuracy_score`` or ``p95``."""

    name: str = Field(description="Sub type, for example accuracy_score, f1, avg, p95, bytes.")
    priority: int = Field(default=-1, description="Rank of this number in the order of candidates, 1 first; -1 is not ranked.")
    higher_is_better: bool | None = Field(default=None, description="Direction; required for custom metrics only.")
    goal: Goal | None = Field(default=None, title="Goal", description="What a candidate must reach to be ranked.")
    tolerance: float | str | None = Field(
        default=None,
        description="Difference that counts as a tie: a number in the metric's unit, a per cent text such as 2%, or 0 to order "
        "by the plain values. Default: 2% for latency and throughput; for accuracy whatever is not significant; else 0.",
    )
    metric_config: dict[str, Any] = Field(
        default={},
        description="warmup_num, repeat_test_num (timing); average, labels, … (scikit-learn); Olive's others are ignored.",
    )

    @field_validator("priority")
    @classmethod
    def _priority_starts_at_one(cls, value: int) -> int:
        if value != -1 and value < 1:
            raise ValueError(f"{value} is no priority; use 1 for the first, then 2, 3, …, or -1 for what is not ranked by")
        return value

    @field_validator("tolerance")
    @classmethod
    def _tolerance_is_readable(cls, value: float | str | None) -> float | str | None:
        if value is not None:
            parse_tolerance(value)
        return value

    @field_validator("metric_config")
    @classmethod
    def _settings_are_not_misspelt(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value.keys() - SETTINGS - OLIVE_SETTINGS:
            if close := difflib.get_close_matches(key, SETTINGS, 1, cutoff=0.6):
                raise ValueError(f"{key!r} is no setting; did you mean {close[0]!r}?")
        if (average := value.get("average")) is not None and average not in AVERAGES:
            raise ValueError(f"average {average!r} is unknown; use one of {', '.join(sorted(AVERAGES))}")
        return value

    @field_validator("metric_config", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return {} if value is None else value


class UserConfig(Record, extra="allow"):
    """A metric's user settings. Olive's keys are accepted; those that only Olive understands have no effect here."""

    function: str | None = Field(
        default=None,
        description="Custom metric as module:function or file.py:function, called with outputs and labels.",
    )


class MetricConfig(Record):
    """A metric and its sub types, in the shape of Olive's evaluator configuration."""

    name: str = Field(description="Name of the metric; results are called <name>-<sub type>.")
    type: MetricType = Field(description="Kind of metric.")
    sub_types: tuple[SubType, ...] = Field(min_length=1, description="The numbers to measure.")
    user_config: UserConfig | None = Field(default=None, title="User config", description="Settings of this metric.")
    data_config: str | dict[str, Any] | None = Field(
        default=None,
        title="Data config",
        description="Olive's data configuration; accepted, the data come from `data`.",
    )
    backend: str | None = Field(default=None, description="Olive's metric backend; accepted, scikit-learn computes.")

    @field_validator("type", mode="before")
    @classmethod
    def _lower_case_type(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sub_types_fit_the_type(self) -> "MetricConfig":
        known = SUB_TYPES.get(self.type)
        for sub_type in self.sub_types:
            if known and sub_type.name not in known:
                raise ValueError(f"{self.type} has no sub type {sub_type.name!r}; use one of {', '.join(known)}")
            if self.type == "custom" and sub_type.higher_is_better is None:
                raise ValueError(f"the custom sub type {sub_type.name!r} has no direction; add higher_is_better: true or false")
        if self.type == "custom" and not (self.user_config and self.user_config.function):
            raise ValueError("a custom metric needs a function; add user_config.function, for example metrics.py:my_metric")
        return self


class Metric(Record):
    """One number that every candidate gets, flattened out of its configuration."""

    name: str
    type: MetricType
    sub_type: str
    priority: int
    higher_is_better: bool
    goal: Goal | None
    tolerance: Tolerance
    settings: dict[str, Any]
    function: str | None

    @property
    def unit(self) -> str:
        """The unit of its values, or an empty string."""
        return UNITS.get(self.type, "")


EXACT = Tolerance(is_tested=False)
DEFAULT_TOLERANCES: dict[MetricType, Tolerance] = {
    "accuracy": Tolerance(),
    "latency": Tolerance(value=0.02, is_relative=True),
    "throughput": Tolerance(value=0.02, is_relative=True),
}


def flatten(configs: tuple[MetricConfig, ...]) -> tuple[Metric, ...]:
    """Return one `Metric` per sub type, in the order of the configuration.

    Where there is exactly one number and it has no priority, it is ranked first, as in Olive.
    """
    pairs = [(config, sub_type) for config in configs for sub_type in config.sub_types]
    return tuple(
        Metric(
            name=f"{config.name}-{sub_type.name}",
            type=config.type,
            sub_type=sub_type.name,
            priority=1 if len(pairs) == 1 else sub_type.priority,
            higher_is_better=HIGHER_IS_BETTER.get(config.type, True)
            if sub_type.higher_is_better is None
            else sub_type.higher_is_better,
            goal=sub_type.goal,
            tolerance=_tolerance(config.type, sub_type.tolerance),
            settings=sub_type.metric_config,
            function=config.user_config.function if config.user_config else None,
        )
        for config, sub_type in pairs
    )


def parse_tolerance(value: float | str) -> Tolerance:
    """Read a tolerance: a number (absolute) or a text such as ``2%`` (relative). Raises ValueError.

    A text without a per cent sign is a number too: YAML reads ``1e-3`` as a text.
    """
    is_relative = isinstance(value, str) and value.rstrip().endswith("%")
    try:
        number = float(value.rstrip().removesuffix("%") if isinstance(value, str) else value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is no tolerance; write a number of zero or more such as 0.002, or a per cent such as 2%")
    return Tolerance(value=number / 100 if is_relative else number, is_relative=is_relative, is_tested=number > 0)


def _tolerance(kind: MetricType, configured: float | str | None) -> Tolerance:
    return DEFAULT_TOLERANCES.get(kind, EXACT) if configured is None else parse_tolerance(configured)
