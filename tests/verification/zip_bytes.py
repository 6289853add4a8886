"""ZIP archives written byte by byte, so that every header can say what no writer would.

`build` gives a plain good archive; each part, and the end records, can be told to lie.
Fields are in the order of PKWARE's APPNOTE.TXT.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STORED, DEFLATED = 0, 8
UTF8 = 0x800
REGULAR = 0o100644 << 16
MAX_32 = 0xFFFFFFFF
Lies = Mapping[str, Any]


def deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def zip64(*values: int) -> bytes:
    """Return the extra field that has the values which do not fit into 32 bits."""
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


@dataclass(frozen=True)
class Part:
    """A file in an archive; what `local` and `central` have replaces what its two headers would say, `both` that of both.

    `packed` replaces its data, `before` and `after` surround it; `is_hidden` leaves it out of the directory.
    """

    name: str | bytes
    content: bytes = b"content"
    method: int = STORED
    both: Lies = field(default_factory=dict)
    local: Lies = field(default_factory=dict)
    central: Lies = field(default_factory=dict)
    packed: bytes | None = None
    before: bytes = b""
    after: bytes = b""
    is_hidden: bool = False

    @property
    def data(self) -> bytes:
        """What lies between its header and the next."""
        if self.packed is not None:
            return self.packed
        return deflate(self.content) if self.method == DEFLATED else self.content

    def _truth(self) -> dict[str, Any]:
        return {
            "version": 20,
            "flags": UTF8,
            "method": self.method,
            "crc32": zlib.crc32(self.content),
            "packed_bytes": len(self.data),
            "size_bytes": len(self.content),
            "name": self.name.encode() if isinstance(self.name, str) else self.name,
            "extra": b"",
            **self.both,
        }

    def local_header(self) -> bytes:
        """Return the header before the data."""
        say = {"magic": b"PK\3\4", **self._truth(), **self.local}
        numbers = (say["crc32"], say["packed_bytes"], say["size_bytes"], len(say["name"]), len(say["extra"]))
        head = struct.pack("<4s5H3I2H", say["magic"], say["version"], say["flags"], say["method"], 0, 33, *numbers)
        return head + bytes(say["name"] + say["extra"])

    def directory_entry(self, offset: int) -> bytes:
        """Return what the directory says of the file whose header is at `offset`."""
        defaults = {"magic": b"PK\1\2", "disk": 0, "attributes": REGULAR, "offset": offset, "comment": b""}
        say = {**defaults, **self._truth(), **self.central}
        fixed = (
            struct.pack("<4s6H", say["magic"], 3 << 8 | 20, say["version"], say["flags"], say["method"], 0, 33)
            + struct.pack("<3I", say["crc32"], say["packed_bytes"], say["size_bytes"])
            + struct.pack("<5H", len(say["name"]), len(say["extra"]), len(say["comment"]), say["disk"], 0)
            + struct.pack("<2I", say["attributes"], say["offset"])
        )
        return fixed + bytes(say["name"] + say["extra"] + say["comment"])


def build(
    parts: Sequence[Part],
    *,
    prefix: bytes = b"",
    before_directory: bytes = b"",
    in_directory: bytes = b"",
    end: Lies | None = None,
    end64: Lies | None = None,
    suffix: bytes = b"",
) -> bytes:
    """Return an archive of `parts`. `end` and `end64` replace fields of the end records, the second of which is optional."""
    body, directory = bytearray(prefix), bytearray()
    for part in parts:
        body += part.before
        if not part.is_hidden:
            directory += part.directory_entry(len(body))
        body += part.local_header() + part.data + part.after
    body += before_directory
    directory += in_directory
    say: dict[str, Any] = {
        "disk": 0,
        "directory_disk": 0,
        "here": sum(not part.is_hidden for part in parts),
        "files": sum(not part.is_hidden for part in parts),
        "directory_bytes": len(directory),
        "directory_start": len(body),
    }
    long = _end64(len(body) + len(directory), {**say, **end64}) if end64 is not None else b""
    say |= {"comment_bytes": 0, "comment": b"", **(end or {})}
    short = struct.pack(
        "<4s4H2IH",
        b"PK\5\6",
        *(say[name] for name in ("disk", "directory_disk", "here", "files", "directory_bytes", "directory_start")),
        say["comment_bytes"] or len(say["comment"]),
    )
    return bytes(body + directory) + long + short + bytes(say["comment"]) + suffix


def _end64(place: int, lies: Lies) -> bytes:
    say = {"magic": b"PK\6\6", "length": 44, "locator": b"PK\6\7", "record_start": place, "disks": 1, **lies}
    names = ("disk", "directory_disk", "here", "files", "directory_bytes", "directory_start")
    record = struct.pack("<4sQ2H2I4Q", say["magic"], say["length"], 45, 45, *(say[name] for name in names))
    return record + struct.pack("<4sIQI", say["locator"], 0, say["record_start"], say["disks"])
