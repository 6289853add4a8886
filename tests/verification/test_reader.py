"""The reader of packages: whatever it is given, it gives back exactly what is in there, or says why not."""

import hashlib
import io
import os
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from packhouse.errors import InputError, VerificationFailed
from packhouse.packaging.archive import write_archive
from packhouse.packaging.contents import Content, unfit_name
from packhouse.packaging.manifest import ManifestFile
from packhouse.verification import Limits, unpack
from packhouse.verification.folder import list_members
from tests.verification.zip_bytes import DEFLATED, MAX_32, STORED, Part, build, deflate, zip64

MIB = 1 << 20
Files = dict[str, bytes]
GENEROUS = Limits()
# `HYPOTHESIS_EXAMPLES=10000 pytest tests/verification/test_reader.py` looks further.
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "300"))


def described(files: Mapping[str, bytes]) -> dict[str, ManifestFile]:
    return {
        name: ManifestFile(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for name, content in files.items()
    }


def found_in(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpacked(content: bytes, limits: Limits = GENEROUS) -> Files | None:
    """Return the files of an archive, None if it is refused. It must write nothing elsewhere, and say what it has written."""
    with tempfile.TemporaryDirectory() as scratch:
        package, folder = Path(scratch, "package.zip"), Path(scratch, "unpacked")
        package.write_bytes(content)
        try:
            told: dict[str, ManifestFile] | None = unpack(package, folder, limits)
        except (InputError, VerificationFailed):
            told = None
        assert {path.name for path in Path(scratch).iterdir()} <= {"package.zip", "unpacked"}
        assert package.read_bytes() == content
        assert not any(path.is_symlink() for path in folder.rglob("*"))
        if told is None:
            return None
        files = found_in(folder)
        assert told == described(files)
        return files


FILES = {
    "manifest.json": b'{"schema_version": 1}\n' * 20,
    "models/ä.onnx": random.Random(0).randbytes(300),
    "models/weights.bin": bytes(500),
    "empty": b"",
}
GOOD = {
    "stored": build([Part(name, content) for name, content in FILES.items()]),
    "deflated": build([Part(name, content, DEFLATED) for name, content in FILES.items()]),
    "ZIP64": build(
        [
            Part(
                name,
                content,
                both={"size_bytes": MAX_32, "packed_bytes": MAX_32, "extra": zip64(len(content), len(content))},
            )
            for name, content in FILES.items()
        ],
        end={"directory_start": MAX_32, "files": 0xFFFF},
        end64={},
    ),
}


def streamed(files: Mapping[str, bytes]) -> bytes:
    """Return an archive by a writer that cannot go back, so that sizes follow the data."""

    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.content += data
            return len(data)

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return bytes(stream.content)


GOOD["streamed"] = streamed(FILES)


@pytest.mark.parametrize("kind", GOOD)
def test_every_way_in_which_good_archives_are_written_is_read(kind: str) -> None:
    assert unpacked(GOOD[kind]) == FILES
    with zipfile.ZipFile(io.BytesIO(GOOD[kind])) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES


def mutated(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """Return `content` with bytes replaced, inserted or cut out at places given as shares of its length."""
    changed = bytearray(content)
    for kind, place, data in changes:
        start = int(place * len(changed))
        changed[start : start + (0 if kind == "insert" else len(data))] = b"" if kind == "cut" else data
    return bytes(changed)


# Headers are at the end, and have numbers on their boundaries.
PLACES = st.floats(0, 1, exclude_max=True) | st.floats(0.5, 1, exclude_max=True)
NUMBERS = st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, MAX_32]).map(lambda number: struct.pack("<I", number))
MAGICS = st.sampled_from([b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08"])
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["replace"] * 6 + ["insert", "cut"]), PLACES, st.binary(min_size=1, max_size=4) | NUMBERS | MAGICS
    ),
    min_size=1,
    max_size=3,
)


@given(kind=st.sampled_from(sorted(GOOD)), changes=CHANGES)
@settings(max_examples=EXAMPLES, deadline=None)
def test_an_archive_with_any_bytes_changed_is_refused_or_has_exactly_the_same_files(
    kind: str, changes: list[tuple[str, float, bytes]]
) -> None:
    assert unpacked(mutated(GOOD[kind], changes)) in (None, FILES)


