"""The output folder: whatever appears there is complete, and replaces what was there in one step."""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from packhouse.artifacts import ArtifactStore, measure, owned_suffix, remove_orphans
from packhouse.errors import ArtifactError, explained
from packhouse.provenance.config import BESIDE, RUN_SUFFIX
from packhouse.release import Package, RunRecord
from packhouse.transient import may_pass

# What the system says where a file is to replace a folder, or a folder anything but an empty one.
OCCUPIED = (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST)
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
        beside = self._beside(name)
        try:
            beside.write_bytes(content)
            beside.replace(self.path / name)
        finally:
            beside.unlink(missing_ok=True)
        return self.path / name

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def publish(self, package: Package, store: ArtifactStore) -> Path:
        """Put a package there and return its path. What lies beside an earlier one and speaks of that is removed first.

        Raises:
            ArtifactError: the store has lost its bytes.
        """
        place, beside = self.path / package.name, self._beside(package.name)
        try:
            if package.is_file:
                store.place(package.files[package.name], beside)
            else:
                for name, artifact in package.files.items():
                    target = beside / Path(name).relative_to(package.name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(store.path(artifact.sha256), target)
            self._forget_another(package)
            _replace(place, beside)
        finally:
            _remove(beside)
        return place

    def has(self, package: Package, store: ArtifactStore) -> bool:
        """Whether a package is there, with exactly its files; another run may have put its own there meanwhile."""
        place = self.path / package.name
        found = {path.relative_to(self.path).as_posix() for path in (place, *place.rglob("*")) if path.is_file()}
        return found == set(package.files) and all(
            store.is_linked(artifact, self.path / name) or measure(self.path / name).sha256 == artifact.sha256
            for name, artifact in package.files.items()
        )

    def _forget_another(self, package: Package) -> None:
        """Remove provenance, signature and run record unless they are of this very package."""
        try:
            record = RunRecord.model_validate_json((self.path / f"{package.name}{RUN_SUFFIX}").read_bytes())
        except (OSError, ValidationError):
            record = None
        if record is None or record.digest != package.digest:
            for suffix in BESIDE:
                self.remove(package.name + suffix)

    @contextlib.contextmanager
    def _taking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"the output folder {self.path} cannot be written: {explained(error)}"
            raise ArtifactError(reason, is_transient=may_pass(error)) from error

    def _beside(self, name: str) -> Path:
        return self.path / f".{name}{owned_suffix()}"


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
