"""Fixtures for all tests: a Prefect home of their own, and the versions that matter in the header."""

import os
import tempfile
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import settings

# Time never decides a test.
settings.register_profile("packhouse", deadline=None)
settings.load_profile("packhouse")
# Before anything imports Prefect: tests never touch the results, profiles and servers of the person who runs them.
_HOME = tempfile.TemporaryDirectory(prefix="packhouse-tests-")
os.environ.update(
    {
        "PREFECT_HOME": _HOME.name,
        "PREFECT_PROFILES_PATH": str(Path(_HOME.name, "profiles.toml")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
    }
)
os.environ.pop("PREFECT_API_URL", None)
# Programs in new environments would compile all that they import every time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

SHOWN = ("prefect", "pydantic", "numpy", "onnx", "onnxruntime", "scikit-learn", "mlflow-skinny", "azure-ai-ml")
SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def pytest_report_header() -> str:
    """Show the versions of the libraries whose behaviour the tests depend on."""
    versions = {name: metadata.version(name) for name in SHOWN if _is_installed(name)}
    return "stack: " + ", ".join(f"{name} {version}" for name, version in versions.items())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that parallel workers end at about the same time."""
    items.sort(key=lambda item: "real" not in item.keywords)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
