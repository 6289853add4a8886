"""Plots of a release as SVG elements to stand in an HTML page. This module needs matplotlib.

Text stays text, and every colour is a CSS variable of the page, so that a plot follows its light and dark mode: matplotlib
draws with the stand-ins in `COLOURS`, and `_for_page` replaces them.
"""

import html
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from threading import Lock
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from packhouse.artifacts import ArtifactStore
from packhouse.errors import ArtifactError
from packhouse.evaluation.latency import NS_PER_MS, Timings, needed_runs
from packhouse.evaluation.records import Evaluation
from packhouse.metrics import QUALITY_TYPES, TIMED_TYPES, Metric
from packhouse.packaging.job import PackagingJob
from packhouse.report.labels import place_texts
from packhouse.report.tables import by_priority, shown

NAMED = 12  # candidates that a plot names, and the rows of a latency plot
RUG_LINES = 120  # samples drawn per candidate, evenly spaced in rank, so that their distribution is kept
NEAR = 3.0  # spans of the ranked candidates' quality within which others are drawn to scale
LOG_FROM = 8.0  # ratio of the largest to the smallest value from which an axis is logarithmic

Samples = NDArray[np.float64]

COLOURS = {
    name: f"#01020{index}" for index, name in enumerate(("ink", "muted", "line", "paper", "accent", "soft", "bad", "plain"))
}
INK, MUTED, LINE, PAPER, ACCENT, SOFT, BAD, PLAIN = COLOURS.values()
TRADEOFF_IN = (6.2, 4.0)
FONT_PT, SMALL_PT = 9.0, 8.0
CHARACTER = 0.6  # mean width of a character in font sizes, on the wide side
NAME_LENGTH = 26
ASIDE_PT = 10  # distance of what stands beside a row
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "packhouse",
    "text.parse_math": False,
    "font.size": FONT_PT,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": SMALL_PT,
}


@dataclass(frozen=True)
class Mark:
    """What a candidate's status looks like: shape and fill tell them apart without colour."""

    meaning: str
    marker: str
    size: float
    face: str
    edge: str

    def draw(self, axes: Axes, x: Sequence[float], y: Sequence[float], gid: str | None = None) -> Line2D:
        """Draw the mark at the points and return it."""
        (line,) = axes.plot(x, y, self.marker, markersize=self.size, clip_on=False, gid=gid)
        line.set(markerfacecolor=self.face, markeredgecolor=self.edge, markeredgewidth=1.2 if self.face == PAPER else 0.8)
        return line


MARKS = {
    "first": Mark("ranked first", "*", 16, ACCENT, PAPER),
    "ranked": Mark("ranked", "o", 8, ACCENT, PAPER),
    "rejected": Mark("missed a goal", "X", 7, PAPER, BAD),
    "unranked": Mark("not ranked", "D", 6, PAPER, PLAIN),
}
_LOCK = Lock()  # matplotlib's settings are global


@dataclass(frozen=True)
class Entry:
    """A candidate on an accelerator as a plot shows it; `status` is a key of `MARKS`, or ``failed``."""

    name: str
    status: str
    rank: int | None
    evaluation: Evaluation

    @property
    def short_name(self) -> str:
        """The name, shortened in its middle: names of variants differ at their ends."""
        name, half = " ".join(self.name.split()), NAME_LENGTH // 2
        return name if len(name) <= NAME_LENGTH else f"{name[: half - 1]}…{name[-half:]}"

    def value(self, metric: Metric) -> float:
        """Return the value of a metric, NaN where there is none that is known."""
        measured = self.evaluation.metrics.get(metric.name)
        return measured.value if measured and measured.is_supported else math.nan


