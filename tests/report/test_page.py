"""The report, from releases made by hand."""

import hashlib
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packhouse.accelerators import Accelerator, InferenceSettings, SessionOptions
from packhouse.artifacts import Artifact, ArtifactStore, measure_bytes
from packhouse.candidates import Candidate, TensorInfo
from packhouse.evaluation.fingerprint import Fingerprint
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.evaluation.tournament import Summary
from packhouse.metrics import Goal, Metric, Tolerance
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.job import PackagingJob
from packhouse.ranking import rank
from packhouse.release import Package, Release
from packhouse.report.page import goal_text, grading_html, report_html
from packhouse.report.tables import shown, shown_bytes
from packhouse.verification.score import Score, ScoredMetric
from packhouse.verification.validate import ValidatedModel, Validation
from tests.packaging_jobs import delivered, undelivered
from tests.timings import stored, timings_of

CPU = Accelerator()
NPU = Accelerator(device="npu", execution_provider="QNNExecutionProvider", provider_options={"backend_path": "libQnnHtp.so"})
VOID = {"meta", "link", "br", "img", "input", "hr"}


def metric(name: str, kind: str, priority: int = -1, **settings: Any) -> Metric:
    values = {"goal": None, "tolerance": Tolerance(), "higher_is_better": kind == "accuracy", **settings}
    sub_type = name.rsplit("-", 1)[1]
    return Metric.model_validate(
        {"name": name, "type": kind, "sub_type": sub_type, "priority": priority, "settings": {}, "function": None, **values}
    )


METRICS = (
    metric("accuracy-accuracy_score", "accuracy", 1, goal=Goal(type="threshold", value=0.9), tolerance=Tolerance(value=0.002)),
    metric("latency-p95", "latency", 2),
    metric("size-bytes", "size_on_disk"),
)


def candidate(name: str, **changes: Any) -> Candidate:
    content = Artifact(sha256=hashlib.sha256(name.encode()).hexdigest(), size_bytes=1000 * (len(name) + 20), crc32=0)
    image = TensorInfo(name="image", dtype="float32", shape=("batch", None, 28))
    return Candidate(
        name=name,
        digest=content.sha256,
        entry="model.onnx",
        files={"model.onnx": content},
        inputs=(image,),
        outputs=(TensorInfo(name="logits", dtype="float32", shape=("batch", 10)),),
        opset=17,
        external_data=(),
        settings=InferenceSettings(session_options=SessionOptions(intra_op_num_threads=2)),
        history={},
    ).model_copy(update=changes)


class Workshop:
    """Makes releases, with raw samples in a store."""

    def __init__(self, root: Path) -> None:
        self.store = ArtifactStore(root)
        self.random = np.random.default_rng(7)

    def evaluation(
        self, of: Candidate, accuracy: float, median_ms: float, on: Accelerator = CPU, outliers: int = 2
    ) -> Evaluation:
        samples = median_ms * 1e6 * self.random.lognormal(0, 0.12, 300)
        samples[:outliers] *= 30
        timings = timings_of(samples)
        values = {
            "accuracy-accuracy_score": MetricValue(value=accuracy, unit="", n=500),
            "latency-p95": MetricValue(value=float(np.percentile(samples, 95)) / 1e6, unit="ms", n=300),
            "size-bytes": MetricValue(value=float(of.size_bytes), unit="B", n=1),
        }
        return Evaluation(
            candidate=of.digest,
            accelerator=on.spec,
            metrics=values,
            placement={on.execution_provider: 41},
            startup_ms={"session_creation": 12.25, "first_inference": 3.5},
            peak_memory_bytes=83_000_000,
            samples=stored(timings, self.store),
            runtime_version="1.24.1",
        )

    def release(self, candidates: list[Candidate], evaluations: list[Evaluation], **changes: Any) -> Release:
        accelerators = tuple(item for item in (CPU, NPU) if any(done.accelerator == item.spec for done in evaluations))
        metrics = changes.pop("metrics", METRICS)
        job = PackagingJob(
            candidates=tuple(candidates),
            accelerators=accelerators,
            metrics=metrics,
            baseline=None,
            evaluations=tuple(evaluations),
            tournaments=changes.pop("tournaments", {}),
            overall=rank(evaluations, metrics),
            by_accelerator={
                item.spec: rank([done for done in evaluations if done.accelerator == item.spec], metrics)
                for item in accelerators
            },
            data=measure_bytes(b"data"),
            input_keys={"image": "input_0"},
            batch_size=32,
            fingerprint=Fingerprint(
                cpu_model="Example CPU",
                cpu_count=8,
                machine="x86_64",
                system="Linux",
                runtime="onnxruntime",
                runtime_version="1.24.1",
            ),
        )
        package = Package(type="Zipfile", name="best.zip", files={"best.zip": measure_bytes(b"zip" * 1000)})
        made = {
            "deliveries": (delivered(package),),
            "created_at": "2025-01-31T02:00:00+00:00",
            "flow_run": "run-1234",
            **changes,
        }
        return Release(job=job, configuration="0" * 64, **made)

    def usual(self, **changes: Any) -> Release:
        """Two ranked candidates, one that misses the goal, and one that failed."""
        small, large, wrong, broken = (candidate(name) for name in ("small", "large", "wrong", "broken"))
        evaluations = [
            self.evaluation(small, 0.95, 1.0),
            self.evaluation(large, 0.97, 3.0),
            self.evaluation(wrong, 0.5, 0.5),
            Evaluation(
                candidate=broken.digest, accelerator=CPU.spec, failure="2 of 41 nodes fell back to CPUExecutionProvider"
            ),
        ]
        return self.release([small, large, wrong, broken], evaluations, **changes)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "store")


