"""The output folder: whatever appears there is complete, and replaces what was there in one step."""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packhouse.artifacts import Artifact, ArtifactStore, measure, measure_bytes, owned_suffix, remove_orphans
from packhouse.errors import ArtifactError, VerificationFailed, explained
from packhouse.provenance.config import BESIDE, ENVELOPE_SUFFIX
from packhouse.provenance.dsse import parse_envelope
from packhouse.release import Package
from packhouse.transient import may_pass

# What the system says where a file is to replace a folder, or a folder anything but an empty one.
OCCUPIED = (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST)
MAX_START_BYTES = 100  # of a hidden name, to which more is added than to the name that it begins like
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


class OutputFolder:
    """A folder that people look into while runs write to it, maybe several at once."""

    def __init__(self, path: Path) -> None:
        """Use the folder at `path`; it is made if needed. Raises ArtifactError where it cannot be."""
        self.path = path.absolute()
        with self._taking():
            self.path.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder for the body, so that all that one run publishes stays together; waits for another run that does.

        What a run left beside when it was killed is removed.

        Raises:
            ArtifactError: the body, or this, could not write.
        """
        with self._taking():
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                remove_orphans(self.path)
                yield
            finally:
                os.close(descriptor)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file and return its path."""
        with self._hidden(name) as new:
            new.write_bytes(content)
            new.replace(self.path / name)
        return self.path / name

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def publish(self, package: Package, store: ArtifactStore, beside: Mapping[str, Artifact] = {}) -> Path:
        """Put a package there with what lies `beside` it, files by name, and return its path.

        All is written under hidden names first, and then takes its place: the signature just before the package, which is
        never there without one if it has one; the other files after it, and those of an earlier package go before. What
        fails until then leaves everything as it was.

        Raises:
            ArtifactError: the store has lost its bytes.
        """
        place, names = self.path / package.name, [package.name + suffix for suffix in BESIDE]
        signature = package.name + ENVELOPE_SUFFIX
        with contextlib.ExitStack() as hidden:
            new = {name: hidden.enter_context(self._hidden(name)) for name in (package.name, *beside)}
            _lay_out(package, new[package.name], store)
            for name, artifact in beside.items():
                shutil.copyfile(store.path(artifact.sha256), new[name])
            with self._as_before_if_failing(names):
                for name in names:
                    if name != signature or name not in beside:
                        self.remove(name)
                if signature in beside:
                    new[signature].replace(self.path / signature)
                _replace(place, new[package.name])
            for name in beside.keys() - {signature}:
                new[name].replace(self.path / name)
        return place

    def has(self, package: Package, store: ArtifactStore, beside: Mapping[str, Artifact] = {}) -> bool:
        """Whether a package is there with exactly its files, and what lies `beside` it; another run may have put its own there.

        Signatures may have been added to its provenance meanwhile.
        """
        return self._has_files(package, store) and self._has_beside(package, beside)

    def _has_files(self, package: Package, store: ArtifactStore) -> bool:
        place = self.path / package.name
        found = {path.relative_to(self.path).as_posix() for path in (place, *place.rglob("*")) if path.is_file()}
        return found == set(package.files) and all(
            store.is_linked(artifact, self.path / name) or measure(self.path / name).sha256 == artifact.sha256
            for name, artifact in package.files.items()
        )

    def _has_beside(self, package: Package, beside: Mapping[str, Artifact]) -> bool:
        """Whether provenance and run record are those, or missing if they are, and a signature is of that provenance."""
        wanted = {name: artifact.sha256 for name, artifact in beside.items()}
        provenance, envelope, record = (package.name + suffix for suffix in BESIDE)
        if any(self._digest(name) != wanted.get(name) for name in (provenance, record)):
            return False
        if self._digest(envelope) is None:
            return envelope not in wanted
        try:
            signed = parse_envelope((self.path / envelope).read_bytes(), envelope).content
        except VerificationFailed:
            return False
        return measure_bytes(signed).sha256 == wanted.get(provenance)

    def _digest(self, name: str) -> str | None:
        path = self.path / name
        return measure(path).sha256 if path.is_file() and not path.is_symlink() else None

    @contextlib.contextmanager
    def _as_before_if_failing(self, names: Sequence[str]) -> Iterator[None]:
        """Write files back, or remove them, if the body fails."""
        earlier = {name: (self.path / name).read_bytes() for name in names if (self.path / name).is_file()}
        try:
            yield
        except OSError:
            for name in names:
                if name in earlier:
                    self.write(name, earlier[name])
                else:
                    self.remove(name)
            raise

    @contextlib.contextmanager
    def _hidden(self, name: str) -> Iterator[Path]:
        """Give the path of something new before it takes its place; what is left there is removed."""
        path = self._beside(name)
        try:
            yield path
        finally:
            _remove(path)

    @contextlib.contextmanager
    def _taking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"the output folder {self.path} cannot be written: {explained(error)}"
            raise ArtifactError(reason, is_transient=may_pass(error)) from error

    def _beside(self, name: str) -> Path:
        start = name.encode()[:MAX_START_BYTES].decode(errors="ignore")
        return self.path / f".{start}{owned_suffix()}"


def _lay_out(package: Package, place: Path, store: ArtifactStore) -> None:
    """Put the files of a package at a place where nothing is."""
    if package.is_file:
        store.place(package.files[package.name], place)
        return
    for name, artifact in package.files.items():
        target = place / Path(name).relative_to(package.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store.path(artifact.sha256), target)


def _replace(place: Path, new: Path) -> None:
    """Put `new`, a file or a folder, in the place of whatever is there, which may be at `new` afterwards.

    Several processes may do so at once, and where one fails, what was there stays. Only where the system cannot exchange
    names, and one of the two is a folder, is the place empty for a moment.
    """
    while not _moved(new, place) and not _exchanged(new, place):
        aside = new.with_name(f"{new.name}-")
        with contextlib.suppress(FileNotFoundError):
            place.rename(aside)
        try:
            is_done = _moved(new, place)
        except OSError:
            aside.rename(place)
            raise
        _remove(aside)
        if is_done:
            return


def _moved(source: Path, target: Path) -> bool:
    """Rename in one step, and say whether that could be; it cannot where a folder is in the way, or to be moved over a file."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in OCCUPIED:
            raise
        return False
    return True


def _exchanged(one: Path, other: Path) -> bool:
    """Let two names change places in one step, and say whether system and file system could."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