@dataclass(frozen=True)
class Axis:
    """One direction of a plot: its ends, and whether it is logarithmic."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def over(cls, values: Sequence[float], low_pad: float = 0.08, high_pad: float = 0.08, may_be_log: bool = True) -> "Axis":
        """Span `values` with padding in parts of the span; logarithmic where they are far apart."""
        low, high = min(values), max(values)
        if may_be_log and low > 0 and high / low >= LOG_FROM:
            span = math.log(high / low)
            return cls(low / math.exp(low_pad * span), high * math.exp(high_pad * span), is_log=True)
        span = high - low or abs(high) / 10 or 1.0
        return cls(low - low_pad * span, high + high_pad * span, is_log=False)

    def clipped(self, value: float) -> float:
        """Return the value, or a place near the end of the axis that it lies beyond."""
        margin = 0.04 * (self.high - self.low)
        return value if self.low <= value <= self.high else self.low + margin if value < self.low else self.high - margin

    def ticks(self) -> list[float]:
        """Return about six round numbers within the axis."""
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks = [step * 10.0**decade for decade in decades for step in ((1, 2, 5) if len(decades) <= 4 else (1,))]
        else:
            ticks = list(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high))
        return [tick for tick in ticks if self.low <= tick <= self.high]


def entries(job: PackagingJob, spec: str) -> list[Entry]:
    """Return the candidates on an accelerator: ranked ones first, then those that missed a goal, then the others."""
    ranking = job.by_accelerator[spec]
    places = [(item.candidate, "first" if item.rank == 1 else "ranked", item.rank) for item in ranking.ranked]
    others = sorted(ranking.unranked, key=lambda item: item.status != "rejected")
    return [
        Entry(job.candidate(digest).name, status, rank, job.evaluation_of(digest, spec))
        for digest, status, rank in [*places, *((item.candidate, item.status, None) for item in others)]
    ]


def tradeoff_axes(job: PackagingJob) -> tuple[Metric, Metric] | None:
    """Return the metrics of the trade-off plot: latency (else throughput), and the quality metric of highest priority.

    Without a quality metric, the first other one by priority takes its place; without two metrics there is no plot.
    """
    metrics = by_priority(job.metrics)
    speed = next((metric for kind in ("latency", "throughput") for metric in metrics if metric.type == kind), None)
    others = [metric for metric in metrics if metric.type not in TIMED_TYPES]
    quality = next((metric for metric in others if metric.type in QUALITY_TYPES), None) or next(iter(others), None)
    return (speed, quality) if speed and quality else None


def in_tradeoff(job: PackagingJob, spec: str) -> list[Entry]:
    """Return the candidates that have a place in the trade-off plot; the first `NAMED` of them are named in it."""
    axes = tradeoff_axes(job)
    if axes is None:
        return []
    return [
        entry
        for entry in entries(job, spec)
        if entry.status in MARKS and all(math.isfinite(entry.value(metric)) for metric in axes)
    ]


def tradeoff_svg(job: PackagingJob, spec: str) -> str:
    """Plot quality over latency, one mark per candidate on an accelerator; an empty text where there is nothing to plot."""
    metrics, points = tradeoff_axes(job), in_tradeoff(job, spec)
    if metrics is None or not points:
        return ""
    speed, quality = metrics
    x, y = Axis.over([point.value(speed) for point in points]), _quality_axis(job, spec, quality, points)
    places = [(point.value(speed), y.clipped(point.value(quality))) for point in points]

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.12, 0.14, 0.85, 0.74))
        _set_x(axes, x)
        axes.set_ylim(y.low, y.high)
        axes.yaxis.set_major_locator(FixedLocator(y.ticks()))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick_text))
        axes.set_xlabel(_axis_title(speed), color=MUTED, loc="right")
        _write(axes, (0, 1), (0, 8), _axis_title(quality))
        _draw_goal(axes, job, spec, speed, vertical=True)
        _draw_goal(axes, job, spec, quality, vertical=False)
        for index, (point, place) in reversed(list(enumerate(zip(points, places, strict=True)))):
            MARKS[point.status].draw(axes, place[:1], place[1:], f"point-{index}")
        _draw_texts(axes, places, [_texts(point, quality, y) for point in points[:NAMED]])
        _draw_legend(axes, [kind for kind in MARKS if any(point.status == kind for point in points)])

    titles = {
        f"point-{index}": f"{point.name} ({point.status}): {speed.name} {shown(point.value(speed))} {speed.unit}, "
        f"{quality.name} {shown(point.value(quality))} {quality.unit}".rstrip()
        for index, point in enumerate(points)
    }
    return _svg(f"tradeoff-{spec}", TRADEOFF_IN, draw, titles)


def read_samples(evaluation: Evaluation, store: ArtifactStore) -> Samples | None:
    """Return the latencies of undisturbed rounds in ms; None if there are none, no longer in the store, or unreadable."""
    if evaluation.samples is None:
        return None
    try:
        samples = Timings.load(store.path(evaluation.samples.sha256)).of_kept_rounds().wall_ns
    except (ArtifactError, OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return samples.ravel() / NS_PER_MS if samples.size else None


def timed(job: PackagingJob, spec: str, store: ArtifactStore) -> list[tuple[Entry, Samples]]:
    """Return the candidates on an accelerator whose raw latencies there are, with these."""
    read = ((entry, read_samples(entry.evaluation, store)) for entry in entries(job, spec))
    return [(entry, samples) for entry, samples in read if samples is not None]


def lost(job: PackagingJob, spec: str, store: ArtifactStore) -> list[Entry]:
    """Return the candidates on an accelerator that were timed, but whose raw latencies cannot be read any more."""
    was_timed = (entry for entry in entries(job, spec) if entry.evaluation.samples is not None)
    return [entry for entry in was_timed if read_samples(entry.evaluation, store) is None]


def latency_svg(job: PackagingJob, spec: str, store: ArtifactStore) -> str:
    """Plot how the raw latencies of the best candidates on an accelerator are distributed; an empty text without any.

    One row per candidate: a line per sample, a bar from the first to the third quartile, a tick at the median. Far outliers do
    not stretch the axis; they are counted beside the row.
    """
    rows = timed(job, spec, store)[:NAMED]
    if not rows:
        return ""
    x = Axis.over([end for _, samples in rows for end in _usual_range(samples)], low_pad=0.04, high_pad=0.04)
    names = [f"{entry.rank}. {entry.short_name}" if entry.rank else entry.short_name for entry, _ in rows]
    width, top, bottom, row = TRADEOFF_IN[0] * 72, 26, 40, 27
    height = top + bottom + row * len(rows)
    left = 20 + max(len(name) for name in names) * FONT_PT * CHARACTER
    right = 108

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((left / width, bottom / height, (width - left - right) / width, row * len(rows) / height))
        _set_x(axes, x)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.yaxis.set_major_locator(FixedLocator(list(range(len(rows)))))
        axes.set_yticklabels(names, fontsize=FONT_PT, color=INK)
        axes.tick_params(axis="y", length=0, pad=8)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("latency of a run (ms), less is better", color=MUTED, loc="right")
        _write(axes, (0, 1), (8 - left, 8), "line: a run · bar: middle half · tick: median")
        _write(axes, (1, 1), (ASIDE_PT, 8), "p50 · p95 (ms)")
        for index, (entry, samples) in enumerate(rows):
            _draw_row(axes, index, samples, entry.status, x)

    titles = {
        f"row-{index}": f"{entry.name} ({entry.status}): {len(samples)} runs, {shown(float(samples.min()))} to "
        f"{shown(float(samples.max()))} ms"
        for index, (entry, samples) in enumerate(rows)
    }
    return _svg(f"latency-{spec}", (width / 72, height / 72), draw, titles)


def _quality_axis(job: PackagingJob, spec: str, metric: Metric, points: Sequence[Entry]) -> Axis:
    """Span the ranked candidates' values, with the goal and the other candidates where these are not far away."""
    values = [point.value(metric) for point in points]
    ranked = [point.value(metric) for point in points if point.status in ("first", "ranked")]
    reach = NEAR * (max(ranked) - min(ranked)) if ranked else 0.0
    if (goal := _goal(job, spec, metric)) is not None:
        values.append(goal)
    near = [value for value in values if not reach or min(ranked) - reach <= value <= max(ranked) + reach]
    return Axis.over(near, may_be_log=False)


