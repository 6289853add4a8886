"""Find the end record of a ZIP archive, which says where its directory is.

It has to stand at the very end: programs that look for it in different places would find different archives in one file.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from packhouse.errors import VerificationFailed

UNKNOWN_16, UNKNOWN_32 = 0xFFFF, 0xFFFFFFFF  # 4.4.1.4: the value is in the ZIP64 record, or field
END = struct.Struct("<4s4H2IH")  # 4.3.16
END64_LOCATOR = struct.Struct("<4sIQI")  # 4.3.15
END64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
MAX_COMMENT_BYTES = 0xFFFF


@dataclass(frozen=True)
class End:
    """Where the directory is, and how many files it lists."""

    files: int
    directory_start: int
    directory_end: int


def read_exactly(file: BinaryIO, offset: int, count: int, what: str) -> bytes:
    """Return `count` bytes of the archive from `offset` on. Raises VerificationFailed where it ends before."""
    file.seek(offset)
    if len(read := file.read(count)) != count:
        raise VerificationFailed(f"the archive ends within {what}; it is truncated")
    return read


def is_archive(file: BinaryIO) -> bool:
    """Whether it begins or ends as ZIP archives do."""
    return b"PK\5\6" in _tail(file) or read_exactly(file, 0, min(file.seek(0, 2), 2), "") == b"PK"


def find_end(file: BinaryIO) -> End:
    """Read the end record, and that of ZIP64 where there is one. Raises VerificationFailed."""
    tail = _tail(file)
    at = tail.rfind(b"PK\5\6")
    after = len(tail) - at - END.size
    if at < 0 or after < 0:
        raise VerificationFailed("the archive has no end record; it is truncated")
    _, disk, first_disk, here, files, directory_bytes, start, comment_bytes = END.unpack_from(tail, at)
    if comment_bytes > after:
        raise VerificationFailed(f"the archive ends within its comment of {comment_bytes} bytes; it is truncated")
    if after > comment_bytes:
        raise VerificationFailed(f"{after - comment_bytes} bytes stand behind the end of the archive")
    if comment_bytes:
        raise VerificationFailed(f"the archive has a comment of {comment_bytes} bytes, in which another archive can hide")
    place = file.seek(0, 2) - END.size
    if at >= END64_LOCATOR.size and tail.startswith(b"PK\6\7", at - END64_LOCATOR.size):
        return _end64(file, place - END64_LOCATOR.size, (disk, first_disk, here, files, directory_bytes, start))
    if disk or first_disk or here != files:
        raise VerificationFailed("the archive is one part of several")
    return _checked(files, start, directory_bytes, place)


def _tail(file: BinaryIO) -> bytes:
    size_bytes = file.seek(0, 2)
    count = min(size_bytes, END.size + MAX_COMMENT_BYTES)
    return read_exactly(file, size_bytes - count, count, "itself")


def _end64(file: BinaryIO, place: int, short: Sequence[int]) -> End:
    """Read the ZIP64 end record, which stands right before its locator at `place`; `short` is what the other one says."""
    _, disk, start, disks = END64_LOCATOR.unpack(read_exactly(file, place, END64_LOCATOR.size, "the ZIP64 locator"))
    if start != place - END64.size or start < 0:
        raise VerificationFailed(f"the ZIP64 locator points to byte {start}, and the ZIP64 end record belongs before it")
    magic, length, _, _, *long = END64.unpack(read_exactly(file, start, END64.size, "the ZIP64 end record"))
    if magic != b"PK\6\6" or length != END64.size - 12:
        raise VerificationFailed("the ZIP64 end record is missing, or not as long as it should be")
    if disk or disks > 1 or long[0] or long[1] or long[2] != long[3]:
        raise VerificationFailed("the archive is one part of several, says its ZIP64 end record")
    unknown = (*[UNKNOWN_16] * 4, *[UNKNOWN_32] * 2)
    if any(one not in (two, rest) for one, two, rest in zip(short, long, unknown, strict=True)):
        raise VerificationFailed("the two end records, with and without ZIP64, say different things")
    return _checked(long[3], long[5], long[4], start)


def _checked(files: int, start: int, directory_bytes: int, place: int) -> End:
    """Return the end, which stands at `place`, if the directory ends where it begins."""
    if start + directory_bytes != place:
        raise VerificationFailed(
            f"the directory should be {directory_bytes} bytes from byte {start} on, and end at byte {place}: "
            "something stands before the archive or is missing from it"
        )
    return End(files, start, place)
