import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from packhouse.errors import PackagingFailed
from packhouse.packaging.runtime_packages import REQUIREMENTS, fetch
from tests.wheels import breaking_index, make_wheel, metadata_text

FETCH = """
import pathlib, sys
from packhouse.packaging.runtime_packages import fetch
print(*fetch("engine", "1.0", pathlib.Path(sys.argv[1])))
"""


def install(folder: Path, name: str, version: str, *requires: str) -> None:
    """Make `name` look installed to an interpreter that has `folder` on its path."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(metadata_text(name, version, *requires))


def make_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder that is all that pip can get: ``engine`` 1.0, and two versions of what it depends on."""
    folder.mkdir()
    make_wheel(folder, "engine", "1.0", "numbers_lib>=1", 'tests_lib; extra == "test"')
    make_wheel(folder, "numbers_lib", "1.0")
    make_wheel(folder, "numbers_lib", "2.0")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"CONFIG_FILE": os.devnull, "RETRIES": "1", "NO_INDEX": "1", "FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_index(tmp_path / "index", monkeypatch)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which ``engine`` 1.0 is already, not to be changed."""
    folder = tmp_path_factory.mktemp("fetched")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_index(folder / "index", monkeypatch)
        fetch("engine", "1.0", folder / "cache")
    return folder / "cache"


def only_entry(cache: Path) -> Path:
    entries = list(cache.iterdir())
    assert len(entries) == 1, f"more than the entry: {entries}"
    return entries[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(files: tuple[Path, ...]) -> list[str]:
    return [path.name for path in files]


@pytest.mark.usefixtures("index")
def test_folder_holds_the_wheels_and_their_requirements_and_nothing_else(cache: Path) -> None:
    files = fetch("engine", "1.0", cache)
    assert names(files) == ["engine-1.0-py3-none-any.whl", "numbers_lib-2.0-py3-none-any.whl", REQUIREMENTS]
    pins = [line for line in files[-1].read_text().splitlines() if not line.startswith("#")]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files[:-1]]
    assert pins == [f"engine==1.0 --hash=sha256:{digests[0]}", f"numbers-lib==2.0 --hash=sha256:{digests[1]}"]
    assert only_entry(cache) == files[0].parent


