"""Configurations for tests: complete, small, and real."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.classifiers import write_family, write_points


def job(**changes: Any) -> dict[str, Any]:
    """Return a configuration that ranks by accuracy, then latency, and makes one Zipfile; `changes` replace parts of it.

    The candidates are alike, so their order may stay undecided until time is up: that is soon.
    """
    return {
        "candidates": {"type": "folder", "path": "candidates"},
        "data": {"path": "points.npz", "labels": "label"},
        "metrics": [
            {"name": "accuracy", "type": "accuracy", "sub_types": [{"name": "accuracy_score", "priority": 1}]},
            {"name": "latency", "type": "latency", "sub_types": [{"name": "p50", "priority": 2}]},
        ],
        "timing": {"seconds_per_candidate": 1.0},
        "packaging": [{"type": "Zipfile", "name": "points", "include_runtime_packages": False}],
        **changes,
    }


def write_job(folder: Path, errors: Sequence[float] = (0.0, 0.5), **changes: Any) -> Path:
    """Write a family of classifiers, points, and the configuration of a job; return the path of the configuration."""
    write_family(folder / "candidates", errors)
    write_points(folder / "points.npz")
    config = folder / "packhouse.json"
    config.write_text(json.dumps(job(**changes)))
    return config
