"""Comparisons by what lies in the artifact store: in pairs where candidates did the same work, by intervals where not."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.comparison import Effect, compare_intervals, compare_values
from packhouse.evaluation.data import Dataset
from packhouse.evaluation.evidence import Evidence
from packhouse.evaluation.latency import Timings
from packhouse.evaluation.pairs import LOOKS, paired_effect
from packhouse.evaluation.quality import quality, quality_difference_interval
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.metrics import Metric, MetricType, Tolerance
from packhouse.ranking import rank
from packhouse.statistics import paired_share_interval, share_interval, shared_confidence
from tests.timings import stored, timings_of

MS = 1e6
N = 400
LABELS = np.random.default_rng(0).integers(0, 2, N)
NOISE = np.random.default_rng(1).lognormal(0, 0.3, (40, 1))


def metric(name: str, kind: MetricType, sub_type: str, *, priority: int = 1, **changes: Any) -> Metric:
    values = {
        "higher_is_better": kind in {"accuracy", "throughput"},
        "goal": None,
        "tolerance": Tolerance() if kind == "accuracy" else Tolerance(value=0.02, is_relative=True),
        "settings": {},
        "function": None,
        **changes,
    }
    return Metric(name=name, type=kind, sub_type=sub_type, priority=priority, **values)


P50, P90 = metric("latency", "latency", "p50", priority=2), metric("tail", "latency", "p90", priority=3)
RATE = metric("rate", "throughput", "avg", priority=4)
TIMED = [P50, P90, RATE]
ACCURACY, F1, AUC = (metric(name, "accuracy", name) for name in ("accuracy", "f1", "roc_auc"))
JUDGED = [ACCURACY, F1, AUC]
SIZE = metric("size", "size_on_disk", "bytes")


def scores(seed: int, sigma: float) -> Any:
    """Return scores of class 1: the labels with noise that is in part that of every candidate."""
    shared, own = np.random.default_rng(2).normal(0, 0.4, N), np.random.default_rng(seed).normal(0, sigma, N)
    return LABELS + shared + own


def runs(seed: int, factor: float) -> Timings:
    return timings_of(factor * MS * NOISE * np.random.default_rng(seed).lognormal(0, 0.05, (40, 8)))


class Bench:
    """Makes evaluations with everything that they speak of in a store."""

    def __init__(self, root: Path) -> None:
        self.store = ArtifactStore(root)
        self.data = self._stored_npz(LABELS)

    def _stored_npz(self, labels: Any) -> Artifact:
        with self.store.staging() as scratch:
            Dataset({"x": np.zeros((N, 1), np.float32)}, labels, np.arange(N)).save(scratch / "data.npz")
            return self.store.adopt(scratch / "data.npz")

    @property
    def evidence(self) -> Evidence:
        return Evidence(self.store, self.data)

    def timed(self, candidate: str, timings: Timings, **changes: Any) -> Evaluation:
        values = {of.name: timings.value(of, changes.get("timing_batch_size", 1)) for of in TIMED}
        made = {"samples": stored(timings, self.store), "tournament": "timing-1", "accelerator": "cpu-cpu", **changes}
        return Evaluation(candidate=candidate, metrics=values, **made)

    def judged(self, candidate: str, output: Any, accelerator: str = "cpu-cpu") -> Evaluation:
        outputs = {"y": np.asarray(output)}
        found = {of.name: quality(of, outputs, LABELS) for of in JUDGED}
        values = {
            name: MetricValue(value=value, unit="", n=N, interval=share_interval(round(N * value), N))
            for name, value in found.items()
        }
        with self.store.staging() as scratch:
            np.savez(scratch / "outputs.npz", **outputs)  # type: ignore[arg-type]
            predictions = self.store.adopt(scratch / "outputs.npz")
        return Evaluation(candidate=candidate, accelerator=accelerator, metrics=values, predictions=predictions)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "store")


class TestTimed:
    @pytest.mark.parametrize("of", TIMED)
    def test_in_one_tournament_are_compared_round_by_round(self, bench: Bench, of: Metric) -> None:
        fast, slow = runs(1, 1.0), runs(2, 1.05)
        best, other = bench.timed("a", fast), bench.timed("b", slow)

        assert bench.evidence(of, best, other) == paired_effect(of, fast, slow, confidence=shared_confidence(LOOKS))
        if of is not P90:
            assert bench.evidence(of, best, other).low > 0 > compare_intervals(of, best, other).low

    def test_share_the_doubt_among_the_comparisons(self, bench: Bench) -> None:
        best, other = bench.timed("a", runs(1, 1.0)), bench.timed("b", runs(2, 1.05))

        alone, one_of_many = (bench.evidence(P50, best, other, comparisons=count) for count in (1, 20))

        expected = paired_effect(P50, runs(1, 1.0), runs(2, 1.05), confidence=shared_confidence(20 * LOOKS))
        assert one_of_many == expected
        assert one_of_many.low < alone.low

    def test_are_compared_by_the_clock_of_the_tournament(self, bench: Bench) -> None:
        fast, slow = runs(1, 1.0), runs(2, 1.5)
        one = timings_of(slow.wall_ns, cpu_ns=fast.wall_ns)
        other = timings_of(fast.wall_ns, cpu_ns=slow.wall_ns)

        found = bench.evidence(P50, bench.timed("a", one, clock="cpu"), bench.timed("b", other, clock="cpu"))

        assert (found.clock, found.low > 0) == ("cpu", True)

    def test_in_batches_are_compared_by_the_sample(self, bench: Bench) -> None:
        found = bench.evidence(
            RATE, bench.timed("a", runs(1, 1.0), timing_batch_size=1), bench.timed("b", runs(2, 1.0), timing_batch_size=4)
        )

        assert found.estimate == pytest.approx(-3, abs=0.1)

    @pytest.mark.parametrize(
        "apart",
        [
            {"tournament": "timing-2"},
            {"tournament": "timing-2", "accelerator": "gpu-cuda"},
            {"tournament": None, "accelerator": "gpu-cuda"},
            {"samples": None},
        ],
    )
    def test_apart_are_compared_by_their_intervals(self, bench: Bench, apart: dict[str, Any]) -> None:
        best, other = bench.timed("a", runs(1, 1.0)), bench.timed("b", runs(2, 1.05), **apart)

        for of in TIMED:
            assert bench.evidence(of, best, other) == compare_intervals(of, best, other)
            assert bench.evidence(of, other, best) == compare_intervals(of, other, best)
            assert not bench.evidence(of, best, other).is_relative

    @pytest.mark.parametrize("whose", [0, 1, 2])
    def test_where_all_was_unstable_are_not_known(self, bench: Bench, whose: int) -> None:
        best = bench.timed("a", runs(1, 1.0), tournament=None if whose != 1 else "timing-1")
        other = bench.timed("b", runs(2, 2.0), tournament=None if whose != 0 else "timing-1")

        found = bench.evidence(P50, best, other)

        assert (found.low, found.high) == (-math.inf, math.inf)
        assert found.estimate == other.values["latency"] - best.values["latency"]
        assert found.verdict(P50, best.values["latency"]) == "undecided"

    def test_too_rarely_are_not_known(self, bench: Bench) -> None:
        few = timings_of(runs(1, 1.0).wall_ns[:3, :1])
        best, other = bench.timed("a", few), bench.timed("b", runs(2, 2.0))

        assert best.metrics["latency"].is_supported is False
        for pair in ((best, other), (other, best)):
            assert bench.evidence(P50, *pair).low == -math.inf

    def test_only_in_part_together_are_compared_in_the_rounds_that_they_shared(self, bench: Bench) -> None:
        left_early = timings_of(runs(2, 1.3).wall_ns[:20])
        best, other = bench.timed("a", runs(1, 1.0)), bench.timed("b", left_early)

        assert bench.evidence(P50, best, other) == paired_effect(
            P50, runs(1, 1.0), left_early, confidence=shared_confidence(LOOKS)
        )


class TestJudged:
    def test_accuracies_are_compared_by_the_samples_on_which_one_is_right_alone(self, bench: Bench) -> None:
        ours, theirs = scores(3, 0.1), scores(4, 0.5)
        best, other = bench.judged("a", ours), bench.judged("b", theirs)

        found = bench.evidence(ACCURACY, best, other)

        hits, others = (ours > 0.5) == LABELS, (theirs > 0.5) == LABELS
        expected = paired_share_interval(int((hits & ~others).sum()), int((others & ~hits).sum()), N)
        assert (found.low, found.high) == expected
        assert found.estimate == pytest.approx(best.values["accuracy"] - other.values["accuracy"])
        assert not found.is_relative
        apart = compare_intervals(ACCURACY, best, other)
        assert found.high - found.low < 0.9 * (apart.high - apart.low)

    @pytest.mark.parametrize("of", [F1, AUC])
    def test_others_are_compared_by_drawing_samples(self, bench: Bench, of: Metric) -> None:
        ours, theirs = scores(3, 0.1), scores(4, 0.7)
        found = bench.evidence(of, bench.judged("a", ours), bench.judged("b", theirs), comparisons=3)

        expected = quality_difference_interval(of, {"y": ours}, {"y": theirs}, LABELS, shared_confidence(3))
        assert (found.low, found.high) == expected
        assert 0 < found.low < found.estimate < found.high

    @pytest.mark.parametrize("of", [ACCURACY, F1])
    def test_effect_is_positive_where_the_other_is_worse(self, bench: Bench, of: Metric) -> None:
        good, bad = bench.judged("a", scores(3, 0.1)), bench.judged("b", scores(4, 2.0))
        lower = of.model_copy(update={"higher_is_better": False})

        assert bench.evidence(of, good, bad).low > 0
        assert bench.evidence(lower, good, bad).high < 0

    def test_accelerators_make_no_difference_to_how(self, bench: Bench) -> None:
        best, other = bench.judged("a", scores(3, 0.1)), bench.judged("a", scores(4, 0.5), "gpu-cuda")

        here = bench.judged("b", scores(4, 0.5))
        assert bench.evidence(ACCURACY, best, other) == bench.evidence(ACCURACY, best, here)

    def test_numbers_without_predictions_are_compared_by_their_intervals(self, bench: Bench) -> None:
        best = bench.judged("a", scores(3, 0.1))
        other = bench.judged("b", scores(4, 0.5)).model_copy(update={"predictions": None})

        assert bench.evidence(ACCURACY, best, other) == compare_intervals(ACCURACY, best, other)

    def test_numbers_on_data_without_labels_are_compared_by_their_intervals(self, bench: Bench) -> None:
        best, other = bench.judged("a", scores(3, 0.1)), bench.judged("b", scores(4, 0.5))
        bench.data = bench._stored_npz(None)

        assert bench.evidence(ACCURACY, best, other) == compare_intervals(ACCURACY, best, other)


def lose(store: ArtifactStore, artifact: Artifact) -> None:
    store.path(artifact.sha256).unlink()


def damage(store: ArtifactStore, artifact: Artifact) -> None:
    path = store.path(artifact.sha256)
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[: len(content) // 2])


def replace_by_text(store: ArtifactStore, artifact: Artifact) -> None:
    path = store.path(artifact.sha256)
    path.chmod(0o644)
    path.write_bytes(b"no arrays")


def replace_by_other_arrays(store: ArtifactStore, artifact: Artifact) -> None:
    path = store.path(artifact.sha256)
    path.chmod(0o644)
    with path.open("wb") as file:
        np.savez(file, other=np.arange(3))


@pytest.mark.parametrize("break_", [lose, damage, replace_by_text])
class TestLost:
    @pytest.mark.parametrize("whose", [0, 1])
    def test_samples_leave_the_intervals_to_compare_by(self, bench: Bench, break_: Any, whose: int) -> None:
        pair = bench.timed("a", runs(1, 1.0)), bench.timed("b", runs(2, 1.5))
        break_(bench.store, pair[whose].samples)

        assert bench.evidence(P50, *pair) == compare_intervals(P50, *pair)
        assert [item.candidate for item in rank(pair, TIMED, compare=bench.evidence).ranked] == ["a", "b"]

    @pytest.mark.parametrize("what", ["predictions of one", "data"])
    def test_predictions_or_labels_leave_the_intervals_to_compare_by(self, bench: Bench, break_: Any, what: str) -> None:
        pair = bench.judged("a", scores(3, 0.1)), bench.judged("b", scores(4, 2.0))
        assert pair[1].predictions is not None
        break_(bench.store, bench.data if what == "data" else pair[1].predictions)

        assert bench.evidence(ACCURACY, *pair) == compare_intervals(ACCURACY, *pair)
        assert [item.candidate for item in rank(pair, [ACCURACY], compare=bench.evidence).ranked] == ["a", "b"]


def test_samples_that_are_other_arrays_leave_the_intervals_to_compare_by(bench: Bench) -> None:
    pair = bench.timed("a", runs(1, 1.0)), bench.timed("b", runs(2, 1.5))
    assert pair[0].samples is not None
    replace_by_other_arrays(bench.store, pair[0].samples)

    assert bench.evidence(P50, *pair) == compare_intervals(P50, *pair)


@pytest.mark.parametrize("of", [SIZE, metric("own", "custom", "own", higher_is_better=True)])
def test_other_metrics_are_compared_as_they_are(bench: Bench, of: Metric) -> None:
    best, other = (
        bench.judged(name, scores(3, 0.1)).model_copy(
            update={"metrics": {of.name: MetricValue(value=value, unit="", n=1, interval=(0, 9))}}
        )
        for name, value in (("a", 1.0), ("b", 3.0))
    )

    assert bench.evidence(of, best, other) == compare_values(of, best, other)
    assert bench.evidence(of, best, other).is_exact


def test_files_are_read_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    best, other = bench.timed("a", runs(1, 1.0)), bench.timed("b", runs(2, 1.5))
    asked = []
    path = ArtifactStore.path

    def counted(store: ArtifactStore, sha256: str) -> Path:
        asked.append(sha256)
        return path(store, sha256)

    monkeypatch.setattr(ArtifactStore, "path", counted)
    evidence = bench.evidence
    for _ in range(3):
        evidence(P50, best, other)
        evidence(P90, other, best)
    assert len(asked) == len(set(asked)) == 2


def test_ranking_by_evidence_tells_apart_what_intervals_do_not(bench: Bench) -> None:
    found = [bench.timed("b", runs(1, 1.0)), bench.timed("a", runs(2, 1.06)), bench.timed("c", runs(3, 1.005))]

    in_pairs, apart = (rank(found, [P50], compare=compare).ranked for compare in (bench.evidence, compare_intervals))

    assert [(item.candidate, item.shared_rank) for item in in_pairs] == [("b", 1), ("c", 1), ("a", 3)]
    assert {item.shared_rank for item in apart} == {1}
    assert "%" in in_pairs[2].decided_by
    assert isinstance(in_pairs[2].decision and in_pairs[2].decision.effect, Effect)
