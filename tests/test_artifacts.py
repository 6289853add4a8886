"""The content-addressed store: what is under a digest is complete and is that, whoever writes and whatever fails."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.artifacts import CHUNK_BYTES, Artifact, ArtifactStore, measure, measure_bytes
from packhouse.errors import ArtifactError

CONTENT = b"weights of a model"
ARTIFACT = Artifact(sha256=hashlib.sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT))
WITH_CRC32 = ARTIFACT.model_copy(update={"crc32": zlib.crc32(CONTENT)})
BIG = 2 * CHUNK_BYTES + 3
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(CONTENT)
    return path


def blobs(store_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store_folder / "blobs" / "sha256").glob("*")}


def left_over(store_folder: Path) -> list[Path]:
    """Return what lies in the store's folder besides the blobs."""
    return [path for path in store_folder.rglob("*") if path.is_file() and path.parent.name != "sha256"]


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that runs `script` with `store` at hand; `arguments` are in `sys.argv` after the folder."""
    preamble = (
        "import os, resource, sys; from pathlib import Path; from packhouse.artifacts import ArtifactStore; "
        "store = ArtifactStore(Path(sys.argv[1]));"
    )
    command = [sys.executable, "-c", f"{preamble}\n{script}", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class TestMeasure:
    def test_a_file_has_the_digests_that_others_compute(self, source: Path) -> None:
        assert measure(source) == ARTIFACT
        assert measure(source, with_crc32=True) == WITH_CRC32

    @pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, BIG])
    def test_a_file_of_any_size_is_copied_on_the_way(self, tmp_path: Path, size: int) -> None:
        content = os.urandom(size)
        (tmp_path / "a").write_bytes(content)

        found = measure(tmp_path / "a", tmp_path / "b", with_crc32=True)

        assert (found.sha256, found.size_bytes) == (hashlib.sha256(content).hexdigest(), size)
        assert found.crc32 == zlib.crc32(content)
        assert (tmp_path / "b").read_bytes() == content

    @given(content=st.binary())
    def test_bytes_and_files_have_the_same_digests(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.getbasetemp() / "content"
        path.write_bytes(content)

        assert measure(path) == measure_bytes(content)

    def test_a_link_is_refused(self, source: Path) -> None:
        link = source.with_name("link")
        link.symlink_to(source)

        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            measure(link)


class TestPut:
    def test_what_was_put_is_under_its_digest(self, store: ArtifactStore, source: Path) -> None:
        assert ARTIFACT.sha256 not in store

        assert store.put(source) == WITH_CRC32

        assert ARTIFACT.sha256 in store
        assert store.path(ARTIFACT.sha256).read_bytes() == CONTENT
        assert source.read_bytes() == CONTENT

    def test_bytes_are_put_like_files(self, store: ArtifactStore, tmp_path: Path) -> None:
        assert store.put_bytes(CONTENT) == ARTIFACT
        assert blobs(tmp_path / "store") == {ARTIFACT.sha256: CONTENT}

    def test_what_is_stored_is_read_only_and_independent_of_its_source(self, store: ArtifactStore, source: Path) -> None:
        store.put(source)
        source.write_bytes(b"something else")

        assert store.path(ARTIFACT.sha256).stat().st_mode & 0o777 == 0o444
        assert store.path(ARTIFACT.sha256).read_bytes() == CONTENT

    def test_putting_again_changes_nothing(self, store: ArtifactStore, source: Path, tmp_path: Path) -> None:
        assert store.put(source) == store.put(source) == WITH_CRC32
        assert store.put_bytes(CONTENT) == ARTIFACT
        assert blobs(tmp_path / "store") == {ARTIFACT.sha256: CONTENT}
        assert left_over(tmp_path / "store") == []

    def test_putting_again_mends_a_damaged_blob(self, store: ArtifactStore, source: Path) -> None:
        damage(store)

        store.put(source)

        assert store.path(ARTIFACT.sha256).read_bytes() == CONTENT

    def test_a_file_that_is_not_what_was_expected_is_refused(self, store: ArtifactStore, source: Path, tmp_path: Path) -> None:
        source.write_bytes(CONTENT + b"!")

        with pytest.raises(ArtifactError) as caught:
            store.put(source, expected=WITH_CRC32)

        assert str(caught.value) == f"{source} changed while it was being received; leave it alone and run again"
        assert blobs(tmp_path / "store") == {}
        assert left_over(tmp_path / "store") == []

    @pytest.mark.parametrize("kind", ["missing", "link", "folder"])
    def test_what_is_no_file_is_refused(self, store: ArtifactStore, source: Path, tmp_path: Path, kind: str) -> None:
        path = tmp_path / kind
        if kind == "link":
            path.symlink_to(source)
        elif kind == "folder":
            path.mkdir()

        with pytest.raises(ArtifactError, match=f"{path} cannot be stored"):
            store.put(path)

        assert blobs(tmp_path / "store") == {}

    def test_what_was_made_in_staging_is_adopted_without_a_copy(self, store: ArtifactStore) -> None:
        with store.staging() as folder:
            (folder / "made").write_bytes(CONTENT)
            inode = (folder / "made").stat().st_ino

            assert store.adopt(folder / "made") == ARTIFACT
            assert list(folder.iterdir()) == []

        assert store.path(ARTIFACT.sha256).stat().st_ino == inode

    def test_processes_that_put_the_same_bytes_at_once_all_succeed(self, tmp_path: Path) -> None:
        content = os.urandom(BIG)
        (tmp_path / "big").write_bytes(content)
        script = (
            "print('ready', flush=True); sys.stdin.readline()\nfor _ in range(5): print(store.put(Path(sys.argv[2])).sha256)"
        )
        processes = [start(script, tmp_path / "store", tmp_path / "big") for _ in range(4)]
        for process in processes:
            assert process.stdout
            process.stdout.readline()

        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=120) for process in processes]

        digest = hashlib.sha256(content).hexdigest()
        assert [answer for answer, _ in answers] == [f"{digest}\n" * 5] * 4
        assert blobs(tmp_path / "store") == {digest: content}
        assert left_over(tmp_path / "store") == []


class TestFailures:
    def test_a_full_disk_leaves_nothing_under_the_digest(self, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(bytes(BIG))
        script = (
            "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
            "try: store.put(Path(sys.argv[2]))\n"
            "except Exception as error: print(type(error).__name__, error)"
        )

        out, err = start(script, tmp_path / "store", tmp_path / "big").communicate(timeout=60)

        assert out.startswith(f"ArtifactError {tmp_path / 'big'} cannot be stored"), err
        assert "[Errno 27] File too large" in out
        assert "free space" in out
        assert blobs(tmp_path / "store") == {}
        assert left_over(tmp_path / "store") == []

    def test_a_disk_that_is_full_at_the_last_byte_leaves_nothing_under_the_digest(self, tmp_path: Path) -> None:
        # A short file stays in the writer's buffer until it is closed.
        (tmp_path / "small").write_bytes(bytes(1000))
        script = (
            "resource.setrlimit(resource.RLIMIT_FSIZE, (999, 999))\n"
            "try: store.put(Path(sys.argv[2]))\n"
            "except Exception as error: print(type(error).__name__)"
        )

        out, err = start(script, tmp_path / "store", tmp_path / "small").communicate(timeout=60)

        assert out == "ArtifactError\n", err
        assert blobs(tmp_path / "store") == {}

    def test_bytes_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        script = (
            "resource.setrlimit(resource.RLIMIT_FSIZE, (999, 999))\n"
            "try: store.put_bytes(bytes(1000))\n"
            "except Exception as error: print(type(error).__name__, error)"
        )

        out, err = start(script, tmp_path / "store").communicate(timeout=60)

        assert out.startswith("ArtifactError 1000 bytes cannot be stored"), err
        assert blobs(tmp_path / "store") == {}

    def test_a_process_that_is_killed_while_it_puts_leaves_nothing_under_a_digest(
        self, tmp_path: Path, store: ArtifactStore
    ) -> None:
        os.mkfifo(tmp_path / "endless")
        process = start("store.put(Path(sys.argv[2]))", tmp_path / "store", tmp_path / "endless")

        with (tmp_path / "endless").open("wb") as writer:
            writer.write(bytes(CHUNK_BYTES))
            writer.flush()
            process.kill()
            process.wait(timeout=60)

        assert process.returncode == -signal.SIGKILL
        assert blobs(tmp_path / "store") == {}
        assert store.put_bytes(CONTENT) == ARTIFACT

    def test_a_store_in_a_place_that_takes_nothing_says_so(self, tmp_path: Path, source: Path) -> None:
        (tmp_path / "store").write_text("a file where the folder should be")

        with pytest.raises(ArtifactError, match="cannot be stored"):
            ArtifactStore(tmp_path / "store").put(source)


class TestStaging:
    def test_it_is_on_the_file_system_of_the_blobs_and_gone_afterwards(self, store: ArtifactStore, tmp_path: Path) -> None:
        with store.staging() as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "file").write_bytes(CONTENT)
            (folder / "deep" / "file").chmod(0o444)
            assert folder.is_relative_to(tmp_path / "store")

        assert not folder.exists()
        assert left_over(tmp_path / "store") == []

    def test_it_is_gone_after_an_exception_too(self, store: ArtifactStore, tmp_path: Path) -> None:
        folders = []

        def fail() -> None:
            with store.staging() as folder:
                folders.append(folder)
                (folder / "half").write_bytes(CONTENT)
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            fail()

        assert not folders[0].exists()
        assert left_over(tmp_path / "store") == []

    def test_two_at_once_do_not_see_each_other(self, store: ArtifactStore) -> None:
        with store.staging() as first, store.staging() as second:
            (first / "a").write_bytes(CONTENT)
            assert list(second.iterdir()) == []


def damage(store: ArtifactStore, content: bytes = CONTENT[:-1] + b"?") -> Path:
    """Store `CONTENT`, change it behind the store's back, and return the path of the blob."""
    store.put_bytes(CONTENT)
    path = store.path(ARTIFACT.sha256)
    path.chmod(0o644)
    path.write_bytes(content)
    return path


