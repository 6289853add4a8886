"""Models that are asked elsewhere than in a process of ours, by requests of the Open Inference Protocol v2."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from packhouse.candidates import Candidate
from packhouse.evaluation.data import Array
from packhouse.packaging.golden import own_batch
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.verification.opened import Predictions
from packhouse.verification.payload import Payload


class Client(Protocol):
    """What asks a model."""

    def infer(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return these outputs for the feed. Raises VerificationFailed."""
        ...

    def placement(self) -> dict[str, int] | None:
        """Return how many nodes run on each provider, or None where that is not told. Raises VerificationFailed."""
        ...


@dataclass(frozen=True)
class Batch:
    """Samples that are asked for together: what is fed, and how many of its rows count; others only fill a fixed batch."""

    feed: Mapping[str, Array]
    count: int


@dataclass(frozen=True)
class ServedModel:
    """A model that a client asks, one batch after the other."""

    packaged: PackagedCandidate
    environment: str
    client: Client
    candidate: Candidate

    def predict(self, payload: Payload, batch_size: int, samples: int | None = None) -> Predictions:
        """Ask for the samples in batches. Raises VerificationFailed where they are not answered as the protocol says."""
        cut = list(batches(self.candidate, payload, batch_size, samples))
        answers = [self.client.infer(batch.feed, tensors(self.candidate)) for batch in cut]
        return Predictions(*joined(payload, cut, answers), self.client.placement())


def tensors(candidate: Candidate) -> Sequence[str]:
    """Return the outputs of a candidate that the protocol can carry."""
    return [value.name for value in candidate.outputs if value.dtype != "unknown"]


def batches(candidate: Candidate, payload: Payload, batch_size: int, samples: int | None = None) -> Iterator[Batch]:
    """Cut all samples of the payload, or the first so many, as they were cut when the candidate was evaluated."""
    inputs, ids = payload.inputs([value.name for value in candidate.inputs]), payload.ids
    fixed = own_batch(candidate)
    size = fixed or batch_size
    for start in range(0, min(len(ids), samples or len(ids)), size):
        count = min(size, len(ids) - start)
        rows = np.arange(start, start + (size if fixed else count)) % len(ids)  # a fixed batch is filled from the start
        yield Batch({value.name: _as_input(inputs[value.name][rows], value.dtype) for value in candidate.inputs}, count)


def joined(payload: Payload, cut: Sequence[Batch], answers: Sequence[Mapping[str, Array]]) -> tuple[Array, dict[str, Array]]:
    """Return the ids of the samples in the batches, and their outputs."""
    parts = [
        {name: array[: batch.count] if array.ndim else array[None] for name, array in answer.items()}
        for batch, answer in zip(cut, answers, strict=True)
    ]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return payload.ids[: sum(batch.count for batch in cut)], outputs


def _as_input(array: Array, dtype: str) -> Array:
    return array.astype(object if dtype == "str" else dtype, copy=False)
