"""Read the structure of a ZIP archive strictly: every byte of it belongs to exactly one header, one file or the directory.

ZIP says most things twice, and programs differ in what they believe: one reads the directory at the end, another the header
before each file; one takes the last of two files of a name, another the first. Here both have to agree, nothing may overlap,
stand before, between or after, and only what packages need is known at all. So all programs see the same files in what is
accepted. Format: PKWARE's APPNOTE.TXT 6.3.10; the numbers of its sections stand beside what is taken from them.
"""

import struct
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import BinaryIO

from packhouse.errors import VerificationFailed
from packhouse.verification.member import Member
from packhouse.verification.zip_content import unpacked
from packhouse.verification.zip_directory import DESCRIBED_AFTER, MAX_VERSION, STORED, Entry, read_directory, with_zip64
from packhouse.verification.zip_end import find_end, read_exactly

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # 4.3.7
DESCRIPTOR, DESCRIPTOR64 = struct.Struct("<4s3I"), struct.Struct("<4sI2Q")  # 4.3.9


def read_members(file: BinaryIO, max_files: int) -> tuple[Member, ...]:
    """Return the files of the archive, in the order of its directory.

    Raises:
        VerificationFailed: it is one that programs could read in different ways, or that is built as no package is.
    """
    end = find_end(file)
    if end.files > max_files:
        raise VerificationFailed(f"the archive has {end.files} entries, more than {max_files}")
    entries = list(read_directory(file, end))
    starts = _data_starts(file, entries, end.directory_start)
    return tuple(
        Member(entry.name, entry.size_bytes, entry.packed_bytes, partial(unpacked, file, entry, start))
        for entry, start in zip(entries, starts, strict=True)
    )


def _data_starts(file: BinaryIO, entries: Sequence[Entry], directory_start: int) -> list[int]:
    """Return where each file's data start; together with headers they fill the archive up to the directory, without overlap."""
    ordered = sorted(range(len(entries)), key=lambda index: entries[index].offset)
    starts = [0] * len(entries)
    if (first := entries[ordered[0]].offset if ordered else directory_start) > 0:
        raise VerificationFailed(f"{first} bytes stand before the first file of the archive")
    if ordered and (last := entries[ordered[-1]]).offset + LOCAL_HEADER.size > directory_start:
        raise VerificationFailed(f"{last.name!r} is at byte {last.offset}, behind the start of the directory")
    for index, following in pairwise([*ordered, None]):
        assert index is not None
        entry = entries[index]
        end = directory_start if following is None else entries[following].offset
        successor = "the directory" if following is None else repr(entries[following].name)
        if entry.offset + LOCAL_HEADER.size > end:
            raise VerificationFailed(f"{entry.name!r} and {successor} overlap: they are at bytes {entry.offset} and {end}")
        starts[index] = _data_start(file, entry)
        _require_filled(file, entry, starts[index], end, successor)
    return starts


def _data_start(file: BinaryIO, entry: Entry) -> int:
    """Compare a file's own header with the directory, and return where the header ends."""
    fixed = LOCAL_HEADER.unpack(read_exactly(file, entry.offset, LOCAL_HEADER.size, "a header"))
    magic, version, flags, method, _, _, crc32, packed_bytes, size_bytes, name_bytes, extra_bytes = fixed
    if magic != b"PK\3\4":
        raise VerificationFailed(f"{entry.name!r} has no header at byte {entry.offset}, where the directory says it is")
    names = read_exactly(file, entry.offset + LOCAL_HEADER.size, name_bytes + extra_bytes, "a header")
    if names[:name_bytes] != entry.raw_name:
        raise VerificationFailed(f"{entry.name!r} is called {names[:name_bytes]!r} in its own header")
    size_bytes, packed_bytes = with_zip64(entry.name, names[name_bytes:], (size_bytes, packed_bytes))
    if version & 0xFF > MAX_VERSION:
        raise VerificationFailed(f"{entry.name!r} needs a later version of ZIP, says its own header")
    here = {"flags": flags, "method": method, "CRC-32": crc32, "packed size": packed_bytes, "size": size_bytes}
    there = (entry.flags, entry.method, entry.crc32, entry.packed_bytes, entry.size_bytes)
    if flags & DESCRIBED_AFTER and not (crc32 or packed_bytes or size_bytes):
        here |= {"CRC-32": entry.crc32, "packed size": entry.packed_bytes, "size": entry.size_bytes}
    for (what, one), two in zip(here.items(), there, strict=True):
        if one != two:
            raise VerificationFailed(f"{entry.name!r} has the {what} {one} in its own header, and {two} in the directory")
    return entry.offset + LOCAL_HEADER.size + len(names)


def _require_filled(file: BinaryIO, entry: Entry, start: int, end: int, successor: str) -> None:
    """Refuse an entry that does not end where the next begins, but for a descriptor that says the same as the directory."""
    rest = end - start - entry.packed_bytes
    if rest < 0:
        raise VerificationFailed(f"{entry.name!r} and {successor} overlap: its data would go on after byte {end}")
    if not entry.flags & DESCRIBED_AFTER:
        if rest:
            raise VerificationFailed(f"{rest} bytes between {entry.name!r} and {successor} belong to no file")
        return
    if entry.method == STORED:
        raise VerificationFailed(f"{entry.name!r} is stored and says its size only afterwards, so its end is not certain")
    shape = {DESCRIPTOR.size: DESCRIPTOR, DESCRIPTOR64.size: DESCRIPTOR64}.get(rest)
    if not shape or shape.unpack(read_exactly(file, end - rest, rest, "a descriptor")) != (
        b"PK\7\x08",
        entry.crc32,
        entry.packed_bytes,
        entry.size_bytes,
    ):
        raise VerificationFailed(f"{entry.name!r} has no descriptor behind its data that says the same as the directory")