def _texts(point: Entry, metric: Metric, axis: Axis) -> list[str]:
    """Return what may be written at a point: its name, with the value if that is beyond the axis, or just its rank."""
    value = point.value(metric)
    if axis.clipped(value) != value:
        return [f"{point.short_name} ({shown(value)}, off scale)"]
    return [point.short_name] if point.rank in (None, 1) else [point.short_name, str(point.rank)]


def _goal(job: PackagingJob, spec: str, metric: Metric) -> float | None:
    """Return the value that a metric must reach on an accelerator, or None without a goal or a baseline to go by."""
    if metric.goal is None:
        return None
    if not metric.goal.is_relative:
        return metric.goal.target(metric.higher_is_better, None)
    found = (item for item in job.evaluations if item.accelerator == spec and item.candidate == job.baseline)
    reference = next((item.values.get(metric.name, math.nan) for item in found), math.nan)
    return metric.goal.target(metric.higher_is_better, reference) if math.isfinite(reference) else None


def _draw_goal(axes: Axes, job: PackagingJob, spec: str, metric: Metric, vertical: bool) -> None:
    goal = _goal(job, spec, metric)
    low, high = axes.get_xlim() if vertical else axes.get_ylim()
    if goal is None or not low < goal < high:
        return
    (axes.axvline if vertical else axes.axhline)(goal, color=BAD, linewidth=1, linestyle=(0, (4, 3)))
    text = f"goal: {'at least' if metric.higher_is_better else 'at most'} {shown(goal)}"
    if vertical:
        place: dict[str, Any] = {
            "xy": (goal, 1),
            "xycoords": axes.get_xaxis_transform(),
            "xytext": (-3, -2),
            "va": "top",
            "rotation": 90,
        }
    else:
        place = {"xy": (1, goal), "xycoords": axes.get_yaxis_transform(), "xytext": (-2, -3), "va": "top"}
    axes.annotate(text, textcoords="offset points", ha="right", rotation_mode="anchor", color=BAD, fontsize=SMALL_PT, **place)