class Page(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, and the text outside style sheets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]


def plots_of(text: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", text, re.DOTALL)


def plots_without_titles(text: str) -> list[str]:
    return [re.sub(r"<title>.*?</title>", "", plot) for plot in plots_of(text)]


def test_verdict_and_winner_come_before_everything_else(workshop: Workshop) -> None:
    release = workshop.usual()
    text = Page(report_html(release, workshop.store)).text
    first_table = text.index("Ranking on cpu-cpu")
    assert "large ranks first (cpu-cpu); made best.zip" in text[:first_table]
    assert "First on cpu-cpu large" in text[:first_table]


def test_ranking_shows_every_metric_with_unit_and_what_decided(workshop: Workshop) -> None:
    text = Page(report_html(workshop.usual(), workshop.store)).text
    assert "accuracy-accuracy_score more is better" in text
    assert "latency-p95 ms, less is better" in text
    assert "accuracy-accuracy_score: 0.97 against 0.95" in text
    assert "25 kB" in text


def test_unranked_candidates_are_shown_with_their_reason(workshop: Workshop) -> None:
    text = Page(report_html(workshop.usual(), workshop.store)).text
    assert "accuracy-accuracy_score is 0.5 and must be at least 0.9" in text
    assert "2 of 41 nodes fell back to CPUExecutionProvider" in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$x_^{$ &amp; %", "plain"])
def test_names_are_text_wherever_they_stand(workshop: Workshop, name: str) -> None:
    one, other = candidate(name, same_as=(name,)), candidate("other")
    release = workshop.release(
        [one, other],
        [workshop.evaluation(one, 0.97, 1), workshop.evaluation(other, 0.95, 2)],
        deliveries=(undelivered(name, "the disk is full"),),
    )
    text = report_html(release, workshop.store)
    page = Page(text)
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert name in page.text
    assert all(name in " ".join(Page(plot).texts) for plot in plots_of(text))


def test_page_needs_nothing_else(workshop: Workshop) -> None:
    text = report_html(workshop.usual(), workshop.store)
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in page.elements}
    links = [link for name in ("src", "href", "xlink:href") for link in page.attributes(name)]
    assert links
    assert all(link.startswith("#") for link in [*links, *re.findall(r"url\(([^)]*)\)", text)])
    assert "@import" not in text


def test_every_identifier_is_unique_and_every_reference_has_its_target(workshop: Workshop) -> None:
    text = report_html(two_accelerators(workshop), workshop.store)
    page = Page(text)
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    fragments = [*page.attributes("href"), *page.attributes("xlink:href"), *re.findall(r"url\((#[^)]*)\)", text)]
    targets = {fragment.removeprefix("#") for fragment in fragments} | set(page.attributes("aria-labelledby"))
    assert targets <= set(identifiers)


def test_same_release_gives_the_same_bytes(workshop: Workshop) -> None:
    release = workshop.usual()
    again = Release.model_validate_json(release.model_dump_json())
    assert report_html(release, workshop.store) == report_html(again, workshop.store)


def test_settings_of_matplotlib_do_not_show(workshop: Workshop) -> None:
    import matplotlib as mpl

    release = workshop.usual()
    usual = report_html(release, workshop.store)
    with mpl.rc_context({"svg.fonttype": "path", "axes.labelsize": 30, "savefig.bbox": "tight"}):
        assert report_html(release, workshop.store) == usual


def test_plots_name_candidates_in_text_and_take_their_colours_from_the_page(workshop: Workshop) -> None:
    plots = plots_of(report_html(workshop.usual(), workshop.store))
    assert len(plots) == 2
    for plot in plots:
        assert {"small", "large"} <= {text.removeprefix("1. ").removeprefix("2. ") for text in Page(plot).texts}
        assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", plot)) <= {"none"} | {
            f"var(--{name})" for name in ("ink", "muted", "line", "paper", "accent", "soft", "bad", "plain")
        }


