"""Compare candidates by what they did sample by sample, as it lies in the artifact store."""

from functools import cache

import numpy as np

from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.comparison import Effect, compare_intervals, compare_values
from packhouse.evaluation.data import LABELS_KEY, Array
from packhouse.evaluation.latency import Timings
from packhouse.evaluation.pairs import paired_effect
from packhouse.evaluation.quality import quality_difference_interval
from packhouse.evaluation.records import Evaluation
from packhouse.metrics import TIMED_TYPES, Metric
from packhouse.statistics import shared_confidence


class Evidence:
    """Compares evaluations on the same data in pairs: round by round of one tournament, or sample by sample of the data.

    What was not measured together is compared by its intervals. It is a `packhouse.comparison.Compare`.
    """

    def __init__(self, store: ArtifactStore, data: Artifact) -> None:
        """Read from `store`; `data` is the data set that all evaluations are of."""
        self._store, self._data = store, data
        self._arrays = cache(self._read)
        self._timings = cache(self._read_timings)

    def __call__(self, metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
        """Return by how much `other` is worse than `best`."""
        confidence = shared_confidence(comparisons)
        if metric.type in TIMED_TYPES:
            return self._timed(metric, best, other, confidence) or compare_intervals(metric, best, other)
        if metric.type == "accuracy":
            return self._judged(metric, best, other, confidence)
        return compare_values(metric, best, other)

    def _timed(self, metric: Metric, best: Evaluation, other: Evaluation, confidence: float) -> Effect | None:
        if best.accelerator == other.accelerator and (best.tournament is None or other.tournament is None):
            return Effect.unknown(compare_values(metric, best, other).estimate, is_relative=False)
        if best.tournament is None or best.tournament != other.tournament or not best.samples or not other.samples:
            return None
        if not (best.metrics[metric.name].is_supported and other.metrics[metric.name].is_supported):
            return None
        timings = self._timings(best.samples.sha256), self._timings(other.samples.sha256)
        sizes = best.timing_batch_size, other.timing_batch_size
        return paired_effect(metric, *timings, clock=best.clock, batch_sizes=sizes, confidence=confidence)

    def _judged(self, metric: Metric, best: Evaluation, other: Evaluation, confidence: float) -> Effect:
        effect = compare_values(metric, best, other)
        if best.predictions is None or other.predictions is None or LABELS_KEY not in self._arrays(self._data.sha256):
            return effect
        ours, theirs = self._arrays(best.predictions.sha256), self._arrays(other.predictions.sha256)
        labels = self._arrays(self._data.sha256)[LABELS_KEY]
        found = quality_difference_interval(metric, ours, theirs, labels, confidence)
        if found is None:
            return effect
        low, high = (found.low, found.high) if metric.higher_is_better else (-found.high, -found.low)
        return effect.model_copy(update={"low": low, "high": high})

    def _read(self, sha256: str) -> dict[str, Array]:
        with np.load(self._store.path(sha256), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def _read_timings(self, sha256: str) -> Timings:
        return Timings.load(self._store.path(sha256))
