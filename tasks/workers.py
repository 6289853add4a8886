"""The workers that wait in this process between the evaluation of a candidate and its tournament."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager

from packhouse.evaluation.idle_workers import IdleWorkers

idle_workers = IdleWorkers()
atexit.register(idle_workers.end)


@contextmanager
def workers_kept(accelerator: str) -> Iterator[None]:
    """End the workers that wait for an accelerator when the body is left, however that happens."""
    try:
        yield
    finally:
        idle_workers.end(accelerator)
