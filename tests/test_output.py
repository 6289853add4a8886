"""The output folder: what appears there is complete, and what goes wrong leaves what was there before."""

import base64
import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from packhouse import output
from packhouse.artifacts import Artifact, ArtifactStore, owned_suffix
from packhouse.errors import ArtifactError
from packhouse.output import OutputFolder
from packhouse.provenance.config import BESIDE, ENVELOPE_SUFFIX, PROVENANCE_SUFFIX, RUN_SUFFIX
from packhouse.provenance.dsse import Envelope, Signature, parse_envelope
from packhouse.release import Package

NAME = "best"
Content = bytes | dict[str, bytes]
EARLIER: list[Content] = [b"earlier", {"MLmodel": b"earlier", "deep/er/file": b"earlier", "gone": b"earlier"}]
NEW: list[Content] = [b"new", {"MLmodel": b"new", "deep/other": b"new"}]

PUBLISH = """
import json, sys
from pathlib import Path
from packhouse import output
from packhouse.artifacts import ArtifactStore
from packhouse.release import Package
store, folder = ArtifactStore(Path(sys.argv[1])), output.OutputFolder(Path(sys.argv[2]))
packages = [Package.model_validate_json(line) for line in sys.argv[4:]]
if sys.argv[3] == "without exchange":
    output._exchanged = lambda *_: False
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    folder.publish(packages[number % len(packages)], store)
"""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "results")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    """An output folder in which no temporary file is left."""
    made = OutputFolder(tmp_path / "packages")
    yield made
    assert not [path for path in made.path.iterdir() if path.name != NAME]


