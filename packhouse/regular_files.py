"""Open files whose kind nobody vouches for: regular ones only, without waiting for a pipe, and no further than is wanted."""

import errno
import os
import stat
from io import FileIO
from pathlib import Path


def open_regular(path: Path, *, follow_links: bool = False) -> FileIO:
    """Open a regular file to be read, unbuffered; a link only if asked to. Raises OSError."""
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return FileIO(descriptor)


def read_regular(path: Path, max_bytes: int, *, follow_links: bool = False) -> bytes:
    """Return the content of a regular file, or its first ``max_bytes + 1`` bytes where it is longer. Raises OSError."""
    content = bytearray()
    with open_regular(path, follow_links=follow_links) as file:
        while part := file.read(max_bytes + 1 - len(content)):
            content += part
    return bytes(content)
