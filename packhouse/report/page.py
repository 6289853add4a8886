"""The report: one HTML file that needs nothing else.

`page.html.j2` lays out what the release says; here is what a template should not have to work out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from packhouse.accelerators import SessionSettings
from packhouse.artifacts import ArtifactStore
from packhouse.candidates import TensorInfo
from packhouse.evaluation.tournament import Summary
from packhouse.metrics import Goal, Metric
from packhouse.packaging.job import PackagingJob
from packhouse.ranking import Ranked
from packhouse.report.tables import by_priority, reading, shown, shown_bytes

if TYPE_CHECKING:  # packages have the grading in them, and the release has the packages
    from packhouse.release import Delivery, Release


@dataclass(frozen=True)
class Figure:
    """A plot, empty where there is nothing to plot; `asides` names the candidates it leaves out, by reason."""

    title: str
    svg: str
    asides: dict[str, list[str]]


def report_html(release: "Release", store: ArtifactStore) -> str:
    """Return the report of a release as one HTML file without scripts or external resources.

    `store` has the raw samples; those that it has lost are left out of the plots. Without matplotlib there are no plots.
    The same release, store and versions of the libraries give the same text.
    """
    return _rendered(release.job, release=release, figures=_figures(release.job, store))


def grading_html(job: PackagingJob) -> str:
    """Return what a report says of the grading, for a package: without plots, and of ranked candidates only.

    In which order candidates and accelerators were configured does not show.
    """
    return _rendered(_of_ranked(job), release=None, figures=None)


def _of_ranked(job: PackagingJob) -> PackagingJob:
    ranked = {item.candidate for item in job.overall.ranked}
    rankings = {
        spec: ranking.model_copy(update={"unranked": ()})
        for spec, ranking in sorted(job.by_accelerator.items())
        if ranking.ranked
    }
    evaluations = [item for item in job.evaluations if item.candidate in ranked and item.accelerator in rankings]
    return job.model_copy(
        update={
            "candidates": tuple(sorted((item for item in job.candidates if item.digest in ranked), key=lambda item: item.name)),
            "accelerators": tuple(
                sorted((item for item in job.accelerators if item.spec in rankings), key=lambda item: item.spec)
            ),
            "evaluations": tuple(sorted(evaluations, key=lambda item: (item.accelerator, item.candidate))),
            "tournaments": {spec: timing for spec, timing in sorted(job.tournaments.items()) if spec in rankings},
            "overall": job.overall.model_copy(update={"unranked": ()}),
            "by_accelerator": rankings,
            "baseline": job.baseline if job.baseline in ranked else None,
        }
    )


def _rendered(job: PackagingJob, release: "Release | None", figures: list[Figure] | None) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": shown, "size": shown_bytes, "tensor": tensor_text}
    environment.globals |= {
        "best_values": best_values,
        "delivery_texts": delivery_texts,
        "goal_text": goal_text,
        "headline": headline,
        "reading": reading,
        "settings_texts": settings_texts,
        "timing_text": timing_text,
    }
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        release=release,
        job=job,
        metrics=by_priority(job.metrics),
        figures=figures,
        computers=list(dict.fromkeys(item.computer for item in job.evaluations if item.computer)),
        runtimes=_runtimes(job),
    )


def headline(job: PackagingJob) -> str:
    """Return which candidate is best, in one sentence."""
    return f"{job.candidate(job.best.candidate).name} ranks first ({job.best.accelerator})"


def delivery_texts(delivery: "Delivery") -> list[str]:
    """Return what could not be checked of a package, what was found otherwise, and where it is, one text for each."""
    texts = [f"Caveat: {delivery.caveat}"] if delivery.caveat else []
    if validation := delivery.validation:
        environments = " and ".join(dict.fromkeys(model.environment for model in validation.models))
        count = len(validation.models)
        models = "its model gives" if count == 1 else f"its {count} models give"
        texts.append(f"Validated: {models} the outputs of the golden samples, in {environments}")
    if (score := delivery.score) and score.metrics:
        names = ", ".join(dict.fromkeys(item.metric for item in score.metrics))
        texts.append(f"Scored: {names} on {score.samples} samples as when the candidates were evaluated")
    if delivery.registration:
        texts.append(f"Registered: {', '.join(delivery.registration.places)}")
    return texts


def _runtimes(job: PackagingJob) -> list[tuple[str, str, str]]:
    """Return name and version of every runtime that was used, and what other libraries are in it."""
    found = [job.fingerprint, *(item.fingerprint for item in job.evaluations if item.fingerprint)]
    runtimes = [
        (item.runtime, item.runtime_version, ", ".join(f"{name} {version}" for name, version in item.libraries.items()))
        for item in found
    ]
    return list(dict.fromkeys(runtimes))


def best_values(job: PackagingJob, ranked: Sequence[Ranked]) -> dict[str, float]:
    """Return the best value of each metric by name, where the ranked candidates differ in it."""
    best = {}
    for metric in job.metrics:
        measured = [job.evaluation(item).metrics.get(metric.name) for item in ranked]
        values = [item.value for item in measured if item and item.is_supported and math.isfinite(item.value)]
        if len(set(values)) > 1:
            best[metric.name] = max(values) if metric.higher_is_better else min(values)
    return best


def goal_text(metric: Metric, goal: Goal | None) -> str:
    """Return what a metric must reach, in words."""
    if goal is None:
        return "–"
    amount = f"{shown(goal.value)} {'%' if goal.type.startswith('percent') else metric.unit}".rstrip()
    if goal.type.endswith("min-improvement"):
        return f"at least {amount} better than the baseline"
    if goal.type.endswith("max-degradation"):
        return f"at most {amount} worse than the baseline"
    return f"{'at least' if metric.higher_is_better else 'at most'} {amount}"


def settings_texts(settings: SessionSettings) -> list[str]:
    """Return what a session sets beyond the runtime's defaults, as ``option=value``."""
    options = settings.session_options.model_dump(exclude_none=True)
    extra = options.pop("extra_session_config", {})
    return [f"{name}={value}" for name, value in {**settings.provider_options, **options, **extra}.items()]