@pytest.mark.usefixtures("index")
def test_fetched_folder_installs_elsewhere_without_any_index(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    fetch("engine", "1.0", cache)[0].parent.rename(folder)
    monkeypatch.delenv("PIP_FIND_LINKS")
    command = (folder / REQUIREMENTS).read_text().splitlines()[0].removeprefix("# pip ").split()
    subprocess.run([sys.executable, "-m", "pip", *command, "--target", "site"], cwd=folder, check=True)
    assert (folder / "site" / "numbers_lib.py").read_text() == "version = '2.0'\n"


def test_second_fetch_needs_no_pip(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert fetch("engine", "1.0", fetched) == tuple(sorted(only_entry(fetched).iterdir()))


def _flip_a_byte(entry: Path) -> None:
    wheel = next(entry.glob("numbers*.whl"))
    data = bytearray(wheel.read_bytes())
    data[40] ^= 1
    wheel.write_bytes(data)


def _lose_a_wheel(entry: Path) -> None:
    next(entry.glob("numbers*.whl")).unlink()


def _lose_a_requirement(entry: Path) -> None:
    requirements = entry / REQUIREMENTS
    requirements.write_text("".join(requirements.read_text().splitlines(keepends=True)[:-1]))


def _lose_everything(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


def _add_strangers(entry: Path) -> None:
    (entry / "stranger.whl").touch()
    (entry / "folder").mkdir()
    (entry / "folder" / "file").touch()


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("damage", [_flip_a_byte, _lose_a_wheel, _lose_a_requirement, _lose_everything, _add_strangers])
def test_damaged_entry_is_fetched_again(fetched: Path, cache: Path, damage: Callable[[Path], None]) -> None:
    shutil.copytree(fetched, cache)
    damage(only_entry(cache))
    files = fetch("engine", "1.0", cache)
    assert only_entry(cache) == files[0].parent
    assert contents(only_entry(cache)) == contents(only_entry(fetched))


@pytest.mark.parametrize("damaged", [False, True], ids=["first fetch", "damaged entry"])
@pytest.mark.usefixtures("index")
def test_fetches_at_the_same_time_all_succeed(fetched: Path, cache: Path, *, damaged: bool) -> None:
    if damaged:
        shutil.copytree(fetched, cache)
        _flip_a_byte(only_entry(cache))
    command = [sys.executable, "-c", FETCH, str(cache)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == [[str(path) for path in sorted(only_entry(cache).iterdir())]] * 2
    assert contents(only_entry(cache)) == contents(only_entry(fetched))


@pytest.mark.usefixtures("index")
def test_what_a_killed_fetch_left_is_removed_by_the_next(cache: Path) -> None:
    killed = "import os, tempfile; tempfile.mkdtemp = lambda *a, make=tempfile.mkdtemp, **k: (make(*a, **k), os._exit(9))\n"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", killed + FETCH, str(cache)], env=environment, check=False)
    assert (done.returncode, len(list(cache.iterdir()))) == (9, 1)
    files = fetch("engine", "1.0", cache)
    assert only_entry(cache) == files[0].parent


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.usefixtures("index")
def test_dependencies_have_the_versions_that_are_installed(cache: Path, site: Path) -> None:
    install(site, "engine", "1.0", "numbers_lib>=1", 'tests_lib; extra == "test"')
    install(site, "numbers_lib", "1.0")
    install(site, "tests_lib", "3.0")
    assert "numbers_lib-1.0-py3-none-any.whl" in names(fetch("engine", "1.0", cache))


@pytest.mark.usefixtures("index")
def test_other_installed_versions_make_another_entry(fetched: Path, cache: Path, site: Path) -> None:
    shutil.copytree(fetched, cache)
    install(site, "engine", "1.0", "numbers_lib>=1")
    install(site, "numbers_lib", "1.0")
    files = fetch("engine", "1.0", cache)
    assert sorted(cache.iterdir()) == sorted([files[0].parent, cache / only_entry(fetched).name])


def test_what_only_an_extra_needs_makes_no_difference(fetched: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "engine", "1.0", "numbers_lib>=1", 'tests_lib; extra == "test"')
    install(site, "tests_lib", "3.0")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert fetch("engine", "1.0", fetched)[0].parent == only_entry(fetched)


@pytest.mark.usefixtures("index")
def test_installed_version_that_pip_cannot_get_is_replaced_with_a_warning(
    cache: Path, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "engine", "1.0", "numbers_lib>=1")
    install(site, "numbers_lib", "1.5+built.here")
    assert "numbers_lib-2.0-py3-none-any.whl" in names(fetch("engine", "1.0", cache))
    assert "with the dependencies installed here" in caplog.text


@pytest.mark.usefixtures("index")
def test_constraints_in_the_users_pip_configuration_apply(
    cache: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "engine", "1.0", "unrelated")
    install(site, "unrelated", "1.0")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numbers_lib<2\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(constraints))
    assert "numbers_lib-1.0-py3-none-any.whl" in names(fetch("engine", "1.0", cache))


def test_wheels_may_come_from_several_places(index: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other index"
    other.mkdir()
    for wheel in index.glob("numbers*"):
        wheel.rename(other / wheel.name)
    with pytest.raises(PackagingFailed, match="numbers"):
        fetch("engine", "1.0", cache)
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nfind-links =\n    {index}\n    {other.as_uri()}\n")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    assert len(fetch("engine", "1.0", cache)) == 3


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("environment", "version", "reason"),
    [
        ({}, "9.9", r"No matching distribution found for engine==9\.9"),
        ({"PIP_FIND_LINKS": ""}, "1.0", r"No matching distribution found for engine==1\.0"),
        ({"PIP_FIND_LINKS": "", "PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/"}, "1.0", "Connection refused"),
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_FIND_LINKS": ""}, "1.0", r"No matching distribution found"),
        ({"PIP_CONSTRAINT": "/nowhere/constraints.txt"}, "1.0", "No such file or directory"),
    ],
    ids=[
        "no such version",
        "nothing to be had",
        "index that does not answer",
        "index that may not be asked",
        "wrong configuration",
    ],
)
def test_failure_says_why_and_what_to_do_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], version: str, reason: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PackagingFailed, match=reason) as failure:
        fetch("engine", version, cache)
    assert re.search(r"configure pip.*, or set include_runtime_packages: false$", str(failure.value))
    assert "\n" not in str(failure.value)
    assert list(cache.iterdir()) == []


def test_a_download_that_breaks_off_may_pass_and_what_is_not_to_be_had_does_not(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PackagingFailed) as missing:
        fetch("engine", "9.9", cache)
    assert not missing.value.is_transient
    with breaking_index(index) as address:
        for name, value in {
            "NO_INDEX": "0",
            "FIND_LINKS": "",
            "INDEX_URL": address,
            "RETRIES": "0",
            "RESUME_RETRIES": "0",
        }.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        with pytest.raises(PackagingFailed, match="cannot be fetched") as broken:
            fetch("engine", "1.0", cache)
    assert broken.value.is_transient
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("index")
def test_missing_pip_is_said_with_the_remedy(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(PackagingFailed, match=r"No module named pip; install it .*ensurepip.*, or set include_"):
        fetch("engine", "1.0", cache)
    assert list(cache.iterdir()) == []


def test_wheel_that_changes_between_the_two_steps_is_not_packed(
    index: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands between us and pip, and changes a wheel once its digest was announced."""
    pip = tmp_path / "python"
    wheel = index / "numbers_lib-2.0-py3-none-any.whl"
    change = f'case "$*" in *--require-hashes*) echo >> {wheel};; esac'
    pip.write_text(f'#!/bin/sh\n{change}\nexec {sys.executable} "$@"\n')
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(PackagingFailed, match=r"(?i)hash"):
        fetch("engine", "1.0", cache)
    assert list(cache.iterdir()) == []


@pytest.mark.real
def test_real_onnxruntime_comes_with_the_dependencies_it_was_tested_with(cache: Path) -> None:
    version = metadata.version("onnxruntime")
    files = fetch("onnxruntime", version, cache)
    assert files[-1].name == REQUIREMENTS
    pins = dict(line.split()[0].split("==") for line in files[-1].read_text().splitlines()[1:])
    assert pins["onnxruntime"] == version
    assert pins == {name: metadata.version(name) for name in pins}
    assert {"numpy", "protobuf"} < set(pins)
    assert len(files) == len(pins) + 1
    assert "://" not in files[-1].read_text()
