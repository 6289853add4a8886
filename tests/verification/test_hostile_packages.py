"""The corpus of hostile packages: each is refused for its own reason, and nothing is written, reserved or run on the way."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from packhouse.errors import VerificationFailed
from packhouse.verification import Limits, VerifiedModel, unpack, verify_package
from tests.verification import hostile_archives, hostile_models
from tests.verification.zip_bytes import DEFLATED, Part, build

MIB = 1 << 20
FOLDER = "CandidateModels/cpu-cpu/BestCandidateModel_1"
Snapshot = dict[str, tuple[int, int, int]]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a test, with something to be overwritten; scratch folders are made below it, and leave nothing."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "outside.bin").write_bytes(bytes(8))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(scratch.iterdir())


def snapshot(folder: Path, apart_from: Path) -> Snapshot:
    """Return kind, size and time of change of everything in `folder` but for one folder's content."""
    paths = [path for path in folder.rglob("*") if apart_from not in (path, *path.parents)]
    statuses = {str(path): path.lstat() for path in paths if path.name != "scratch"}
    return {name: (status.st_mode, status.st_size, status.st_mtime_ns) for name, status in statuses.items()}


def refuse(package: Path, message: str, limits: Limits = Limits()) -> None:  # noqa: B008
    """Unpack and verify `package`: both refuse it with the message, and leave everything around them as it was."""
    target = package.parent / "unpacked"
    before = snapshot(package.parent, target)
    with pytest.raises(VerificationFailed, match=message) as refused:
        unpack(package, target, limits)
    assert snapshot(package.parent, target) == before
    assert "\n" not in str(refused.value)
    assert not any(path.is_symlink() for path in target.rglob("*"))
    with pytest.raises(VerificationFailed):
        verify_package(package)
    assert snapshot(package.parent, target) == before


@pytest.mark.parametrize(("make", "message"), hostile_archives.ARCHIVES.values(), ids=hostile_archives.ARCHIVES)
def test_a_hostile_archive_is_refused_and_nothing_is_written_outside(
    surroundings: Path, make: Callable[[], bytes], message: str
) -> None:
    package = surroundings / "package.zip"
    package.write_bytes(make())
    refuse(package, message)


