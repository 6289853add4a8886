"""Archives that are made to be misread, to grow, or to be unpacked elsewhere: by name, with what each is refused for."""

import random
import struct
from collections.abc import Callable

from tests.verification.zip_bytes import DEFLATED, MAX_32, Part, build, deflate, zip64

Hostile = tuple[Callable[[], bytes], str]
MIB = 1 << 20
NOISE = random.Random(0).randbytes(1000)
A, B = Part("a", NOISE), Part("b", NOISE[::-1], DEFLATED)
LINK, FOLDER, PIPE, DEVICE, SOCKET = (kind << 16 | 0o777 << 16 for kind in (0o120000, 0o040000, 0o010000, 0o020000, 0o140000))


def named(*names: str | bytes) -> Callable[[], bytes]:
    """Return a builder of an archive with files of these names."""
    return lambda: build([A, *(Part(name, b"evil") for name in names)])


def of(*parts: Part, **lies: object) -> Callable[[], bytes]:
    """Return a builder of an archive with these parts, and lies in its end."""
    return lambda: build(parts, **lies)  # type: ignore[arg-type]


def b(**lies: object) -> Callable[[], bytes]:
    """Return a builder of two files of which the second lies in both headers."""
    return of(A, Part("b", NOISE, both=lies))


def fifield() -> bytes:
    """Return an archive whose files share one kernel, the headers of the later quoted in the data of the earlier.

    After David Fifield, A better zip bomb (2019): each file starts with a stored deflate block that has the next one's header.
    """
    kernel = deflate(bytes(MIB))
    last = Part("f0", bytes(MIB), DEFLATED)
    body = last.local_header() + kernel
    parts, size_bytes = [(last, len(body))], MIB
    for number in range(1, 30):
        header = parts[-1][0].local_header()
        quoted = b"\0" + struct.pack("<2H", len(header), len(header) ^ 0xFFFF) + header
        size_bytes += len(header)
        data = quoted + body[len(header) :]
        part = Part(f"f{number}", packed=data, method=DEFLATED, both={"size_bytes": size_bytes, "crc32": 0})
        body = part.local_header() + data
        parts.append((part, len(body)))
    directory = b"".join(part.directory_entry(len(body) - length) for part, length in parts)
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(parts), len(parts), len(directory), len(body), 0)


def truncated(share: float) -> Callable[[], bytes]:
    return lambda: build([A, B])[: int(len(build([A, B])) * share)]


def with_archive_in_comment() -> bytes:
    return build([A], end={"comment": build([Part("evil")])})


def long_entry(size_bytes: int, packed_bytes: int, extra: bytes) -> Callable[[], bytes]:
    return b(size_bytes=size_bytes, packed_bytes=packed_bytes, extra=extra)


def field(kind: int, content: bytes) -> bytes:
    return struct.pack("<2H", kind, len(content)) + content