def _draw_texts(axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[Sequence[str]]) -> None:
    """Write one of the texts for each of the first points beside it."""
    marks = [(float(x), float(y)) for x, y in axes.transData.transform(points)]
    sizes = [[(len(text) * SMALL_PT * CHARACTER, SMALL_PT * 1.25) for text in choices] for choices in texts]
    frame = axes.get_window_extent().padded(6)
    places = place_texts(marks, sizes, (frame.x0, frame.y0, frame.x1, frame.y1))
    if any(place and place.choice for place in places):
        _write(axes, (0, 0), (0, -29), "numbers are ranks")
    to_data = axes.transData.inverted().transform
    for mark, choices, place in zip(marks, texts, places, strict=False):
        if place is None:
            continue
        if place.leader_end:
            (x0, y0), (x1, y1) = to_data([mark, place.leader_end])
            axes.plot([x0, x1], [y0, y1], color=MUTED, linewidth=0.6, zorder=1.5)
        left, bottom, right, top = place.box
        is_right = (left + right) / 2 >= mark[0]
        x, y = to_data((left if is_right else right, (bottom + top) / 2 - SMALL_PT * 0.36))
        axes.text(x, y, choices[place.choice], fontsize=SMALL_PT, ha="left" if is_right else "right", va="baseline")


def _draw_legend(axes: Axes, kinds: Sequence[str]) -> None:
    """Say above the plot, on the right, what the marks mean."""
    handles = [MARKS[kind].draw(axes, [], []) for kind in kinds]
    axes.legend(
        handles,
        [MARKS[kind].meaning for kind in kinds],
        loc="lower right",
        bbox_to_anchor=(1.01, 1.08),
        ncols=len(kinds),
        handletextpad=0.1,
        columnspacing=1.2,
        borderaxespad=0,
    )


