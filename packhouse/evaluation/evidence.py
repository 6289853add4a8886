"""Compare candidates by what they did sample by sample, as it lies in the artifact store."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.comparison import Effect, compare_intervals, compare_values
from packhouse.errors import ArtifactError
from packhouse.evaluation.data import LABELS_KEY, Array
from packhouse.evaluation.latency import Timings
from packhouse.evaluation.pairs import LOOKS, paired_effect
from packhouse.evaluation.quality import quality_difference_interval
from packhouse.evaluation.records import Evaluation
from packhouse.metrics import TIMED_TYPES, Metric
from packhouse.statistics import shared_confidence

DAMAGED = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile)  # what reading a file raises that is no such file


class Evidence:
    """Compares evaluations on the same data in pairs: round by round of one tournament, or sample by sample of the data.

    What was not measured together, or is no longer in the store, is compared by its intervals. It is a
    `packhouse.comparison.Compare`.
    """

    def __init__(self, store: ArtifactStore, data: Artifact) -> None:
        """Read from `store`; `data` is the data set that all evaluations are of."""
        self._store, self._data = store, data
        self._arrays = cache(self._read)
        self._timings = cache(self._read_timings)

    def __call__(self, metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
        """Return by how much `other` is worse than `best`."""
        try:
            if metric.type in TIMED_TYPES:
                effect = self._timed(metric, best, other, shared_confidence(LOOKS * comparisons))
            elif metric.type == "accuracy":
                effect = self._judged(metric, best, other, shared_confidence(comparisons))
            else:
                effect = compare_values(metric, best, other)
        except ArtifactError:  # more is known than the intervals say, but no longer here
            effect = None
        return effect or compare_intervals(metric, best, other)

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

    def _judged(self, metric: Metric, best: Evaluation, other: Evaluation, confidence: float) -> Effect | None:
        if best.predictions is None or other.predictions is None or LABELS_KEY not in self._arrays(self._data.sha256):
            return None
        effect = compare_values(metric, best, other)
        ours, theirs = self._arrays(best.predictions.sha256), self._arrays(other.predictions.sha256)
        labels = self._arrays(self._data.sha256)[LABELS_KEY]
        found = quality_difference_interval(metric, ours, theirs, labels, confidence)
        if found is None:
            return effect
        low, high = (found.low, found.high) if metric.higher_is_better else (-found.high, -found.low)
        return effect.model_copy(update={"low": low, "high": high})

    def _read(self, sha256: str) -> dict[str, Array]:
        with _undamaged(self._store.path(sha256)) as path, np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def _read_timings(self, sha256: str) -> Timings:
        with _undamaged(self._store.path(sha256)) as path:
            return Timings.load(path)


@contextmanager
def _undamaged(path: Path) -> Iterator[Path]:
    try:
        yield path
    except DAMAGED as error:
        raise ArtifactError(f"{path} cannot be read ({error}); run again with PREFECT_TASKS_REFRESH_CACHE=true") from error
