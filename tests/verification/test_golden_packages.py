"""Packages of every version of the manifest that was ever released are still verified.

``tests/golden/package-v<version>.zip`` is made once, when a version is new, and never again.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from packhouse.packaging.manifest import Manifest
from packhouse.verification import verify_package

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("package-v*.zip"))


def test_the_present_version_has_a_golden_package() -> None:
    (version,) = get_args(Manifest.model_fields["schema_version"].annotation)
    assert f"package-v{version}.zip" in {path.name for path in GOLDEN}


@pytest.mark.parametrize("package", GOLDEN, ids=lambda path: path.stem)
def test_packages_of_every_version_are_verified(package: Path) -> None:
    verified = verify_package(package)
    assert [model.outcome for model in verified.models] == [
        "loads on CPUExecutionProvider; 1 golden samples are what they were"
    ] * 2
    with zipfile.ZipFile(package) as archive:
        version = json.loads(archive.read("manifest.json"))["schema_version"]
    assert package.stem == f"package-v{version}"


@pytest.mark.parametrize("package", GOLDEN, ids=lambda path: path.stem)
def test_packages_of_every_version_verify_themselves(package: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run([sys.executable, "-I", str(tmp_path / "verify.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("golden samples are what they were") == 2