def _usual_range(samples: Samples) -> tuple[float, float]:
    """Return the ends of the samples without those more than three interquartile ranges from the quartiles.

    Nine in ten samples are always within.
    """
    p5, p25, p75, p95 = np.percentile(samples, (5, 25, 75, 95))
    fence = 3 * (p75 - p25)
    usual = samples[(samples >= min(p25 - fence, p5)) & (samples <= max(p75 + fence, p95))]
    return float(usual.min()), float(usual.max())


def _draw_row(axes: Axes, index: int, samples: Samples, status: str, x: Axis) -> None:
    colour = ACCENT if status in ("first", "ranked") else BAD if status == "rejected" else PLAIN
    face = colour if status in ("first", "ranked") else PAPER
    ordered = np.sort(samples)
    picked = ordered[np.linspace(0, len(ordered) - 1, min(RUG_LINES, len(ordered))).round().astype(int)]
    visible = picked[(picked >= x.low) & (picked <= x.high)]
    rug_x = np.column_stack([visible, visible, np.full(len(visible), np.nan)]).ravel()
    rug_y = np.tile([index - 0.3, index + 0.3, np.nan], len(visible))
    axes.plot(rug_x, rug_y, color=SOFT, linewidth=0.7, zorder=2, gid=f"row-{index}")
    p25, p50, p75, p95 = (float(value) for value in np.percentile(samples, (25, 50, 75, 95)))
    axes.barh(index, p75 - p25, left=p25, height=0.32, facecolor=face, edgecolor=colour, linewidth=1.2, zorder=3)
    axes.plot([p50, p50], [index - 0.36, index + 0.36], color=INK, linewidth=2, zorder=4, solid_capstyle="butt")
    beyond = int(np.count_nonzero((samples < x.low) | (samples > x.high)))
    aside: dict[str, Any] = {"xy": (1, index), "xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    known = f"{p95:.3g}" if len(samples) >= needed_runs("p95") else "?"
    axes.annotate(f"{p50:.3g} · {known}", xytext=(ASIDE_PT, 1 if beyond else -3), fontsize=FONT_PT, **aside)
    if beyond:
        axes.annotate(f"{beyond} not shown, max {ordered[-1]:.3g}", xytext=(ASIDE_PT, -9), fontsize=7.5, color=MUTED, **aside)


def _set_x(axes: Axes, axis: Axis) -> None:
    if axis.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(axis.low, axis.high)
    axes.xaxis.set_major_locator(FixedLocator(axis.ticks()))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick_text))


def _tick_text(value: float, _: int | None = None) -> str:
    return f"{value:.10g}"


def _axis_title(metric: Metric) -> str:
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.name}{unit}, {'more' if metric.higher_is_better else 'less'} is better"


def _write(axes: Axes, corner: tuple[int, int], shift_pt: tuple[float, float], text: str) -> None:
    place: dict[str, Any] = {"xy": corner, "xycoords": "axes fraction", "xytext": shift_pt, "textcoords": "offset points"}
    axes.annotate(text, **place, color=MUTED, fontsize=SMALL_PT)


def _svg(name: str, size_in: tuple[float, float], draw: Callable[[Figure], None], titles: dict[str, str]) -> str:
    text = StringIO()
    with _LOCK, style.context(["default", STYLE]):
        figure = Figure(figsize=size_in, dpi=72)
        draw(figure)
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _for_page(text.getvalue(), name, titles)


def _for_page(svg: str, name: str, titles: dict[str, str]) -> str:
    """Return the svg element for a page: identifiers of its own, the page's colours and font, titles shown on hover."""
    variables = {colour: f"var(--{variable})" for variable, colour in COLOURS.items()}

    def rewrite(match: re.Match[str]) -> str:
        tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", match[0])
        tag = re.sub(r"#01020\d", lambda colour: variables[colour[0]], tag)
        tag = re.sub(r"font-family: [^;\"]*;?\s*| xmlns(:xlink)?=\"[^\"]*\"", "", tag)
        gid = re.match(r'<g id="([^"]+)"', match[0])
        return f"{tag}<title>{html.escape(titles[gid[1]])}</title>" if gid and gid[1] in titles else tag

    element = svg[svg.index("<svg") :]
    return re.sub(r"<[^>]+>", rewrite, element).strip()
