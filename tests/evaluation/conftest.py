"""Fixtures for the tests of evaluation."""

from pathlib import Path

import pytest

from packhouse.artifacts import ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store of the test's own."""
    return ArtifactStore(tmp_path / "store")