def test_candidate_of_far_lower_quality_does_not_squeeze_the_others_together(workshop: Workshop) -> None:
    tradeoff = Page(plots_of(report_html(workshop.usual(), workshop.store))[0]).texts
    assert "wrong (0.5, off scale)" in tradeoff
    assert "0.96" in tradeoff


def test_reports_made_at_the_same_time_do_not_disturb_each_other(workshop: Workshop) -> None:
    releases = [workshop.usual(), two_accelerators(workshop)]
    alone = [report_html(release, workshop.store) for release in releases]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda release: report_html(release, workshop.store), releases * 3))
    assert together == alone * 3


def test_lost_samples_cost_a_row_of_the_plot_and_are_named(workshop: Workshop) -> None:
    release = workshop.usual()
    samples = release.job.evaluations[0].samples
    assert samples is not None
    workshop.store.path(samples.sha256).unlink()
    text = report_html(release, workshop.store)
    assert "Raw samples are no longer in the result storage: small." in Page(text).text
    latency = Page(plots_of(text)[1]).texts
    assert "2. small" not in latency
    assert "1. large" in latency


def test_samples_that_are_no_array_do_not_break_the_page(workshop: Workshop) -> None:
    release = workshop.usual()
    evaluations = [
        item.model_copy(update={"samples": workshop.store.put_bytes(b"no array")}) for item in release.job.evaluations
    ]
    broken = workshop.release(list(release.job.candidates), evaluations)
    assert "Nothing to plot" in Page(report_html(broken, workshop.store)).text


def test_outliers_do_not_stretch_the_latency_axis(workshop: Workshop) -> None:
    plot = plots_of(report_html(workshop.usual(), workshop.store))[1]
    texts = Page(plot).texts
    assert any(re.fullmatch(r"2 not shown, max \d+(\.\d+)?", text) for text in texts)
    assert "50" not in texts


def test_sixty_candidates_get_a_row_each_and_only_the_best_twelve_a_name_or_rank_in_a_plot(workshop: Workshop) -> None:
    candidates = [candidate(f"variant-{index:02}") for index in range(60)]
    evaluations = [workshop.evaluation(item, 0.9 + index / 1000, 1 + index / 10) for index, item in enumerate(candidates)]
    release = workshop.release(candidates, evaluations)
    text = report_html(release, workshop.store)
    best = {release.job.candidate(item.candidate).name for item in release.job.overall.ranked[:12]}
    tradeoff, latency = ([word for word in Page(plot).texts if word.strip()] for plot in plots_without_titles(text))
    assert {word for word in tradeoff if word.startswith("variant")} <= best
    assert release.job.candidate(release.job.best.candidate).name in tradeoff
    assert {word.split(". ")[1] for word in latency if ". variant" in word} == best
    assert "Too many to name in the plot: 48 candidates" in Page(text).text
    assert Page(text).text.count("variant-00") >= 4
    assert len(text) < 500_000


def test_candidates_too_close_to_be_named_are_numbered_by_rank(workshop: Workshop) -> None:
    candidates = [candidate(f"variant-with-quite-a-long-name-{index:02}") for index in range(20)]
    evaluations = [workshop.evaluation(item, 0.95, 1.0) for item in candidates]
    tradeoff = Page(plots_without_titles(report_html(workshop.release(candidates, evaluations), workshop.store))[0]).texts
    assert "numbers are ranks" in tradeoff
    assert {"10", "11", "12"} & set(tradeoff)


