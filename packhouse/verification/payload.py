"""The payload: samples with ids, and labels where there are any, that a package is run and scored on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from packhouse.artifacts import ArtifactStore
from packhouse.errors import VerificationFailed
from packhouse.evaluation.data import LABELS_KEY, Array
from packhouse.packaging.job import PackagingJob


@dataclass(frozen=True)
class Payload:
    """Samples in an .npz file, in which `input_keys` names the array of each model input; axis 0 is the sample."""

    path: Path
    input_keys: Mapping[str, str]

    @classmethod
    def of(cls, job: PackagingJob, store: ArtifactStore) -> "Payload":
        """Return the samples that the candidates of a job were evaluated on."""
        return cls(store.path(job.data.sha256), job.input_keys)

    @property
    def ids(self) -> Array:
        """What identifies each sample."""
        return self._read("ids")

    def inputs(self, names: Sequence[str]) -> dict[str, Array]:
        """Return the arrays of these model inputs."""
        return {name: self._read(self.input_keys[name]) for name in names}

    def labels_of(self, ids: Array) -> Array:
        """Return the labels in the order of `ids`, each of which has to be there exactly once.

        Raises:
            VerificationFailed: samples are missing, unknown, or there twice.
        """
        rows = {sample: row for row, sample in enumerate(self.ids.tolist())}
        given: list[Any] = ids.tolist()
        if unknown := [sample for sample in given if sample not in rows]:
            raise VerificationFailed(f"it answered for the sample {unknown[0]!r}, which was never asked for")
        answered = set(given)
        if len(answered) != len(given):
            twice = next(sample for sample, count in Counter(given).items() if count > 1)
            raise VerificationFailed(f"it answered twice for the sample {twice!r}")
        if missing := [sample for sample in rows if sample not in answered]:
            raise VerificationFailed(f"it gave no answer for {len(missing)} of {len(rows)} samples, {missing[0]!r} among them")
        return self._read(LABELS_KEY)[[rows[sample] for sample in given]]

    def _read(self, key: str) -> Array:
        with np.load(self.path, allow_pickle=False) as arrays:
            array: Array = arrays[key]
            return array
