"""Rankings and their reasons as rows and text, for the Prefect UI, the terminal and the report alike."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from packhouse.evaluation.records import MetricValue
from packhouse.evaluation.timing import TimingOutcome
from packhouse.metrics import Metric
from packhouse.packaging.job import PackagingJob
from packhouse.ranking import Ranked, Ranking, Unranked


def ranking_rows(job: PackagingJob, ranking: Ranking) -> list[dict[str, Any]]:
    """Return one row per candidate, ranked ones first: rank, candidate, accelerator, ranked metrics, why, other metrics."""
    metrics = by_priority(job.metrics)
    rows: list[dict[str, Any]] = []
    entries: list[Ranked | Unranked] = [*ranking.ranked, *ranking.unranked]
    for entry in entries:
        evaluation = job.evaluation_of(entry.candidate, entry.accelerator)
        values = [(metric, measured(evaluation.metrics.get(metric.name))) for metric in metrics]
        place, why = (entry.rank, entry.decided_by) if isinstance(entry, Ranked) else (entry.status, entry.reason)
        rows.append(
            {
                "rank": place,
                "candidate": job.candidate(entry.candidate).name,
                "accelerator": entry.accelerator,
                **{heading(metric): value for metric, value in values if metric.priority > 0},
                "why": why,
                **{heading(metric): value for metric, value in values if metric.priority < 0},
            }
        )
    return rows


def heading(metric: Metric) -> str:
    """Return the heading of a metric's column: its name, and its unit if it has one."""
    return f"{metric.name} ({metric.unit})" if metric.unit else metric.name


def decisions_markdown(job: PackagingJob) -> str:
    """Return the reasons for every place, per accelerator, as Markdown."""
    lines = []
    for spec, ranking in job.by_accelerator.items():
        lines += [f"## {spec}", ""]
        lines += [f"{item.rank}. **{job.candidate(item.candidate).name}**: {item.decided_by}" for item in ranking.ranked]
        lines += [f"- {job.candidate(item.candidate).name} is {item.status}: {item.reason}" for item in ranking.unranked]
        lines.append("")
    return "\n".join(lines)


def by_priority(metrics: Iterable[Metric]) -> list[Metric]:
    """Return the metrics in the order in which they decide; those that are not ranked by come last."""
    return sorted(metrics, key=lambda metric: metric.priority if metric.priority > 0 else math.inf)


def standing_rows(outcome: TimingOutcome, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one row per candidate of a tournament: its metrics with their intervals, and the number of runs."""
    return [
        {
            "candidate": names[item.candidate],
            **{f"{name} ({value.unit})": measured(value) for name, value in item.metrics.items()},
            "runs": max((value.n for value in item.metrics.values()), default=0),
            "failure": item.failure or "",
        }
        for item in outcome.candidates
    ]


def measured(value: MetricValue | None) -> str:
    """Return a measured number as people read it, with half of its interval's width; or that it is not known."""
    if value is None:
        return shown(None)
    if not value.is_supported:
        return f"not supported by n = {value.n}"
    if value.interval is None:
        return shown(value.value)
    low, high = value.interval
    margin = max(high - value.value, value.value - low)
    return f"{_to_the_margin(value.value, margin)} ± {margin:.2g}"


def _to_the_margin(value: float, margin: float) -> str:
    """Return a number with as many decimals as its margin of error makes sense of."""
    if margin <= 0 or not math.isfinite(margin):
        return shown(value)
    decimals = max(0, 1 - math.floor(math.log10(margin)))
    return f"{value:.{min(decimals, 12)}f}"


def shown(value: float | None) -> str:
    """Return a number as people read it: five digits, whole numbers in full; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.5g}"


def shown_bytes(value: float | None) -> str:
    """Return a size as people read it, in decimal units: ``85.4 kB``."""
    if value is None or not math.isfinite(value):
        return shown(value)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"


def reading(metric: Metric, value: MetricValue | None) -> str:
    """Return a value of a metric as it stands in a column that names the unit; sizes bring their own."""
    return shown_bytes(value.value if value else None) if metric.unit == "B" else measured(value)
