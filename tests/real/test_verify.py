"""A package as its receiver gets it: unpacked, with an environment made of nothing but the wheels that it brings."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from packhouse.evaluation.runtimes import RuntimeEnvironments
from packhouse.packaging.runtime_packages import RUNTIME_FOLDER
from tests.packaging_jobs import CPU, EXACT, NEAR, make_packing

pytestmark = pytest.mark.real


def test_a_package_verifies_itself_where_there_is_nothing_but_onnxruntime(tmp_path: Path) -> None:
    packing = make_packing(tmp_path, {CPU: {EXACT: (0.97, 3.0), NEAR: (0.91, 2.0)}})
    with zipfile.ZipFile(packing.zip(include_runtime_packages=True)) as archive:
        archive.extractall(tmp_path / "received")
    python = RuntimeEnvironments(tmp_path / "environments").python_from_wheels(tmp_path / "received" / RUNTIME_FOLDER)
    brought = subprocess.run(
        [python, "-I", "-c", "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "onnxruntime" in brought
    assert not {"packhouse", "prefect", "onnx", "pydantic"} & set(brought)

    done = subprocess.run(
        [python, "-I", str(tmp_path / "received" / "verify.py")], capture_output=True, text=True, check=False, cwd="/"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 outputs of 1 golden samples are what they were") == 2
