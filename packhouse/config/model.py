"""The whole configuration as one frozen model; each stage defines its own part of it."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from packhouse.accelerators import Accelerator
from packhouse.candidates import CandidateSource
from packhouse.evaluation.data import DataConfig
from packhouse.evaluation.latency import TimingConfig
from packhouse.metrics import QUALITY_TYPES, Metric, MetricConfig, flatten
from packhouse.packaging import Packaging
from packhouse.packaging.registry import any_packaging, with_type_as_registered
from packhouse.provenance.config import SigningConfig
from packhouse.records import Record

if TYPE_CHECKING:
    AnyPackaging = Packaging
else:
    AnyPackaging = any_packaging()


class PackhouseConfig(Record):
    """Grade candidates on accelerators by metrics, and package the winners."""

    candidates: CandidateSource = Field(description="Where the candidates come from.")
    data: DataConfig | None = Field(
        default=None,
        title="Data",
        description="Labelled samples; on generated ones only latency, throughput, size, memory and start-up are measured.",
    )
    accelerators: tuple[Accelerator, ...] = Field(
        default=(Accelerator(),), min_length=1, description="What the candidates are graded on, each on its own."
    )
    metrics: tuple[MetricConfig, ...] = Field(min_length=1, description="What the candidates are graded by.")
    timing: TimingConfig = Field(default=TimingConfig(), title="Timing", description="How latency and throughput are measured.")
    objective: Literal["priority", "pareto"] = Field(
        default="priority",
        description="What comes first: the best by priority, or candidates that no other one beats on every ranked metric.",
    )
    weights: dict[str, float] = Field(
        default={},
        description="Rank by a weighted sum instead: metric → weight of its distance from the best, relative to that.",
    )
    baseline: str | None = Field(
        default=None, description="Name of the candidate that relative goals compare with; often the unoptimised model."
    )
    packaging: tuple[AnyPackaging, ...] = Field(default=(), description="What is made of the winners: one package each.")
    signing: SigningConfig | None = Field(
        default=None, title="Signing", description="Sign every package; without it, packages are published unsigned."
    )
    output_dir: Path = Field(default=Path("packages"), description="Folder for packages, the report and the release record.")

    @field_validator("packaging", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        several = [value] if isinstance(value, dict) else value
        return [with_type_as_registered(item) for item in several] if isinstance(several, list | tuple) else several

    @field_validator("packaging")
    @classmethod
    def _outputs_are_distinct(cls, value: tuple[Packaging, ...]) -> tuple[Packaging, ...]:
        names = [packaging.output_name.lower() for packaging in value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two packages would be called {twice!r} in the output folder; give each its own name")
        return value

    @field_validator("accelerators")
    @classmethod
    def _specs_are_distinct(cls, value: tuple[Accelerator, ...]) -> tuple[Accelerator, ...]:
        specs = [accelerator.spec for accelerator in value]
        if twice := next((spec for spec in specs if specs.count(spec) > 1), None):
            raise ValueError(f"{twice} is listed twice; keep one of them")
        return value

    @model_validator(mode="after")
    def _metrics_can_rank(self) -> "PackhouseConfig":
        if obstacles := list(self._obstacles()):
            raise ValueError("\n".join(obstacles))
        return self

    def _obstacles(self) -> Iterator[str]:
        """Yield a line for everything that keeps the metrics from ranking: place, finding; remedy."""
        metrics = self.flat_metrics
        names = [metric.name for metric in metrics]
        if twice := next((name for name in names if names.count(name) > 1), None):
            yield f"metrics: {twice!r} is defined twice; give the metrics different names"
        priorities = [metric.priority for metric in metrics if metric.priority > 0]
        if duplicate := next((item for item in priorities if priorities.count(item) > 1), None):
            shared = " and ".join(metric.name for metric in metrics if metric.priority == duplicate)
            yield f"metrics: {shared} have the same priority {duplicate}; number the ranked ones 1, 2, 3, …"
        if not priorities:
            yield "metrics: none has a priority, so nothing can be ranked; give the most important one priority: 1"
        ranked_by = [metric.name for metric in metrics if metric.priority > 0]
        for name in sorted(self.weights.keys() - set(ranked_by)):
            yield f"weights.{name}: is no metric that is ranked by; use {', '.join(ranked_by) or 'a metric with a priority'}"
        if negative := next((name for name, weight in self.weights.items() if not 0 <= weight < math.inf), None):
            yield f"weights.{negative}: is {self.weights[negative]:g}; give a number of zero or more"
        if self.weights and self.objective == "pareto":
            yield "objective: is pareto, and there are weights too; keep one of them"
        relative = [metric.name for metric in metrics if metric.goal and metric.goal.is_relative]
        if relative and self.baseline is None:
            yield f"baseline: is not set, and the goal of {relative[0]} is relative to it; name a candidate"
        quality = [metric.name for metric in metrics if metric.type in QUALITY_TYPES]
        if quality and (self.data is None or self.data.is_generated):
            found = "is not set" if self.data is None else "has neither a path nor a function"
            yield f"data: {found}, and {quality[0]} needs labelled samples; give data.path and data.labels"

    @property
    def flat_metrics(self) -> tuple[Metric, ...]:
        """One metric per number that is measured."""
        return flatten(self.metrics)