def two_accelerators(workshop: Workshop) -> Release:
    small, large = candidate("small"), candidate("large")
    evaluations = [
        workshop.evaluation(small, 0.96, 2.0),
        workshop.evaluation(large, 0.97, 6.0),
        workshop.evaluation(small, 0.96, 0.2, on=NPU),
        Evaluation(candidate=large.digest, accelerator=NPU.spec, failure="the session could not be created: out of memory"),
    ]
    return workshop.release([small, large], evaluations)


def test_each_accelerator_has_a_winner_and_all_are_ranked_together(workshop: Workshop) -> None:
    text = Page(report_html(two_accelerators(workshop), workshop.store)).text
    assert "First on cpu-cpu large" in text
    assert "First on npu-qnn small" in text
    assert "Ranking across all accelerators" in text
    assert "backend_path=libQnnHtp.so" in text


def test_one_accelerator_is_not_ranked_twice(workshop: Workshop) -> None:
    assert "across all accelerators" not in Page(report_html(workshop.usual(), workshop.store)).text


def test_packages_show_type_size_and_the_full_digest_of_every_file(workshop: Workshop) -> None:
    model, card = measure_bytes(b"m" * 1_234_567), measure_bytes(b"c")
    folder = Package(type="MLflowModel", name="best", files={"best/model.onnx": model, "best/MLmodel": card})
    page = Page(report_html(workshop.usual(deliveries=(delivered(folder),)), workshop.store))
    assert "best MLflowModel 1.23 MB 2 files" in page.text
    assert {model.sha256, card.sha256} <= set(page.attributes("title"))
    assert model.sha256 in page.text


def test_packages_show_what_was_found_in_them_and_where_they_are(workshop: Workshop) -> None:
    model = {"model_path": "model.onnx", "accelerator": CPU.spec}
    environment = "an environment of the package's own wheels"
    ran = ValidatedModel(**model, samples=4, environment=environment, placement={"CPUExecutionProvider": 8}, difference=0.0)
    scored = ScoredMetric(**model, metric="accuracy-f1", evaluated=0.9, packaged=0.9, tolerance=0.0009)
    package = Package(type="Zipfile", name="best.zip", files={"best.zip": measure_bytes(b"zip")})
    delivery = delivered(package).model_copy(
        update={
            "validation": Validation(files=12, models=(ran, ran)),
            "score": Score(samples=90, metrics=(scored, scored)),
        }
    )
    text = Page(report_html(workshop.usual(deliveries=(delivery,)), workshop.store)).text
    assert (
        "Validated: its 2 models give the outputs of the golden samples, in an environment of the package's own wheels" in text
    )
    assert "Scored: accuracy-f1 on 90 samples as when the candidates were evaluated" in text
    assert "Registered: /packages/best.zip" in text


def test_a_package_that_could_not_be_checked_wholly_shows_the_caveat(workshop: Workshop) -> None:
    caveat = Caveat(what="not built", reason="no builder works here", remedy="install one")
    package = Package(type="Dockerfile", name="best", files={"best/Dockerfile": measure_bytes(b"FROM scratch")})
    delivery = delivered(package).model_copy(update={"validation": Validation(files=1, models=(), caveat=caveat)})
    release = workshop.usual(deliveries=(delivery,))
    text = Page(report_html(release, workshop.store)).text
    assert "Caveat: not built: no builder works here; install one" in text
    assert "made best (not built)" in release.verdict
    assert delivery.sentence == "best is made, and not built: no builder works here; install one"


def test_grading_in_a_package_has_the_ranked_candidates_and_neither_times_of_the_run_nor_packages(workshop: Workshop) -> None:
    text = grading_html(workshop.usual().job)
    page = Page(text)
    assert "large ranks first (cpu-cpu)" in page.text
    assert "accuracy-accuracy_score: 0.97 against 0.95" in page.text
    assert not [word for word in ("wrong", "broken", "run-1234", "2025-01-31", "Packages", "best.zip") if word in page.text]
    assert not plots_of(text)


