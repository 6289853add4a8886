"""Timings of candidates for tests: what workers would have measured, from numbers that the test gives."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.evaluation.latency import Timings

NS_PER_MS = 1e6


def timings_of(
    wall_ns: Any, *, cpu_ns: Any = None, rounds: Sequence[int] | None = None, kept: Sequence[bool] | None = None
) -> Timings:
    """Return timings of the runs in ns: a row for each round, or a number for each if it has one run.

    Without `rounds` these are numbered from 0, without `kept` all are kept, and without `cpu_ns` the CPU computed all the time.
    """
    wall = np.asarray(wall_ns, dtype=np.float64).round().astype(np.int64)
    wall = wall.reshape(len(wall), -1)
    cpu = wall if cpu_ns is None else np.asarray(cpu_ns, dtype=np.float64).round().astype(np.int64).reshape(wall.shape)
    return Timings(
        wall_ns=wall,
        cpu_ns=cpu,
        rounds=np.arange(len(wall)) if rounds is None else np.asarray(rounds, dtype=np.int64),
        sessions=np.ones(len(wall), dtype=np.int64),
        kept=np.ones(len(wall), dtype=np.bool_) if kept is None else np.asarray(kept, dtype=np.bool_),
    )


def stored(timings: Timings, store: ArtifactStore) -> Artifact:
    """Put timings into a store, as a tournament does."""
    with store.staging() as scratch:
        timings.save(scratch / "timings.npz")
        return store.adopt(scratch / "timings.npz")
