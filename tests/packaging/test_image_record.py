"""Which image was built from a package: what its record depends on, and builds at the same time.

The builder is a script that is called as docker is, and gives each build the id of a counter.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from packhouse.packaging.docker.builders import Builder, find_builder
from packhouse.packaging.docker.dockerfile import Dockerfile
from packhouse.packaging.docker.image_record import ImageRecord

SCRIPT = """\
#!/bin/sh
if [ "$1" = build ]; then
    echo build >> {folder}/builds
    for argument in "$@"; do
        case "$argument" in --iidfile=*) echo "sha256:$(wc -l < {folder}/builds)" > "${{argument#--iidfile=}}" ;; esac
    done
fi
"""


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    program = tmp_path / "docker"
    program.write_text(SCRIPT.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return find_builder("docker")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"candidates": [{"digest": "0123456789abcdef"}]}')
    return folder


def record(package: Path, builder: Builder, **settings: Any) -> ImageRecord:
    return ImageRecord(package, Dockerfile(**settings), builder, package.parent / "cache")


def test_an_image_is_built_once_for_a_package_a_builder_and_its_options(package: Path, builder: Builder) -> None:
    assert record(package, builder).kept() is None
    assert record(package, builder).image() == record(package, builder).image() == "sha256:1"
    assert record(package, builder, build_options=["--no-cache"]).image() == "sha256:2"
    assert record(package, builder).kept() == "sha256:1"


@pytest.mark.parametrize("left", ["", "{", "[]", "{}", "\0" * 64])
def test_a_record_that_a_power_cut_left_in_pieces_is_none(package: Path, builder: Builder, left: str) -> None:
    record(package, builder).image()
    (kept,) = (package.parent / "cache" / "images").iterdir()
    kept.write_text(left)

    assert record(package, builder).kept() is None
    assert record(package, builder).image() == "sha256:2"
    assert record(package, builder).kept() == "sha256:2"


def test_an_image_whose_files_have_another_time_is_another_one(
    package: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record(package, builder).image() == "sha256:1"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert record(package, builder).kept() is None
    assert record(package, builder).image() == "sha256:2"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert record(package, builder).kept() == "sha256:1"


def test_runs_that_build_the_same_image_at_once_all_keep_theirs(
    package: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, written = Path.replace, threading.Barrier(2, timeout=60)

    def replace_when_both_are_written(path: Path, target: Path) -> Path:
        written.wait()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_when_both_are_written)
    with ThreadPoolExecutor(2) as runs:
        images = list(runs.map(lambda _: record(package, builder).image(), range(2)))
    assert record(package, builder).kept() in images
    assert len(list((package.parent / "cache" / "images").iterdir())) == 1
