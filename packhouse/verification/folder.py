"""Read a package that is a folder, which may be changed by others, or be made to lead elsewhere, while it is read.

Every folder and file is opened from the folder that it is in, never through a link, and what was opened is what is looked at:
so nothing outside can be read, whatever the names on the way become meanwhile.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import PurePosixPath

from packhouse.artifacts import CHUNK_BYTES
from packhouse.errors import VerificationFailed
from packhouse.packaging.contents import unfit_name
from packhouse.verification.member import Member

OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
OPEN_FOLDER = OPEN_FILE | os.O_DIRECTORY
KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def list_members(root: int, max_files: int) -> tuple[Member, ...]:
    """Return the files below the open folder `root`, sorted by name.

    Raises:
        VerificationFailed: there is something else than folders and files of their own, or more than `max_files` of both.
    """
    members: list[Member] = []
    folders, seen = [""], 0
    while folders:
        folder = folders.pop()
        with ExitStack() as opened, os.scandir(_open(root, folder, opened, OPEN_FOLDER)) as entries:
            for entry in entries:
                if (seen := seen + 1) > max_files:
                    raise VerificationFailed(f"the folder has more than {max_files} files and folders")
                name = f"{folder}/{entry.name}".removeprefix("/")
                if unfit := unfit_name([name]):
                    raise VerificationFailed(unfit)
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(name)
                else:
                    _require_own_file(name, status)
                    members.append(Member(name, status.st_size, status.st_size, partial(_content, root, name, status)))
    return tuple(sorted(members, key=lambda member: member.name))


def _open(root: int, name: str, opened: ExitStack, flags: int) -> int:
    """Open the file or folder `name` below `root` for as long as `opened` is, one part of its path after the other."""
    current = root
    parts = PurePosixPath(name).parts or (".",)
    for number, part in enumerate(parts, 1):
        try:
            current = os.open(part, flags if number == len(parts) else OPEN_FOLDER, dir_fd=current)
        except OSError as error:
            raise VerificationFailed(
                f"{name or 'the folder'} cannot be opened, or is a link by now ({error.strerror})"
            ) from error
        opened.callback(os.close, current)
    return current


def _require_own_file(name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise VerificationFailed(
            f"{name!r} is not a regular file, but {KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}"
        )
    if status.st_nlink > 1:
        raise VerificationFailed(f"{name!r} is hard-linked {status.st_nlink} times, so it can change under another name")


def _content(root: int, name: str, expected: os.stat_result) -> Iterator[bytes]:
    """Yield the bytes of a file, and refuse one that is not what it was when the folder was listed."""
    with ExitStack() as opened:
        file = _open(root, name, opened, OPEN_FILE)
        status = os.fstat(file)
        _require_own_file(name, status)
        left = expected.st_size
        while chunk := os.read(file, min(CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        after = os.fstat(file)
    if left or any(_version(each) != _version(expected) for each in (status, after)):
        raise VerificationFailed(f"{name} changed while it was read")


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