NAMES: dict[str, Hostile] = {
    "traversal": (named("../outside"), "'../outside' is no plain path inside the package"),
    "traversal in the middle": (named("a/../../outside"), "'a/../../outside' is no plain path"),
    "traversal at the end": (named("models/.."), r"'models/\.\.' is no plain path"),
    "an absolute name": (named("/etc/cron.d/evil"), "'/etc/cron.d/evil' is no plain path"),
    "an absolute name with two slashes": (named("//server/share"), "'//server/share' is no plain path"),
    "a drive letter": (named("C:/evil.dll"), "'C:/evil.dll' is no plain path"),
    "a drive letter without a slash": (named("C:evil.dll"), "'C:evil.dll' is no plain path"),
    "a stream of another file": (named("model.onnx:evil"), "'model.onnx:evil' is no plain path"),
    "backslashes": (named("..\\outside"), r"'\.\.\\\\outside' is no plain path"),
    "a NUL": (named("model.onnx\0.txt"), r"'model\.onnx\\x00\.txt' is no plain path"),
    "a line break": (named("model\nverified"), r"'model\\nverified' is no plain path"),
    "a device of Windows": (named("models/NUL.txt"), r"'models/NUL\.txt' is no plain path"),
    "a dot at the end": (named("model.onnx."), r"'model\.onnx\.' is no plain path"),
    "no name": (named(""), "'' is no plain path"),
    "a dot": (named("./model.onnx"), r"'\./model\.onnx' is no plain path"),
    "a folder": (named("models/"), "'models/' is no plain path"),
    "a part that is too long": (named("n" * 256), "'n{256}' is no plain path"),
    "a name that is too long": (named("/".join(["m" * 200] * 300)), "'(m{200}/)+m+' is no plain path"),
    "the same name twice": (named("c", "c"), "'c' is there twice"),
    "names that differ in case": (named("Model", "model"), "'model' differs from 'Model' only in case"),
    "names that differ in normalisation": (named("\u00e9", "e\u0301"), "differs from '\u00e9' only in case"),
    "a file in a file": (named("c", "c/d"), "'c/d' is in a folder with the name of the file 'c'"),
    "a file for a folder": (named("c/d", "c"), "'c' has the name of the folder of 'c/d'"),
    "a name that is not UTF-8": (named(b"\xff\xfe"), "is not UTF-8, though it says so"),
    "a name in an unknown encoding": (b(name=b"\x81", flags=0), "is not UTF-8, nor says that it is"),
}
KINDS: dict[str, Hostile] = {
    "a symbolic link": (of(A, Part("b", b"/etc/passwd", central={"attributes": LINK})), "but a symbolic link"),
    "a folder with content": (of(A, Part("b", central={"attributes": FOLDER})), "'b' is not a regular file, but a folder"),
    "a folder of MS-DOS": (of(A, Part("d", central={"attributes": 0x10})), "'d' is not a regular file, but a folder"),
    "a pipe": (of(A, Part("b", central={"attributes": PIPE})), "but a pipe"),
    "a device": (of(A, Part("b", central={"attributes": DEVICE})), "but a device"),
    "a socket": (of(A, Part("b", central={"attributes": SOCKET})), "but a socket"),
    "an encrypted file": (b(flags=1), "'b' is encrypted"),
    "a masked directory": (of(A, Part("b", central={"flags": 0x2000})), "'b' is encrypted$"),
    "a patch": (b(flags=0x20), "'b' has flags that no file of a package has"),
    "an odd method": (b(method=77), "'b' is compressed by method 77"),
    "a later version": (b(version=63), "'b' needs version 6.3 of ZIP"),
    "a later version in its own header": (of(A, Part("b", local={"version": 51})), "later version of ZIP, says its own header"),
    "another name in a field": (
        b(extra=field(0x7075, b"\1\0\0\0\0evil")),
        "the extra field 0x7075",
    ),
    "a link in a field": (b(extra=field(0x756E, bytes(14) + b"/etc/passwd")), "the extra field 0x756e"),
    "a broken field": (b(extra=b"\1"), "'b' has extra fields that are damaged"),
    "two ZIP64 fields": (
        b(size_bytes=MAX_32, packed_bytes=MAX_32, extra=zip64(1000, 1000) + zip64(1, 1)),
        "'b' has extra fields that are damaged",
    ),
    "a comment of a file": (of(A, Part("b", central={"comment": b"PK\5\6"})), "'b' has a comment"),
    "a file on another disk": (of(A, Part("b", central={"disk": 1})), "or is on another part of the archive"),
}
SIZES: dict[str, Hostile] = {
    "a wrong checksum": (b(crc32=1), "b is damaged: its CRC-32 is [0-9a-f]{8} and should be 00000001"),
    "a wrong checksum of deflated data": (
        of(A, Part("b", NOISE, DEFLATED, both={"crc32": 2})),
        "b is damaged: its CRC-32 is [0-9a-f]{8} and should be 00000002",
    ),
    "a stored file that says it is longer": (b(size_bytes=1001), "'b' is stored as it is, in 1000 bytes, and should have 1001"),
    "a stored file that says it is shorter": (b(size_bytes=999), "'b' is stored as it is, in 1000 bytes, and should have 999"),
    "a deflated file that is longer": (
        of(A, Part("b", NOISE, DEFLATED, both={"size_bytes": 999})),
        "b unpacks to more than it should: 999 bytes",
    ),
    "a deflated file that is shorter": (
        of(A, Part("b", NOISE, DEFLATED, both={"size_bytes": 1001})),
        "b unpacks to less than it should: 1 bytes are missing",
    ),
    "a deflated file without an end": (
        of(A, Part("b", NOISE, DEFLATED, packed=deflate(NOISE)[:-1])),
        "b is damaged: its deflated data have no end",
    ),
    "no deflated data at all": (of(A, Part("b", b"", DEFLATED, packed=b"")), "b is damaged: its deflated data have no end"),
    "deflated data that are none": (
        of(A, Part("b", NOISE, DEFLATED, packed=b"\xff" * 9)),
        "b is damaged: it cannot be inflated",
    ),
    "bytes behind deflated data": (
        of(A, Part("b", NOISE, DEFLATED, packed=deflate(NOISE) + b"hidden")),
        "b has bytes behind its deflated data",
    ),
    "another checksum in its own header": (
        of(A, Part("b", local={"crc32": 7})),
        "'b' has the CRC-32 7 in its own header, and [0-9]+ in the directory",
    ),
    "another size in its own header": (
        of(A, Part("b", local={"size_bytes": 9})),
        "'b' has the size 9 in its own header, and 7 in the directory",
    ),
    "a smaller size in the directory": (
        of(A, Part("b", NOISE, DEFLATED, central={"size_bytes": 8})),
        "'b' has the size 1000 in its own header, and 8 in the directory",
    ),
    "a larger size in the directory": (
        of(A, Part("b", NOISE, DEFLATED, central={"size_bytes": 2000})),
        "'b' has the size 1000 in its own header, and 2000 in the directory",
    ),
    "another packed size in its own header": (
        of(A, Part("b", NOISE, DEFLATED, local={"packed_bytes": 3})),
        "'b' has the packed size 3 in its own header",
    ),
    "another method in its own header": (
        of(A, Part("b", local={"method": DEFLATED})),
        "'b' has the method 8 in its own header, and 0 in the directory",
    ),
    "other flags in its own header": (of(A, Part("b", local={"flags": 0x801})), "'b' has the flags 2049 in its own header"),
    "another name in its own header": (of(A, Part("b", local={"name": b"../evil"})), r"'b' is called b'\.\./evil' in its own"),
    "a sentinel without ZIP64": (long_entry(MAX_32, MAX_32, b""), "'b' has a ZIP64 field of 0 bytes and needs 16"),
    "ZIP64 that is too short": (long_entry(MAX_32, MAX_32, zip64(1000)), "'b' has a ZIP64 field of 8 bytes and needs 16"),
    "ZIP64 that is not needed": (b(extra=zip64(1, 1)), "'b' has a ZIP64 field of 16 bytes and needs 0"),
    "a ZIP64 size of exabytes": (
        long_entry(MAX_32, MAX_32, zip64(1 << 63, 1 << 63)),
        "'b' and the directory overlap: its data would go on after byte",
    ),
    "a size of 4 GB": (b(size_bytes=MAX_32 - 1, packed_bytes=MAX_32 - 1), "overlap: its data would go on after byte"),
}
LAYOUT: dict[str, Hostile] = {
    "bytes before the first file": (of(Part("a", before=b"#!/bin/sh\n")), "10 bytes stand before the first file"),
    "a program before the archive": (lambda: b"\x7fELF" + bytes(96) + build([A, B]), "something stands before the archive"),
    "bytes between files": (of(A, Part("b", before=b"hidden")), "6 bytes between 'a' and 'b' belong to no file"),
    "bytes before the directory": (
        of(A, B, before_directory=b"secret!"),
        "7 bytes between 'b' and the directory",
    ),
    "a file that the directory hides": (
        of(A, Part("evil", NOISE, is_hidden=True), B),
        "[0-9]{4} bytes between 'a' and 'b' belong to no file",
    ),
    "bytes in the directory": (of(A, B, in_directory=b"hidden"), "the directory goes on after the 2 files"),
    "bytes behind the end": (of(A, B, suffix=b"hidden"), "6 bytes stand behind the end of the archive"),
    "an archive behind the archive": (lambda: build([A]) + build([B]), "something stands before the archive"),
    "a comment": (of(A, B, end={"comment": b"hello"}), "the archive has a comment of 5 bytes"),
    "an archive in the comment": (with_archive_in_comment, "something stands before the archive or is missing"),
    "a comment that is cut off": (of(A, B, end={"comment_bytes": 9}), "the archive ends within its comment of 9 bytes"),
    "two names for the same bytes": (
        of(A, Part("b", central={"offset": 0}), Part("c")),
        "'a' and 'b' overlap: they are at bytes 0 and 0",
    ),
    "an offset in another file": (of(A, Part("b", NOISE, central={"offset": 40})), "'a' and 'b' overlap: its data would go on"),
    "an offset beyond the archive": (
        of(A, Part("b", central={"offset": MAX_32 - 1})),
        "'b' is at byte 4294967294, behind the start",
    ),
    "an offset in the directory": (of(A, Part("b", central={"offset": 1090})), "'b' is at byte 1090, behind the start"),
    "no header where one should be": (of(A, Part("b", local={"magic": b"PK\7\x08"})), "'b' has no header at byte 1031"),
    "overlap after Fifield": (fifield, "'f29' and 'f28' overlap"),
    "a stored file of unknown size": (b(flags=0x808), "'b' is stored and says its size only afterwards"),
    "a descriptor that lies": (
        of(A, Part("b", NOISE, DEFLATED, both={"flags": 0x808}, after=b"PK\7\x08" + bytes(12))),
        "'b' has no descriptor behind its data that says the same",
    ),
    "no descriptor": (of(A, Part("b", NOISE, DEFLATED, both={"flags": 0x808})), "'b' has no descriptor behind its data"),
    "more files than there are": (
        of(A, B, end={"here": 3, "files": 3}),
        "the directory lists 2 files, and the end",
    ),
    "fewer files than there are": (of(A, B, end={"here": 1, "files": 1}), "the directory goes on after the 1 files"),
    "a part of several archives": (of(A, B, end={"disk": 1}), "the archive is one part of several$"),
    "a directory elsewhere": (of(A, B, end={"directory_start": 5}), "the directory should be [0-9]+ bytes from byte 5 on"),
    "a directory beyond the archive": (of(A, end={"directory_start": MAX_32}), "bytes from byte 4294967295 on"),
    "a damaged directory": (of(A, Part("b", central={"magic": b"PK\1\3"})), "the directory is damaged at byte"),
    "a ZIP64 end of another number": (of(A, B, end64={"files": 1}), "one part of several, says its ZIP64 end record"),
    "a ZIP64 end of other files": (
        of(A, B, end64={"files": 1, "here": 1}),
        "the two end records, with and without ZIP64, say different things",
    ),
    "a ZIP64 end elsewhere": (of(A, B, end64={"record_start": 0}), "the ZIP64 locator points to byte 0"),
    "a ZIP64 end of another length": (of(A, B, end64={"length": 99}), "the ZIP64 end record is missing, or not as long"),
    "a ZIP64 end on another disk": (of(A, B, end64={"disks": 2}), "one part of several, says its ZIP64 end record"),
    "a ZIP64 directory of exabytes": (
        of(A, B, end={"directory_bytes": MAX_32}, end64={"directory_bytes": 1 << 63}),
        "the directory should be 9223372036854775808 bytes",
    ),
    "a ZIP64 count of billions": (
        of(A, B, end={"here": 0xFFFF, "files": 0xFFFF}, end64={"here": 1 << 40, "files": 1 << 40}),
        "the archive has 1099511627776 entries, more than 100000",
    ),
    "truncated in a file": (truncated(0.3), "the archive has no end record; it is truncated"),
    "truncated in the directory": (truncated(0.97), "the archive has no end record"),
    "truncated by a byte": (lambda: build([A, B])[:-1], "the archive has no end record"),
    "nothing but its end": (lambda: build([A, B])[-22:], "something stands before the archive or is missing from it"),
}
BOMBS: dict[str, Hostile] = {
    "a file that grows a thousand times": (
        of(A, Part("b", bytes(100 * MIB), DEFLATED)),
        "b would grow from [0-9]+ to 104857600 bytes, which is more than 200 times",
    ),
    "a file that grows though it says that it does not": (
        of(A, Part("b", bytes(100 * MIB), DEFLATED, both={"size_bytes": MIB})),
        "b unpacks to more than it should: 1048576 bytes",
    ),
    "a petabyte that is claimed": (
        of(A, Part("b", NOISE, DEFLATED, both={"size_bytes": MAX_32, "extra": zip64(1 << 50)})),
        "b would be 1125899906842624 bytes; a file may have 137438953472",
    ),
    "too many folders": (
        of(*(Part(f"{number}/" + "a/" * 500 + "b", b"") for number in range(200))),
        "it has 200 files in 100200 folders, together more than 100000",
    ),
    "too many files": (
        lambda: build([Part(str(number), b"") for number in range(100_001)], end={"here": 0xFFFF, "files": 0xFFFF}, end64={}),
        "the archive has 100001 entries, more than 100000",
    ),
}
ARCHIVES = {**NAMES, **KINDS, **SIZES, **LAYOUT}