def test_failures_are_in_the_verdict_and_in_the_packages(workshop: Workshop) -> None:
    deliveries = (undelivered("best", "the server answered 503", "register"), undelivered("other.zip", "the disk is full"))
    page = Page(report_html(workshop.usual(deliveries=deliveries), workshop.store))
    failures = (
        "best was made and validated, and could not be registered: the server answered 503",
        "other.zip was not made: the disk is full",
    )
    assert "Incomplete" in page.text
    assert all(page.text.count(failure) >= 2 for failure in failures)
    assert "No package was made." in page.text


def test_release_without_any_ranked_candidate_says_why(workshop: Workshop) -> None:
    broken = candidate("broken")
    failed = Evaluation(candidate=broken.digest, accelerator=CPU.spec, failure="the session could not be created")
    text = Page(report_html(workshop.release([broken], [failed], deliveries=()), workshop.store)).text
    assert "no candidate could be ranked on cpu-cpu: the session could not be created" in text
    assert "First on cpu-cpu none" in text
    assert "Nothing to plot" in text


def test_metrics_without_a_number_are_a_dash_and_do_not_break_the_plots(workshop: Workshop) -> None:
    one, other = candidate("one"), candidate("other")
    evaluations = [workshop.evaluation(one, math.nan, 1.0), workshop.evaluation(other, 0.95, 2.0)]
    text = report_html(workshop.release([one, other], evaluations), workshop.store)
    assert "no finite value for accuracy-accuracy_score" in text
    assert "nan" not in Page(text).text.lower().split()
    assert shown(None) == shown(math.nan) == "–"
    assert shown(math.inf) == "∞"


def test_single_metric_leaves_out_the_trade_off(workshop: Workshop) -> None:
    one = candidate("one")
    release = workshop.release([one], [workshop.evaluation(one, 0.95, 1.0)], metrics=METRICS[1:2])
    text = report_html(release, workshop.store)
    assert len(plots_of(text)) == 1
    assert "Trade-off on cpu-cpu Nothing to plot" in Page(text).text


def test_without_matplotlib_the_page_says_what_adds_plots(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = report_html(workshop.usual(), workshop.store)
    assert plots_of(text) == []
    assert "pip install 'packhouse[report]' adds plots to this report." in Page(text).text
    assert "large ranks first" in text


def test_tables_have_captions_and_their_headings_a_scope(workshop: Workshop) -> None:
    page = Page(report_html(two_accelerators(workshop), workshop.store))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 3
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        (None, "–"),
        (Goal(type="threshold", value=5), "at most 5 ms"),
        (Goal(type="percent-min-improvement", value=20), "at least 20 % better than the baseline"),
        (Goal(type="max-degradation", value=0.5), "at most 0.5 ms worse than the baseline"),
    ],
)
def test_goals_are_told_in_words(goal: Goal | None, text: str) -> None:
    assert goal_text(METRICS[1], goal) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(None, "–"), (0, "0 B"), (999, "999 B"), (85_398, "85.4 kB"), (999_900, "1 MB"), (5e12, "5 TB")]
)
def test_sizes_are_told_in_the_unit_that_suits_them(size_bytes: float | None, text: str) -> None:
    assert shown_bytes(size_bytes) == text


def test_goal_is_drawn_unless_it_is_far_away(workshop: Workshop) -> None:
    one, other = candidate("one"), candidate("other")
    far = workshop.release([one, other], [workshop.evaluation(one, 0.991, 1), workshop.evaluation(other, 0.992, 2)])
    assert "goal: at least 0.9" in Page(plots_of(report_html(workshop.usual(), workshop.store))[0]).texts
    assert "goal: at least 0.9" not in Page(plots_of(report_html(far, workshop.store))[0]).texts


@pytest.mark.parametrize(
    ("timing", "text"),
    [
        (Summary(state="decided"), "the order by time is decided. Compared by wall time"),
        (
            Summary(state="undecided", cause="time was up", clock="cpu"),
            "is not decided wholly: time was up. Compared by CPU time",
        ),
        (Summary(state="unstable", cause="other work"), "not to be relied on, and count as tied: other work."),
        (Summary(state="decided", rounds=40, dropped={"a": 2, "b": 3}, sessions=3), "Timed in 40 rounds, 5 of them dropped"),
    ],
)
def test_how_timing_went_is_told_on_the_page(workshop: Workshop, timing: Summary, text: str) -> None:
    page = Page(report_html(workshop.usual(tournaments={CPU.spec: timing}), workshop.store))
    assert text in page.text
    assert ("aside doubtful" in page.attributes("class")) is (timing.state != "decided")
