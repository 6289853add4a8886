"""Read the directory of a ZIP archive: its files by name, of the plain kinds only that packages have."""

import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from packhouse.errors import VerificationFailed
from packhouse.verification.zip_end import UNKNOWN_32, End, read_exactly

STORED, DEFLATED = 0, 8
MAX_VERSION = 45  # 4.4.3.2: what ZIP64 needs; later ones bring other compressions and encryption
ENCRYPTED = 0x0001 | 0x0040 | 0x2000
DESCRIBED_AFTER, IS_UTF8, LEVELS = 0x0008, 0x0800, 0x0006
IS_FOLDER = 0x10  # of the MS-DOS attributes
ZIP64_FIELD = 0x0001
# Times and owners, as other programs write them. Further fields can rename a file, make it a link, or encrypt it.
HARMLESS_FIELDS = frozenset({0x000A, 0x5455, 0x7875})
ENTRY = struct.Struct("<4s6H3I5H2I")  # 4.3.12


@dataclass(frozen=True)
class Entry:
    """A file as the directory describes it."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    offset: int


def read_directory(file: BinaryIO, end: End) -> Iterator[Entry]:
    """Yield the files that the directory lists, in its order. Raises VerificationFailed."""
    position = end.directory_start
    for number in range(end.files):
        if position + ENTRY.size > end.directory_end:
            raise VerificationFailed(f"the directory lists {number} files, and the end record says {end.files}")
        fixed = ENTRY.unpack(read_exactly(file, position, ENTRY.size, "the directory"))
        lengths = fixed[10:13]
        if fixed[0] != b"PK\1\2" or position + ENTRY.size + sum(lengths) > end.directory_end:
            raise VerificationFailed(f"the directory is damaged at byte {position}")
        names = read_exactly(file, position + ENTRY.size, sum(lengths), "the directory")
        yield _entry(fixed, names[: lengths[0]], names[lengths[0] : lengths[0] + lengths[1]])
        position += ENTRY.size + sum(lengths)
    if position != end.directory_end:
        raise VerificationFailed(f"the directory goes on after the {end.files} files that the end record says it lists")


def _entry(fixed: Sequence[int], raw_name: bytes, extra: bytes) -> Entry:
    """Read an entry of the directory, of which `fixed` is the part of fixed length."""
    _, _, version, flags, method, _, _, crc32, packed_bytes, size_bytes, _, _, comment, disk, _, attributes, offset = fixed
    name = _name(raw_name, flags)
    _require_kind(name, version, flags, method, attributes)
    size_bytes, packed_bytes, offset = with_zip64(name, extra, (size_bytes, packed_bytes, offset))
    if disk or comment:
        raise VerificationFailed(f"{name!r} has a comment, or is on another part of the archive")
    if method == STORED and packed_bytes != size_bytes:
        raise VerificationFailed(f"{name!r} is stored as it is, in {packed_bytes} bytes, and should have {size_bytes}")
    return Entry(name, raw_name, flags, method, crc32, packed_bytes, size_bytes, offset)


def _name(raw_name: bytes, flags: int) -> str:
    try:
        return raw_name.decode("utf-8" if flags & IS_UTF8 else "ascii")
    except UnicodeDecodeError:
        what = "though it says so" if flags & IS_UTF8 else "nor says that it is, so programs read it in different ways"
        raise VerificationFailed(f"the name {raw_name!r} is not UTF-8, {what}") from None


def _require_kind(name: str, version: int, flags: int, method: int, attributes: int) -> None:
    """Refuse everything but a regular file that is stored or deflated."""
    if flags & ENCRYPTED:
        raise VerificationFailed(f"{name!r} is encrypted")
    if method not in (STORED, DEFLATED):
        raise VerificationFailed(f"{name!r} is compressed by method {method}; files of a package are stored or deflated")
    if unknown := flags & ~(DESCRIBED_AFTER | IS_UTF8 | LEVELS):
        raise VerificationFailed(f"{name!r} has flags that no file of a package has ({unknown:#06x})")
    if version & 0xFF > MAX_VERSION:
        raise VerificationFailed(f"{name!r} needs version {version / 10} of ZIP; packages need {MAX_VERSION / 10} at most")
    if stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG) or attributes & IS_FOLDER:
        raise VerificationFailed(f"{name!r} is not a regular file, but a {_kind(attributes)}")


def _kind(attributes: int) -> str:
    kinds = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    kinds |= {stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFREG: "folder", stat.S_IFDIR: "folder", 0: "folder"}
    return kinds.get(stat.S_IFMT(attributes >> 16), "file of unknown kind")


def with_zip64(name: str, extra: bytes, values: Sequence[int]) -> tuple[int, ...]:
    """Return `values`, with those that do not fit into 32 bits taken from the ZIP64 field (4.5.3)."""
    field = _zip64_field(name, extra)
    wanted = [value for value in values if value == UNKNOWN_32]
    if field is None and not wanted:
        return tuple(values)
    if len(field or b"") != 8 * len(wanted) or not wanted:
        raise VerificationFailed(f"{name!r} has a ZIP64 field of {len(field or b'')} bytes and needs {8 * len(wanted)}")
    long = iter(struct.unpack(f"<{len(wanted)}Q", field or b""))
    return tuple(next(long) if value == UNKNOWN_32 else value for value in values)


def _zip64_field(name: str, extra: bytes) -> bytes | None:
    """Return the ZIP64 field, if there is one, and refuse fields that could change what the file is."""
    found: dict[int, bytes] = {}
    while extra:
        kind, length = struct.unpack("<2H", extra[:4]) if len(extra) >= 4 else (0, len(extra))
        if len(extra) < 4 + length or kind in found:
            raise VerificationFailed(f"{name!r} has extra fields that are damaged")
        if kind != ZIP64_FIELD and kind not in HARMLESS_FIELDS:
            raise VerificationFailed(f"{name!r} has the extra field {kind:#06x}, which could give it another name or meaning")
        found[kind], extra = extra[4 : 4 + length], extra[4 + length :]
    return found.get(ZIP64_FIELD)
