"""The files of a published package by digest: what a statement about it is bound to."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from packhouse.errors import InputError, VerificationFailed
from packhouse.regular_files import open_regular
from packhouse.release import Package

Digests = Mapping[str, str]  # name → SHA-256 (hex)


def digests_of_package(package: Package) -> dict[str, str]:
    """Return the digests of a package as it will be published, under the names that `digests_of` gives its files."""
    return {name: artifact.sha256 for name, artifact in package.files.items()}


def digests_of(package: Path) -> dict[str, str]:
    """Return the digests of a published package: of the one file, or of each in the folder, named as ``folder/file``.

    So a package's own name is part of what is signed.

    Raises:
        InputError: it cannot be read.
        VerificationFailed: there is something in it that is no regular file.
    """
    try:
        if not package.is_dir():
            return {package.name: _sha256(package)}
        return {path.relative_to(package.parent).as_posix(): _sha256(path) for path in _files(package)}
    except OSError as error:
        where = error.filename or package
        raise InputError.at(str(where), f"cannot be read ({error.strerror})", "name a published package") from error


def require_same(expected: Digests, found: Digests, what: str) -> None:
    """Refuse files `found` that are not exactly those `expected` by `what`, a statement. Raises VerificationFailed."""
    missing, strange = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    renamed = next((name for name in missing if strange and expected[name] == found[strange[0]]), None)
    if renamed:
        raise VerificationFailed(f"{strange[0]} is called {renamed} in {what}; a package is published under its own name")
    if strange:
        raise VerificationFailed(f"{strange[0]} is not in {what}")
    if missing:
        raise VerificationFailed(f"{missing[0]} is missing; {what} lists it")
    for name in sorted(expected):
        if expected[name] != found[name]:
            raise VerificationFailed(f"{name} is not what it was: its SHA-256 differs from that in {what}")


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        for name in sorted((*folders, *names)):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise VerificationFailed(f"{path.relative_to(folder.parent).as_posix()} is not a regular file")
