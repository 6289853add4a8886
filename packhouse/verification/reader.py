"""Open a package that nobody vouches for, and copy what is in it to where it can be looked at.

`unpack` is the only way in which the content of a package gets onto the disk. Whatever it is given, it writes nothing outside
the folder that it fills, and no more than `Limits` allow.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path
from typing import BinaryIO

from packhouse.errors import ArtifactError, InputError, VerificationFailed
from packhouse.packaging.archive import HARMLESS_BYTES, MAX_RATIO
from packhouse.packaging.contents import unfit_name
from packhouse.packaging.manifest import MANIFEST_NAME, ManifestFile
from packhouse.regular_files import open_regular
from packhouse.transient import may_pass
from packhouse.verification.folder import list_members
from packhouse.verification.member import Member
from packhouse.verification.zip_end import is_archive
from packhouse.verification.zip_layout import read_members

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
REMEDY = "name a package, which is a ZIP archive or a folder"


@dataclass(frozen=True)
class Limits:
    """What a package may take when it is unpacked.

    `max_ratio` is how many times larger a file over 1 MiB may become; what is stored as it is has a ratio of 1.
    """

    max_files: int = 100_000
    max_bytes: int = 256 << 30
    max_file_bytes: int = 128 << 30
    max_ratio: float = MAX_RATIO


def unpack(package: Path, folder: Path, limits: Limits = Limits()) -> dict[str, ManifestFile]:
    """Copy the files of `package`, a ZIP archive or a folder, into the new or empty `folder`; return size and digest of each.

    Laws: ``unpack(write_archive(contents))`` gives the digests of `contents`; what is accepted is read in the same way by every
    other program; on failure nothing is left but what is in `folder`.

    Raises:
        InputError: `package` cannot be opened or is no package, or `folder` is not empty.
        VerificationFailed: something in the package is not as in packages of ours; the message says what.
        ArtifactError: it cannot be read to its end, or the disk is full.
    """
    try:
        with _members(package, limits.max_files) as members:
            _require_fit(members, limits)
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise InputError.at(str(folder), "is not empty", "name a new folder")
            return {member.name: _copy(member, folder) for member in members}
    except OSError as error:
        reason = f"{package} cannot be unpacked to {folder} ({error}); free space there, or set TMPDIR"
        raise ArtifactError(reason, is_transient=may_pass(error)) from error


def is_bare(package: Path) -> bool:
    """Whether a package has no manifest to be checked by: a folder without one, or a file that is no ZIP archive."""
    if package.is_dir():
        return not (package / MANIFEST_NAME).exists()
    with open_regular(package, follow_links=True) as file:
        return not is_archive(file)


@contextmanager
def _members(package: Path, max_files: int) -> Iterator[Sequence[Member]]:
    """Open the package and give its files, in either form."""
    try:
        opened = os.open(package, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InputError.at(str(package), f"cannot be opened ({error})", REMEDY) from error
    try:
        kind = stat.S_IFMT(os.fstat(opened).st_mode)
        if kind == stat.S_IFDIR:
            yield list_members(opened, max_files)
        elif kind == stat.S_IFREG:
            with open(opened, "rb", closefd=False) as file:
                yield _archived(package, file, max_files)
        else:
            raise InputError.at(str(package), "is neither a file nor a folder", REMEDY)
    finally:
        os.close(opened)


def _archived(package: Path, file: BinaryIO, max_files: int) -> Sequence[Member]:
    if not is_archive(file):
        raise InputError.at(str(package), "is no ZIP archive", REMEDY)
    return read_members(file, max_files)


def _require_fit(members: Sequence[Member], limits: Limits) -> None:
    """Refuse names that not every system can have, and more folders and bytes than there may be."""
    folders = _count_folders(member.name for member in members)
    if len(members) + folders > limits.max_files:
        raise VerificationFailed(f"it has {len(members)} files in {folders} folders, together more than {limits.max_files}")
    if unfit := unfit_name(member.name for member in members):
        raise VerificationFailed(unfit)
    for member in members:
        if member.size_bytes > limits.max_file_bytes:
            raise VerificationFailed(
                f"{member.name} would be {member.size_bytes} bytes; a file may have {limits.max_file_bytes}"
            )
        if member.size_bytes > max(HARMLESS_BYTES, limits.max_ratio * member.packed_bytes):
            raise VerificationFailed(
                f"{member.name} would grow from {member.packed_bytes} to {member.size_bytes} bytes, "
                f"which is more than {limits.max_ratio:g} times"
            )
    if (total := sum(member.size_bytes for member in members)) > limits.max_bytes:
        raise VerificationFailed(f"together its files would be {total} bytes; a package may have {limits.max_bytes}")


def _count_folders(names: Iterable[str]) -> int:
    """Return how many folders files with these names lie in, without a list of them: a name can have hundreds."""
    ordered = ["", *sorted(names)]  # so that names in the same folder follow each other
    return sum(name.count("/") - commonprefix([before, name]).count("/") for before, name in pairwise(ordered))  # noqa: RUF071


def _copy(member: Member, folder: Path) -> ManifestFile:
    """Write a file that is not there yet below `folder`, and return its size and digest."""
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    with open(os.open(target, NEW_FILE, 0o600), "wb") as sink:  # noqa: PTH123
        for chunk in member.read():
            sha256.update(chunk)
            sink.write(chunk)
    return ManifestFile(sha256=sha256.hexdigest(), size_bytes=member.size_bytes)
