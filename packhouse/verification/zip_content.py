"""Unpack the files of a ZIP archive, a chunk at a time, so that nothing is larger in memory than a chunk."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from packhouse.artifacts import CHUNK_BYTES
from packhouse.errors import VerificationFailed
from packhouse.verification.zip_directory import STORED, Entry
from packhouse.verification.zip_end import read_exactly


def unpacked(file: BinaryIO, entry: Entry, start: int) -> Iterator[bytes]:
    """Yield the bytes of a file, and refuse one that has not exactly the size and checksum that the directory says."""
    crc32, left = 0, entry.size_bytes
    pieces = _packed(file, entry, start)
    for chunk in pieces if entry.method == STORED else _inflated(entry, pieces):
        left -= len(chunk)
        if left < 0:
            raise VerificationFailed(f"{entry.name} unpacks to more than it should: {entry.size_bytes} bytes")
        crc32 = zlib.crc32(chunk, crc32)
        yield chunk
    if left:
        raise VerificationFailed(f"{entry.name} unpacks to less than it should: {left} bytes are missing")
    if crc32 != entry.crc32:
        raise VerificationFailed(f"{entry.name} is damaged: its CRC-32 is {crc32:08x} and should be {entry.crc32:08x}")


def _packed(file: BinaryIO, entry: Entry, start: int) -> Iterator[bytes]:
    for offset in range(start, start + entry.packed_bytes, CHUNK_BYTES):
        yield read_exactly(file, offset, min(CHUNK_BYTES, start + entry.packed_bytes - offset), entry.name)


def _inflated(entry: Entry, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what deflated `pieces` stand for, never more than a chunk at once."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for piece in pieces:
        packed = piece
        while packed and not inflater.eof:
            try:
                yield inflater.decompress(packed, CHUNK_BYTES)
            except zlib.error as error:
                raise VerificationFailed(f"{entry.name} is damaged: it cannot be inflated ({error})") from error
            packed = inflater.unconsumed_tail
        if inflater.unused_data or packed:
            raise VerificationFailed(f"{entry.name} has bytes behind its deflated data that belong to nothing")
    yield from _rest(entry, inflater)


def _rest(entry: Entry, inflater: "zlib._Decompress") -> Iterator[bytes]:
    """Yield what the inflater holds back though it has had all its input."""
    while not inflater.eof:
        try:
            chunk = inflater.decompress(b"", CHUNK_BYTES)
        except zlib.error as error:
            raise VerificationFailed(f"{entry.name} is damaged: it cannot be inflated ({error})") from error
        if not chunk:
            raise VerificationFailed(f"{entry.name} is damaged: its deflated data have no end")
        yield chunk