def timing_text(timing: Summary) -> str:
    """Return how a tournament went, in words."""
    verdict = {
        "decided": "the order by time is decided",
        "undecided": f"the order by time is not decided wholly: {timing.cause}",
        "unstable": f"the times are not to be relied on, and count as tied: {timing.cause}",
    }[timing.state]
    clock = "CPU time, since the CPU was shared with other work" if timing.clock == "cpu" else "wall time"
    return (
        f"Timed in {timing.rounds} rounds, {timing.dropped_rounds} of them dropped as disturbed, with {timing.sessions} "
        f"sessions each: {verdict}. Compared by {clock}; {timing.pinned}, {timing.scheduler}; load {timing.load:.1f}."
    )


def tensor_text(tensor: TensorInfo) -> str:
    """Return an input or output in one line, with ``?`` for dimensions that are dynamic and have no name."""
    return f"{tensor.name}: {tensor.dtype}[{', '.join('?' if size is None else str(size) for size in tensor.shape)}]"


def _figures(job: PackagingJob, store: ArtifactStore) -> list[Figure] | None:
    """Return the plots, or None where matplotlib, which comes with the extra `report`, is not installed."""
    if find_spec("matplotlib") is None:
        return None
    from packhouse.report import plots

    figures = []
    for spec in job.by_accelerator:
        timed = [entry.name for entry, _ in plots.timed(job, spec, store)]
        lost = [entry.name for entry in plots.lost(job, spec, store)]
        figures += [
            Figure(
                title=f"Trade-off on {spec}",
                svg=plots.tradeoff_svg(job, spec),
                asides={"Too many to name in the plot": [entry.name for entry in plots.in_tradeoff(job, spec)][plots.NAMED :]},
            ),
            Figure(
                title=f"Latency on {spec}",
                svg=plots.latency_svg(job, spec, store),
                asides={"Too many to draw": timed[plots.NAMED :], "Raw samples are no longer in the result storage": lost},
            ),
        ]
    return figures