@given(kind=st.sampled_from(sorted(GOOD)), place=st.floats(0, 1, exclude_max=True))
@settings(max_examples=EXAMPLES // 3, deadline=None)
def test_an_archive_that_is_cut_off_anywhere_is_refused(kind: str, place: float) -> None:
    assert unpacked(GOOD[kind][: int(place * len(GOOD[kind]))]) is None


NAMES = st.text("aAäß./ \\:\0~é\u0301\n", min_size=1, max_size=12) | st.text(max_size=8)


@given(files=st.dictionaries(NAMES, st.tuples(st.binary(max_size=3000), st.booleans()), max_size=6))
@example(files={})
@settings(max_examples=EXAMPLES // 3, deadline=None)
def test_what_was_packed_is_unpacked_with_the_same_digests(files: dict[str, tuple[bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        contents: dict[str, Content] = {}
        for number, (name, (content, is_file)) in enumerate(files.items()):
            source = Path(scratch, str(number))
            source.write_bytes(content)
            if unfit_name([*contents, name]) is None:
                contents[name] = Content.of(source if is_file else content)
        write_archive(Path(scratch, "package.zip"), contents)
        expected = {name: files[name][0] for name in contents}
        assert unpack(Path(scratch, "package.zip"), Path(scratch, "unpacked")) == described(expected)
        assert found_in(Path(scratch, "unpacked")) == expected


SMALL = st.integers(0, 600)
ANY_16 = st.sampled_from([0, 1, 8, 20, 45, 0x800, 0x808, 0xFFFF]) | SMALL
ANY_32 = st.sampled_from([0, MAX_32, MAX_32 - 1, 1 << 31]) | SMALL
ANY_64 = ANY_32 | st.sampled_from([1 << 32, (1 << 64) - 1, 1 << 63])
EXTRAS = st.binary(max_size=24) | st.lists(ANY_64, max_size=4).map(lambda values: zip64(*values))
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "magic": MAGICS,
        "version": ANY_16,
        "flags": ANY_16,
        "method": ANY_16,
        "crc32": ANY_32,
        "packed_bytes": ANY_32,
        "size_bytes": ANY_32,
        "name": NAMES.map(str.encode) | st.binary(max_size=8),
        "extra": EXTRAS,
    },
)
ENTRIES = st.fixed_dictionaries(
    {}, optional={"disk": ANY_16, "attributes": ANY_32, "offset": ANY_32, "comment": st.binary(max_size=4)}
)
SHORT_ENDS = st.fixed_dictionaries(
    {},
    optional={
        "disk": ANY_16,
        "directory_disk": ANY_16,
        "here": ANY_16,
        "files": ANY_16,
        "directory_bytes": ANY_32,
        "directory_start": ANY_32,
        "comment_bytes": ANY_16,
        "comment": st.binary(max_size=30),
    },
)
LONG_ENDS = st.fixed_dictionaries(
    {},
    optional={
        "length": ANY_64,
        "record_start": ANY_64,
        "disks": ANY_32,
        "here": ANY_64,
        "files": ANY_64,
        "directory_bytes": ANY_64,
        "directory_start": ANY_64,
    },
)


def rarely(lies: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Let a header tell the truth most of the time, else none of the later checks is ever reached."""
    return st.integers(0, 4).flatmap(lambda chance: st.just({}) if chance else lies)


PARTS = st.builds(
    Part,
    name=st.sampled_from(["a", "b", "c/d", "A", "a/b"]) | NAMES,
    content=st.binary(max_size=60),
    method=st.sampled_from([STORED, DEFLATED]),
    both=rarely(HEADERS),
    local=rarely(HEADERS),
    central=rarely(ENTRIES | HEADERS),
    packed=st.just(None) | st.just(None) | st.binary(max_size=20) | st.binary(max_size=20).map(deflate),
    before=st.sampled_from([b"", b"", b"", b"PK"]),
    after=st.sampled_from([b"", b"", b"", b"PK\7\x08" + bytes(12)]),
    is_hidden=st.sampled_from([False, False, False, True]),
)


def as_zipfile_reads(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def as_a_stream_is_read(content: bytes) -> set[bytes]:
    """Return the names that a program finds which goes from header to header and never looks at the directory."""
    names, position = set(), 0
    while content[position : position + 4] == b"PK\3\4":
        flags, packed_bytes, _, name_bytes, extra_bytes = struct.unpack_from("<6xH10x2I2H", content, position)
        start = position + 30 + name_bytes + extra_bytes
        names.add(content[position + 30 : position + 30 + name_bytes])
        extra = content[position + 30 + name_bytes : start]
        if packed_bytes == MAX_32:
            packed_bytes = struct.unpack_from("<Q", extra, extra.index(b"\1\0") + 12)[0]
        if flags & 8:  # its end shows only from the data
            return names
        position = start + packed_bytes
    return names


@given(
    parts=st.lists(PARTS, max_size=4),
    end=rarely(SHORT_ENDS),
    end64=st.none() | rarely(LONG_ENDS),
    gap=st.sampled_from([b"", b"", b"", b"PK\6\7"]),
)
@example(parts=[], end={}, end64=None, gap=b"PK\6\7")  # where the locator of ZIP64 would begin before the archive
@settings(max_examples=EXAMPLES, deadline=None)
def test_archives_of_any_headers_are_refused_or_read_as_other_programs_read_them(
    parts: list[Part], end: dict[str, Any], end64: dict[str, Any] | None, gap: bytes
) -> None:
    content = build(parts, end=end, end64=end64, before_directory=gap)
    files = unpacked(content, Limits(max_files=10, max_bytes=10_000))
    if files is not None:
        assert as_zipfile_reads(content) == files
        assert as_a_stream_is_read(content) <= {name.encode() for name in files}


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_is_copied_as_an_archive_is_unpacked(tmp_path: Path) -> None:
    package = written(tmp_path / "package", FILES)
    (package / "empty folder").mkdir()
    assert unpack(package, tmp_path / "copy") == described(FILES)
    assert found_in(tmp_path / "copy") == FILES


def swap_file(package: Path) -> None:
    (package / "models/weights.bin").unlink()
    (package / "models/weights.bin").symlink_to("/etc/passwd")


def swap_folder(package: Path) -> None:
    (package / "models").rename(package / "before")
    (package / "models").symlink_to(package / "before")


def swap_content(package: Path) -> None:
    (package / "models/weights.bin").write_bytes(b"evil")


def grow(package: Path) -> None:
    with (package / "models/weights.bin").open("ab") as file:
        file.write(b"evil")


SWAPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file by a link": (swap_file, "models/weights.bin cannot be opened, or is a link by now"),
    "a folder by a link": (swap_folder, "models/weights.bin cannot be opened, or is a link by now"),
    "a file by a shorter one": (swap_content, "models/weights.bin changed while it was read"),
    "a file by a longer one": (grow, "models/weights.bin changed while it was read"),
}


@pytest.mark.parametrize(("swap", "message"), SWAPS.values(), ids=SWAPS)
def test_what_is_exchanged_in_a_folder_after_it_was_checked_is_not_read(
    tmp_path: Path, swap: Callable[[Path], None], message: str
) -> None:
    package = written(tmp_path / "package", FILES)
    root = os.open(package, os.O_RDONLY)
    try:
        weights = next(member for member in list_members(root, 10) if member.name == "models/weights.bin")
        swap(package)
        with pytest.raises(VerificationFailed, match=message):
            list(weights.read())
    finally:
        os.close(root)


def test_nothing_is_unpacked_into_a_folder_that_has_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "package.zip").write_bytes(GOOD["stored"])
    with pytest.raises(InputError, match="is not empty"):
        unpack(tmp_path / "package.zip", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["package.zip"]


def test_what_is_no_package_is_an_error_of_the_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("no package")
    for name, what in {"missing": "cannot be opened", "pipe": "neither a file nor a folder", "text": "no ZIP archive"}.items():
        with pytest.raises(InputError, match=what):
            unpack(tmp_path / name, tmp_path / "unpacked")
