"""What work costs the process that does it, with its children. Needs nothing but Python, so that all sides can use it."""

import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Clock:
    """CPU seconds, those of children that ended included, and wall seconds, step by step."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the body, after earlier writes have reached the disk."""
        os.sync()
        cpu_s, wall_s = _cpu_s(), time.perf_counter()
        yield
        self.steps[name] = {"cpu_s": _cpu_s() - cpu_s, "wall_s": time.perf_counter() - wall_s}

    def save(self, path: Path) -> None:
        """Write the steps as JSON."""
        path.write_text(json.dumps(self.steps))


def _cpu_s() -> float:
    return sum(sum(resource.getrusage(whose)[:2]) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