class TestReading:
    def test_what_was_put_is_intact(self, store: ArtifactStore) -> None:
        assert store.is_intact(store.put_bytes(CONTENT))

    @pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", CONTENT[:-1], CONTENT + b"?", b""])
    def test_a_damaged_blob_is_not_intact(self, store: ArtifactStore, content: bytes) -> None:
        damage(store, content)

        assert not store.is_intact(ARTIFACT)

    def test_a_missing_blob_is_not_intact(self, store: ArtifactStore) -> None:
        assert not store.is_intact(ARTIFACT)

    def test_a_missing_blob_says_what_to_do(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError) as caught:
            store.path(ARTIFACT.sha256)

        message, _, remedy = str(caught.value).partition("; ")
        assert message == f"{tmp_path / 'store' / 'blobs' / 'sha256' / ARTIFACT.sha256} is missing from the result storage"
        assert remedy.startswith("run again")


class TestPlace:
    def test_it_links_where_it_can(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put_bytes(CONTENT)

        store.place(ARTIFACT, tmp_path / "out.bin")

        assert (tmp_path / "out.bin").samefile(store.path(ARTIFACT.sha256))

    @pytest.mark.parametrize("refusal", [errno.EXDEV, errno.EPERM, errno.EMLINK])
    def test_it_copies_where_it_cannot_link(
        self, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(refusal, os.strerror(refusal))

        store.put_bytes(CONTENT)
        monkeypatch.setattr(os, "link", refuse)

        store.place(ARTIFACT, tmp_path / "out.bin")

        assert (tmp_path / "out.bin").read_bytes() == CONTENT
        assert not (tmp_path / "out.bin").samefile(store.path(ARTIFACT.sha256))

    @pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="there is no second file system at hand")
    def test_it_copies_to_another_file_system(self, tmp_path: Path) -> None:
        source_store = ArtifactStore(SHARED_MEMORY / f"packhouse-{os.getpid()}")
        try:
            source_store.put_bytes(CONTENT)
            source_store.place(ARTIFACT, tmp_path / "out.bin")
        finally:
            shutil.rmtree(SHARED_MEMORY / f"packhouse-{os.getpid()}")

        assert (tmp_path / "out.bin").read_bytes() == CONTENT

    def test_it_replaces_what_was_there_and_leaves_its_other_names_alone(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put_bytes(CONTENT)
        (tmp_path / "out.bin").write_bytes(b"old")
        (tmp_path / "kept.bin").hardlink_to(tmp_path / "out.bin")

        store.place(ARTIFACT, tmp_path / "out.bin")

        assert (tmp_path / "out.bin").read_bytes() == CONTENT
        assert (tmp_path / "kept.bin").read_bytes() == b"old"

    def test_it_places_again_over_itself(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put_bytes(CONTENT)

        for _ in range(2):
            store.place(ARTIFACT, tmp_path / "out.bin")

        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.bin"]

    @pytest.mark.parametrize("is_missing", [True, False])
    def test_what_fails_leaves_the_old_file_and_nothing_beside_it(
        self, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_missing: bool
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        if not is_missing:
            store.put_bytes(CONTENT)
            monkeypatch.setattr(os, "link", refuse)
            monkeypatch.setattr("shutil.copyfile", refuse)
        (tmp_path / "out.bin").write_bytes(b"old")

        with pytest.raises(ArtifactError if is_missing else OSError):
            store.place(ARTIFACT, tmp_path / "out.bin")

        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == {"out.bin": b"old"}