@pytest.fixture(params=["exchange", "no exchange"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that can let two names change places, and others."""
    if request.param == "no exchange":
        monkeypatch.setattr(output, "_exchanged", lambda *_: False)


def package_of(content: Content, store: ArtifactStore) -> Package:
    """Return a package of one file, or of a folder of files."""
    if isinstance(content, bytes):
        return Package(type="Zipfile", name=NAME, files={NAME: store.put_bytes(content)})
    files = {f"{NAME}/{name}": store.put_bytes(item) for name, item in content.items()}
    return Package(type="MLflowModel", name=NAME, files=files)


def published(folder: OutputFolder) -> Content:
    return content_of(folder.path / NAME)


def content_of(path: Path) -> Content:
    if path.is_file():
        return path.read_bytes()
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("content", NEW, ids=["file", "folder"])
def test_a_package_is_published_with_all_its_files_under_its_name(
    folder: OutputFolder, store: ArtifactStore, content: Content
) -> None:
    assert folder.publish(package_of(content, store), store) == folder.path / NAME
    assert published(folder) == content


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("new", NEW, ids=["file", "folder"])
@pytest.mark.parametrize("earlier", EARLIER, ids=["over a file", "over a folder"])
def test_a_package_replaces_whatever_has_its_name_though_it_is_read_only(
    folder: OutputFolder, store: ArtifactStore, earlier: Content, new: Content
) -> None:
    folder.publish(package_of(earlier, store), store)
    for path in (folder.path / NAME, *(folder.path / NAME).rglob("*")):
        if path.is_file() and path.stat().st_nlink == 1:
            path.chmod(0o444)
    folder.publish(package_of(new, store), store)
    assert published(folder) == new
    folder.publish(package_of(new, store), store)
    assert published(folder) == new


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("new", NEW, ids=["file", "folder"])
def test_a_link_with_the_packages_name_is_replaced_and_what_it_leads_to_stays(
    folder: OutputFolder, store: ArtifactStore, tmp_path: Path, new: Content
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"of somebody else")
    (folder.path / NAME).symlink_to(tmp_path / "elsewhere")
    folder.publish(package_of(new, store), store)
    assert not (folder.path / NAME).is_symlink()
    assert published(folder) == new
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"of somebody else"


def fail_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full in the middle of the last file, and no hard links be possible."""
    copy = shutil.copyfile

    def copyfile(source: Path, target: Path) -> None:
        if Path(source).read_bytes() == b"new" and "deep" not in str(target):
            Path(target).write_bytes(b"n")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        copy(source, target)

    def link(*_: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("new", NEW, ids=["file", "folder"])
@pytest.mark.parametrize("earlier", EARLIER, ids=["over a file", "over a folder"])
def test_a_full_disk_leaves_the_earlier_package_whole_and_nothing_else(
    folder: OutputFolder, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, earlier: Content, new: Content
) -> None:
    folder.publish(package_of(earlier, store), store)
    fail_to_copy(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        folder.publish(package_of(new, store), store)
    assert published(folder) == earlier


@pytest.mark.parametrize("new", NEW, ids=["file", "folder"])
@pytest.mark.parametrize("earlier", EARLIER, ids=["over a file", "over a folder"])
def test_a_failure_at_the_last_moment_leaves_the_earlier_package_whole_and_nothing_else(
    folder: OutputFolder, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, earlier: Content, new: Content
) -> None:
    folder.publish(package_of(earlier, store), store)
    final, move = folder.path / NAME, Path.rename

    def fail(source: Path, target: Path) -> Path:
        if target == final and content_of(source) == new and (not final.exists() or (source.is_file() and final.is_file())):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return move(source, target)

    monkeypatch.setattr(output, "_exchanged", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        folder.publish(package_of(new, store), store)
    assert published(folder) == earlier


def test_a_package_that_another_process_publishes_in_between_is_replaced_too(
    folder: OutputFolder, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two may where names cannot be exchanged: the other is faster just while the earlier package is moved aside."""
    folder.publish(package_of(EARLIER[1], store), store)
    final, move = folder.path / NAME, Path.rename
    others = iter([EARLIER[1], EARLIER[0]])

    def rename(source: Path, target: Path) -> Path:
        moved = move(source, target)
        if source == final and (other := next(others, None)):
            with monkeypatch.context() as undone:
                undone.setattr(Path, "rename", move)
                folder.publish(package_of(other, store), store)
        return moved

    monkeypatch.setattr(output, "_exchanged", lambda *_: False)
    monkeypatch.setattr(Path, "rename", rename)
    folder.publish(package_of(NEW[1], store), store)
    assert published(folder) == NEW[1]
    assert next(others, None) is None


@pytest.mark.parametrize("new", NEW, ids=["file", "folder"])
def test_bytes_that_the_store_lost_are_an_error_that_names_them_and_the_earlier_package_stays(
    folder: OutputFolder, store: ArtifactStore, new: Content
) -> None:
    folder.publish(package_of(EARLIER[0], store), store)
    package = package_of(new, store)
    blob = store.path(list(package.files.values())[-1].sha256)
    blob.unlink()
    with pytest.raises(ArtifactError, match=blob.name):
        folder.publish(package, store)
    assert published(folder) == EARLIER[0]


def test_a_package_that_was_changed_in_the_output_folder_is_not_what_the_next_run_publishes(
    folder: OutputFolder, store: ArtifactStore
) -> None:
    package = package_of(NEW[1], store)
    folder.publish(package, store)
    (folder.path / NAME / "MLmodel").write_bytes(b"changed by hand")
    folder.publish(package, store)
    assert published(folder) == NEW[1]


@pytest.mark.parametrize("exchange", ["with exchange", "without exchange"])
@pytest.mark.parametrize(
    "contents", [NEW[:1] + EARLIER[:1], NEW[1:] + EARLIER[1:], [*NEW, *EARLIER]], ids=["files", "folders", "both"]
)
def test_two_processes_that_publish_one_name_at_once_both_succeed_and_it_never_disappears(
    folder: OutputFolder, store: ArtifactStore, contents: list[Content], exchange: str
) -> None:
    packages = [package_of(content, store) for content in contents]
    folder.publish(packages[0], store)
    texts = [package.model_dump_json() for package in packages]
    processes = [start_to_publish(folder, exchange, order) for order in (texts, texts[::-1])]
    for process in processes:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    looked = 0
    while any(process.poll() is None for process in processes):
        assert os.path.lexists(folder.path / NAME) or exchange == "without exchange"
        looked += 1
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert looked > 10
    assert published(folder) in contents


def start_to_publish(folder: OutputFolder, exchange: str, packages: list[str]) -> subprocess.Popen[str]:
    root = folder.path.with_name("results")
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISH, str(root), str(folder.path), exchange, *packages],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_reader_that_opened_the_earlier_file_reads_it_to_its_end(folder: OutputFolder, store: ArtifactStore) -> None:
    folder.publish(package_of(EARLIER[0], store), store)
    with (folder.path / NAME).open("rb") as reader:
        folder.publish(package_of(NEW[0], store), store)
        assert reader.read() == EARLIER[0]


def is_held(folder: OutputFolder) -> bool:
    """Whether another run would have to wait for the folder."""
    descriptor = os.open(folder.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def test_a_run_has_the_folder_to_itself_until_it_ends_or_fails(folder: OutputFolder) -> None:
    with folder.exclusive():
        assert is_held(folder)
    assert not is_held(folder)
    with pytest.raises(ZeroDivisionError), folder.exclusive():
        raise ZeroDivisionError
    assert not is_held(folder)


def test_what_a_killed_run_left_beside_is_removed_and_what_may_be_in_use_is_not(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "packages")
    dead = subprocess.run(["/bin/sh", "-c", "echo $$"], check=True, capture_output=True, text=True).stdout.strip()
    own = f".best{owned_suffix()}"
    of_dead = own.replace(f"-{os.getpid()}-", f"-{dead}-")
    elsewhere = of_dead.replace(of_dead.split(".")[2].split("-")[0], "00000000")
    elsewhere_old = elsewhere.replace(".best", ".a")
    for name in (own, of_dead, elsewhere, elsewhere_old, ".x"):
        (folder.path / name / "deep").mkdir(parents=True)
        if name in (own, elsewhere_old, ".x"):
            os.utime(folder.path / name, (0, 0))
    with folder.exclusive():
        assert {path.name for path in folder.path.iterdir()} == {own, elsewhere, ".x"}


@pytest.mark.parametrize("content", NEW, ids=["file", "folder"])
def test_a_package_is_known_to_be_there_by_its_very_bytes_linked_or_copied(
    folder: OutputFolder, store: ArtifactStore, content: Content
) -> None:
    package = package_of(content, store)
    assert not folder.has(package, store)
    folder.publish(package, store)
    assert folder.has(package, store)
    place = folder.path / NAME
    copied = shutil.copy(place, place.with_name("copy")) if place.is_file() else None
    if copied:
        Path(copied).replace(place)
        assert folder.has(package, store)
    folder.publish(package_of(EARLIER[1], store), store)
    assert not folder.has(package, store)


def test_a_folder_with_one_file_more_or_other_bytes_is_not_the_package(folder: OutputFolder, store: ArtifactStore) -> None:
    package = package_of(NEW[1], store)
    folder.publish(package, store)
    (folder.path / NAME / "more").write_bytes(b"")
    assert not folder.has(package, store)
    (folder.path / NAME / "more").unlink()
    assert folder.has(package, store)
    (folder.path / NAME / "MLmodel").write_bytes(b"old")
    assert not folder.has(package, store)


def beside_of(package: Package, store: ArtifactStore, suffixes: Sequence[str] = BESIDE) -> dict[str, Artifact]:
    """Return what lies beside a package, each saying of which one it speaks; the signature is of the provenance."""
    said = package.digest.encode()
    signed = Envelope(payload=base64.b64encode(said).decode(), payload_type="text", signatures=(Signature(sig="x"),))
    contents = {suffix: signed.to_json() if suffix == ENVELOPE_SUFFIX else said for suffix in suffixes}
    return {package.name + suffix: store.put_bytes(content) for suffix, content in contents.items()}


def subjects(path: Path) -> dict[str, str | None]:
    """Return the digest of the package that each file beside a package speaks of; None for those that are not there."""
    found: dict[str, str | None] = {}
    for suffix in BESIDE:
        beside = path.with_name(path.name + suffix)
        text = beside.read_bytes() if beside.exists() else None
        found[suffix] = (parse_envelope(text, "").content if suffix == ENVELOPE_SUFFIX else text).decode() if text else None
    return found


@pytest.fixture
def busy(tmp_path: Path) -> OutputFolder:
    """An output folder in which more lies than a package."""
    return OutputFolder(tmp_path / "packages")


@pytest.mark.parametrize("content", NEW, ids=["file", "folder"])
def test_what_lies_beside_a_package_comes_with_it_and_goes_when_another_takes_its_place(
    busy: OutputFolder, store: ArtifactStore, content: Content
) -> None:
    package, other = package_of(content, store), package_of(EARLIER[0], store)
    for suffixes in (BESIDE, (PROVENANCE_SUFFIX, RUN_SUFFIX)):
        busy.publish(package, store, beside_of(package, store, suffixes))
        assert subjects(busy.path / NAME) == {suffix: package.digest if suffix in suffixes else None for suffix in BESIDE}
    busy.publish(other, store, beside_of(other, store))
    assert set(subjects(busy.path / NAME).values()) == {other.digest}
    busy.publish(package, store)
    assert [path.name for path in busy.path.iterdir()] == [NAME]


@pytest.mark.parametrize("earlier", [None, *EARLIER], ids=["first", "over a file", "over a folder"])
@pytest.mark.parametrize("new", NEW, ids=["file", "folder"])
def test_a_signed_package_is_at_no_moment_without_a_signature_and_nothing_else_speaks_of_another(
    busy: OutputFolder, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, earlier: Content | None, new: Content
) -> None:
    """Looked at after every single change of a name; a replaced package has the next one's signature for one of them."""
    contents = [content for content in (earlier, new) if content]
    packages = [package_of(content, store) for content in contents]
    beside = [beside_of(package, store) for package in packages]
    if earlier:
        busy.publish(packages[0], store, beside[0])
    signed_as_it_is: list[bool] = []

    def look() -> None:
        if not (busy.path / NAME).exists():
            assert not earlier
            return
        there, about = packages[contents.index(published(busy))].digest, subjects(busy.path / NAME)
        assert about[ENVELOPE_SUFFIX]
        assert {about[PROVENANCE_SUFFIX], about[RUN_SUFFIX]} <= {there, None}
        signed_as_it_is.append(about[ENVELOPE_SUFFIX] == there)

    def watched(change: Callable[..., Any]) -> Callable[..., Any]:
        def changing(*arguments: Any, **options: Any) -> Any:
            done = change(*arguments, **options)
            look()
            return done

        return changing

    for owner, name in ((Path, "replace"), (Path, "rename"), (Path, "unlink"), (output, "_exchanged")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    busy.publish(packages[-1], store, beside[-1])
    assert len(signed_as_it_is) >= 3
    assert signed_as_it_is.count(False) == (1 if earlier else 0)
    assert set(subjects(busy.path / NAME).values()) == {packages[-1].digest}


def fail_to_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk fail when the package is to take its place."""

    def fail(*_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(output, "_replace", fail)


@pytest.mark.parametrize("fail", [fail_to_copy, fail_to_exchange])
@pytest.mark.parametrize("suffixes", [BESIDE, (PROVENANCE_SUFFIX, RUN_SUFFIX)], ids=["signed", "not signed"])
def test_what_lies_beside_a_package_stays_while_no_other_can_take_its_place(
    busy: OutputFolder,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[pytest.MonkeyPatch], None],
    suffixes: Sequence[str],
) -> None:
    package, other = package_of(EARLIER[1], store), package_of(NEW[1], store)
    busy.publish(package, store, beside_of(package, store, suffixes))
    before = content_of(busy.path)
    beside = beside_of(other, store)
    fail(monkeypatch)
    with pytest.raises(OSError, match=r"No space left|Input/output error"):
        busy.publish(other, store, beside)
    assert content_of(busy.path) == before


def test_a_package_is_there_only_with_all_that_should_lie_beside_it_and_signatures_may_be_added(
    busy: OutputFolder, store: ArtifactStore
) -> None:
    package, other = package_of(NEW[0], store), package_of(NEW[1], store)
    plain, signed = beside_of(package, store, (PROVENANCE_SUFFIX, RUN_SUFFIX)), beside_of(package, store)
    busy.publish(package, store, plain)
    assert busy.has(package, store, plain)
    assert not busy.has(package, store, signed)
    assert not busy.has(package, store)
    busy.publish(package, store, signed)
    assert busy.has(package, store, signed)
    assert busy.has(package, store, plain)
    for wrong in (store.path(beside_of(other, store)[NAME + ENVELOPE_SUFFIX].sha256).read_bytes(), b"no envelope"):
        busy.write(NAME + ENVELOPE_SUFFIX, wrong)
        assert not busy.has(package, store, plain)
    busy.publish(package, store, signed)
    busy.write(NAME + RUN_SUFFIX, b"of another run")
    assert not busy.has(package, store, signed)


def test_a_folder_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"the output folder .*file cannot be written: .*File exists"):
        OutputFolder(tmp_path / "file")
    folder = OutputFolder(tmp_path / "packages")
    with pytest.raises(ArtifactError, match="No space left on device; free space on that disk"), folder.exclusive():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_written_appears_whole_and_over_a_read_only_file(folder: OutputFolder) -> None:
    assert folder.write(NAME, b"earlier") == folder.path / NAME
    (folder.path / NAME).chmod(0o444)
    folder.write(NAME, b"new")
    assert published(folder) == b"new"


def test_a_write_that_fails_leaves_the_earlier_file_whole(folder: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(NAME, b"earlier")
    write = Path.write_bytes

    def fail(path: Path, content: bytes) -> int:
        write(path, content[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        folder.write(NAME, b"new")
    assert published(folder) == b"earlier"


def test_the_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert OutputFolder(tmp_path / "not" / "there").path.is_dir()


def test_a_package_without_files_is_refused_and_the_earlier_one_stays(folder: OutputFolder, store: ArtifactStore) -> None:
    folder.publish(package_of(EARLIER[1], store), store)
    with pytest.raises(FileNotFoundError):
        folder.publish(Package(type="MLflowModel", name=NAME, files={}), store)
    assert published(folder) == EARLIER[1]


def test_names_as_long_as_a_package_may_have_are_published(tmp_path: Path, store: ArtifactStore) -> None:
    name = "ä" * 100 + ".azureml-models"
    folder = OutputFolder(tmp_path / "packages")
    package = Package(type="Zipfile", name=name, files={name: store.put_bytes(b"new")})
    folder.publish(package, store, beside_of(package, store))
    assert {path.name for path in folder.path.iterdir()} == {name, *(name + suffix for suffix in BESIDE)}
