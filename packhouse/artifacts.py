"""The content-addressed store: every file lies under the SHA-256 of its bytes, in the result storage.

Files are streamed, never held in memory, and appear under their digest only when they are complete. A digest is checked
when bytes go in and when they come out, so what is read is what was written.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from packhouse.errors import ArtifactError, explained
from packhouse.records import Record, digest_of
from packhouse.transient import may_pass

# Larger pieces leave the processor's cache between reading and hashing, and make writing several times slower.
CHUNK_BYTES = 256 << 10
ORPHAN_AGE_S = 86_400
OWNED = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp$")


class Artifact(Record):
    """A file in the store, by the digest of its bytes. `crc32` is what ZIP archives check, where it was computed."""

    sha256: str
    size_bytes: int
    crc32: int | None = None


class ArtifactStore:
    """Files under ``blobs/sha256/<hex>`` of a folder, by default that of Prefect's local result storage."""

    def __init__(self, root: Path) -> None:
        """Use the folder `root`, which is made when the first file is put there."""
        self._blobs = root / "blobs" / "sha256"

    def path(self, sha256: str) -> Path:
        """Return where the bytes of a digest lie; read-only. Raises ArtifactError where they are missing."""
        path = self._blobs / sha256
        if not path.is_file():
            raise ArtifactError(f"{path} is missing from the result storage; run again with PREFECT_TASKS_REFRESH_CACHE=true")
        return path

    def __contains__(self, sha256: str) -> bool:
        """Whether the store has the bytes of a digest."""
        return (self._blobs / sha256).is_file()

    def put(self, source: Path, expected: Artifact | None = None) -> Artifact:
        """Copy a file into the store and return its artifact.

        Raises:
            ArtifactError: the bytes are not those of `expected`, because the file changed after it was looked at, or they
                cannot be read or written.
        """
        with storing(source), self.staging() as staging:
            copy = staging / "blob"
            artifact = measure(source, copy, with_crc32=True)
            if expected is not None and artifact != expected:
                raise ArtifactError(f"{source} changed while it was being received; leave it alone and run again")
            return self._adopt(copy, artifact)

    def adopt(self, source: Path) -> Artifact:
        """Move a file that was made in `staging` into the store, without copying it. Raises ArtifactError."""
        with storing(source):
            return self._adopt(source, measure(source))

    def put_bytes(self, content: bytes) -> Artifact:
        """Store `content` and return its artifact. Raises ArtifactError where it cannot be written."""
        with storing(f"{len(content)} bytes"), self.staging() as staging:
            (staging / "blob").write_bytes(content)
            return self.adopt(staging / "blob")

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a fresh folder on the store's own file system; what is left in it afterwards is removed."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".staging", suffix=owned_suffix(), dir=self._blobs.parent) as folder:
            yield Path(folder)

    def remove_orphans(self) -> None:
        """Remove what processes that were killed left in `staging`."""
        if self._blobs.parent.is_dir():
            remove_orphans(self._blobs.parent)

    def is_intact(self, artifact: Artifact) -> bool:
        """Whether the store has an artifact, and all its bytes can be read and are what they were when they were put there."""
        try:
            return artifact.sha256 in self and measure(self.path(artifact.sha256)).sha256 == artifact.sha256
        except OSError:
            return False

    def is_linked(self, artifact: Artifact, path: Path) -> bool:
        """Whether the file at `path` is the stored one itself, by another name."""
        return artifact.sha256 in self and path.samefile(self.path(artifact.sha256))

    def place(self, artifact: Artifact, destination: Path) -> None:
        """Put an artifact at `destination`, replacing what is there in one step: a link where possible, else a copy."""
        source = self.path(artifact.sha256)
        beside = destination.with_name(f".{owned_suffix()}")
        try:
            try:
                os.link(source, beside)
            except OSError:
                shutil.copyfile(source, beside)
            beside.replace(destination)
        finally:
            beside.unlink(missing_ok=True)

    def _adopt(self, path: Path, artifact: Artifact) -> Artifact:
        path.chmod(0o444)
        path.replace(self._blobs / artifact.sha256)
        return artifact


def owned_suffix() -> str:
    """Return an ending for the name of something temporary that says which process of which machine it belongs to."""
    return f".{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.tmp"


@cache
def _machine() -> str:
    """Return a name of all that sees the same processes under the same ids: a start of the kernel, and a namespace in it."""
    try:
        made_of = [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    except OSError:  # nothing is known of other processes then, as if each were on a machine of its own
        made_of = [os.urandom(16).hex()]
    return digest_of(made_of)[:8]


def remove_orphans(folder: Path) -> None:
    """Remove hidden temporary files and folders in `folder` whose process is no more.

    Those of another machine that shares the folder, whose processes cannot be seen, are removed when they are a day old.
    """
    for path in folder.glob(".*.tmp"):
        owner = OWNED.search(path.name)
        try:
            is_old = time.time() - path.lstat().st_mtime > ORPHAN_AGE_S
        except FileNotFoundError:  # its own run was faster
            continue
        if owner and (not Path("/proc", owner[2]).exists() if owner[1] == _machine() else is_old):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def storing(what: object) -> Iterator[None]:
    """Turn the system's refusal to read or write while `what` is stored into an ArtifactError."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{what} cannot be stored with the results: {explained(error)}", is_transient=may_pass(error)
        ) from error


def measure_bytes(content: bytes) -> Artifact:
    """Return the artifact that `content` would be."""
    return Artifact(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def measure(source: Path, copy_to: Path | None = None, *, with_crc32: bool = False) -> Artifact:
    """Read a file once for its size and digests, copying it on the way if asked. A link is refused (OSError)."""
    sha256, crc32, size_bytes = hashlib.sha256(), 0, 0
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with ExitStack() as files:
        reader = files.enter_context(os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0))
        writer = files.enter_context(copy_to.open("wb")) if copy_to else None
        while count := reader.readinto(buffer):
            sha256.update(buffer[:count])
            crc32 = zlib.crc32(buffer[:count], crc32) if with_crc32 else 0
            size_bytes += count
            if writer:
                writer.write(buffer[:count])
    return Artifact(sha256=sha256.hexdigest(), size_bytes=size_bytes, crc32=crc32 if with_crc32 else None)