@pytest.mark.parametrize(("make", "message"), hostile_archives.BOMBS.values(), ids=hostile_archives.BOMBS)
def test_a_bomb_is_refused_within_little_memory_and_disk(surroundings: Path, make: Callable[[], bytes], message: str) -> None:
    """A process of its own is stopped by the system where it takes more than 100 MiB on top, or writes a file of 2 MiB."""
    package = surroundings / "package.zip"
    package.write_bytes(make())
    script = """
import resource, sys
from pathlib import Path
from packhouse.errors import VerificationFailed
from packhouse.verification.reader import unpack
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20,) * 2)
try:
    unpack(Path("package.zip"), Path("unpacked"))
except VerificationFailed as error:
    sys.exit(f"refused: {error}")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=surroundings, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("refused: ")
    with pytest.raises(VerificationFailed, match=message):
        raise VerificationFailed(done.stderr)
    assert sum(path.stat().st_size for path in surroundings.glob("unpacked/**/*") if path.is_file()) <= MIB + 1000


LIMITS: dict[str, tuple[Limits, str]] = {
    "files": (Limits(max_files=2), "the archive has 3 entries, more than 2"),
    "bytes": (Limits(max_bytes=2999), "together its files would be 3000 bytes; a package may have 2999"),
    "bytes of a file": (Limits(max_file_bytes=999), "a would be 1000 bytes; a file may have 999"),
}


@pytest.mark.parametrize(("limits", "message"), LIMITS.values(), ids=LIMITS)
def test_limits_hold_to_the_byte(surroundings: Path, limits: Limits, message: str) -> None:
    package = surroundings / "package.zip"
    package.write_bytes(build([Part(name, bytes(1000), DEFLATED) for name in "abc"]))
    with pytest.raises(VerificationFailed, match=message):
        unpack(package, surroundings / "refused", limits)
    assert not (surroundings / "refused").exists()
    unpack(package, surroundings / "unpacked", Limits(max_files=3, max_bytes=3000, max_file_bytes=1000))


def test_a_ratio_is_limited_above_a_mebibyte_and_only_where_something_grows(surroundings: Path) -> None:
    package = surroundings / "package.zip"
    package.write_bytes(build([Part("a", bytes(MIB), DEFLATED), Part("b", bytes(3 * MIB))]))
    unpack(package, surroundings / "unpacked", Limits(max_ratio=1))
    package.write_bytes(build([Part("a", bytes(MIB + 1), DEFLATED)]))
    with pytest.raises(VerificationFailed, match=r"a would grow from \d+ to 1048577 bytes, which is more than 1 times"):
        unpack(package, surroundings / "refused", Limits(max_ratio=1))


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    Path(path.name).rename(path)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o020600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices need the rights of root")


def make_name(name: bytes) -> Callable[[Path], Any]:
    return lambda folder: Path(folder, os.fsdecode(name)).write_bytes(b"evil")


def make_folders(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("evil")


def make_deep(folder: Path) -> None:
    current = os.open(folder, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("deep", dir_fd=current)
        below = os.open("deep", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)


IN_FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a link to a file": (lambda folder: (folder / "b").symlink_to("../outside"), "'b' is not a regular file, but a symbolic"),
    "a link to a folder": (lambda folder: (folder / "c").symlink_to("/etc"), "'c' is not a regular file, but a symbolic link"),
    "a link to itself": (lambda folder: (folder / "d").symlink_to("d"), "'d' is not a regular file, but a symbolic link"),
    "a hard link": (lambda folder: (folder / "b").hardlink_to(folder.parent / "outside"), "'b' is hard-linked 2 times"),
    "a pipe": (lambda folder: os.mkfifo(folder / "b"), "'b' is not a regular file, but a pipe"),
    "a socket": (lambda folder: make_socket(folder / "b"), "'b' is not a regular file, but a socket"),
    "a device": (lambda folder: make_device(folder / "b"), "'b' is not a regular file, but a device"),
    "a backslash": (make_name(b"..\\evil"), "is no plain path inside the package"),
    "a name that is not UTF-8": (make_name(b"\xff"), r"'\\udcff' is no plain path"),
    "names that differ in case": (lambda folder: make_files(folder, "A"), "'a' differs from 'A' only in case"),
    "folders that differ in case": (
        lambda folder: make_files(folder, "c/d", "C/D"),
        "'c/d' differs from 'C/D' only in case",
    ),
    "endless folders": (make_deep, "'(deep/)+deep' is no plain path"),
    "a file of a terabyte": (
        lambda folder: os.truncate(make_name(b"sparse")(folder) and folder / "sparse", 1 << 40),
        "sparse would be 1099511627776 bytes; a file may have",
    ),
}


@pytest.mark.parametrize(("make", "message"), IN_FOLDERS.values(), ids=IN_FOLDERS)
def test_a_folder_with_anything_but_files_of_its_own_is_refused(
    surroundings: Path, make: Callable[[Path], Any], message: str
) -> None:
    package = surroundings / "package"
    package.mkdir()
    (package / "a").write_text("a file")
    make(package)
    refuse(package, message)


def test_folders_are_counted_as_files_are(surroundings: Path) -> None:
    make_folders(surroundings, *(f"package/{number}" for number in range(11)))
    refuse_all = Limits(max_files=10)
    with pytest.raises(VerificationFailed, match="the folder has more than 10 files and folders"):
        unpack(surroundings / "package", surroundings / "unpacked", refuse_all)
    package = surroundings / "package.zip"
    package.write_bytes(build([Part(name) for name in ("a", "b/c/d", "b/c/e", "b-/c", "b/f", "g/c/h")]))
    with pytest.raises(VerificationFailed, match="it has 6 files in 5 folders, together more than 10"):
        unpack(package, surroundings / "unpacked", refuse_all)
    unpack(package, surroundings / "unpacked", Limits(max_files=11))


def package_of(folder: Path, files: dict[str, bytes], change: Callable[[dict[str, Any]], Any] = lambda _: None) -> Path:
    """Write a package of one model in `FOLDER`, with a manifest that is right but for `change`."""
    named = {f"{FOLDER}/{name}": content for name, content in files.items()}
    candidate = {
        "name": "evil",
        "digest": "0" * 64,
        "accelerator": "cpu-cpu",
        "rank": 1,
        "overall_rank": 1,
        "decided_by": "accuracy",
        "model_path": f"{FOLDER}/model.onnx",
        "settings_path": f"{FOLDER}/inference_config.json",
        "runtime": "onnxruntime",
        "runtime_version": None,
        "provider_libraries": {},
        "opset": 17,
        "inputs": [],
        "outputs": [],
        "dimensions": {},
        "metrics": {},
        "golden_samples": None,
    }
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in named.items()}
    manifest = {"schema_version": 2, "candidates": [candidate], "files": listed}
    change(manifest)
    content = build([Part(name, data) for name, data in {**named, "manifest.json": json.dumps(manifest).encode()}.items()])
    path = folder / "package.zip"
    path.write_bytes(content)
    return path


def test_the_package_around_the_hostile_models_is_good(surroundings: Path) -> None:
    good = hostile_models.files(hostile_models.add(hostile_models.external()))
    (model,) = verify_package(package_of(surroundings, good)).models
    assert model == VerifiedModel(
        model_path=f"{FOLDER}/model.onnx", outcome="loads on CPUExecutionProvider; there are no golden samples to compare with"
    )


HOSTILE_CONTENT = {**hostile_models.MODELS, **hostile_models.ENTRIES}


@pytest.mark.parametrize(("make", "message"), HOSTILE_CONTENT.values(), ids=HOSTILE_CONTENT)
def test_a_hostile_model_or_setting_is_refused_though_its_digest_is_right(
    surroundings: Path, make: Callable[[], dict[str, bytes]], message: str
) -> None:
    package = package_of(surroundings, make())
    before = snapshot(surroundings, surroundings / "unpacked")
    with pytest.raises(VerificationFailed, match=message) as refused:
        verify_package(package)
    assert snapshot(surroundings, surroundings / "unpacked") == before
    assert str(surroundings) not in str(refused.value)


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a file that is not listed": (lambda m: m["files"].pop(f"{FOLDER}/weights.bin"), "weights.bin is not in the manifest"),
    "a file that is not there": (
        lambda m: m["files"].update({"../outside": {"sha256": "", "size_bytes": 8}}),
        r"\.\./outside is missing",
    ),
    "a size of another kind": (
        lambda m: m["files"].update({f"{FOLDER}/weights.bin": {"sha256": "", "size_bytes": float("nan")}}),
        r"manifest\.json cannot be read: files\..*size_bytes",
    ),
    "no digest": (lambda m: m["files"].update({f"{FOLDER}/weights.bin": {"size_bytes": 8}}), "sha256: Field required"),
    "a model outside": (
        lambda m: m["candidates"][0].update(model_path="../../outside"),
        r"the model '\.\./\.\./outside' is missing",
    ),
    "a model that is the manifest": (
        lambda m: m["candidates"][0].update(model_path="manifest.json"),
        "the model 'manifest.json' is missing",
    ),
}


@pytest.mark.parametrize(("change", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_lies_is_refused(surroundings: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    package = package_of(surroundings, hostile_models.files(hostile_models.add(hostile_models.inline((2,)))), change)
    with pytest.raises(VerificationFailed, match=message):
        verify_package(package)


def test_a_manifest_with_a_key_twice_is_refused(surroundings: Path) -> None:
    text = b'{"schema_version": 2, "candidates": [], "files": {"evil": 1}, "files": {}}'
    package = surroundings / "package.zip"
    package.write_bytes(build([Part("manifest.json", text)]))
    with pytest.raises(VerificationFailed, match=r"manifest\.json cannot be read: it has the key 'files' twice"):
        verify_package(package)


def test_data_that_are_a_link_or_linked_are_refused_in_a_folder(surroundings: Path) -> None:
    for link in (Path.symlink_to, Path.hardlink_to):
        package = surroundings / link.__name__
        package.mkdir()
        for name, content in hostile_models.files(hostile_models.add(hostile_models.external())).items():
            (package / name).write_bytes(content)
        (package / "weights.bin").unlink()
        link(package / "weights.bin", surroundings / "outside.bin")
        with pytest.raises(
            VerificationFailed, match=r"'weights\.bin' is (not a regular file, but a symbolic link|hard-linked)"
        ):
            verify_package(package)
