"""Archives and folders: what is written is what is read back, and the same contents give the same bytes."""

import errno
import os
import random
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packhouse.errors import ArtifactError
from packhouse.packaging.archive import write_archive, write_folder
from packhouse.packaging.contents import Content, unfit_name
from packhouse.verification import unpack

PARTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\\:"), min_size=1, max_size=12
)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
# Name → bytes, and whether they lie in a file on disk, as weights do, or are in memory, as what was generated.
FILES = st.dictionaries(NAMES, st.tuples(st.binary(max_size=200), st.booleans()), max_size=6)
LARGE_BYTES = 21 * 2**30 // 10


def contents_of(files: dict[str, tuple[bytes, bool]], folder: Path) -> dict[str, Content]:
    """Return contents as they are given to the writer; those on disk are files in `folder`."""
    contents = {}
    for index, (name, (content, is_on_disk)) in enumerate(sorted(files.items())):
        source: Path | bytes = content
        if is_on_disk:
            source = folder / str(index)
            source.write_bytes(content)
        contents[name] = Content.of(source)
    return contents


@given(files=FILES, data=st.data())
@settings(max_examples=60, deadline=None)
def test_same_contents_in_any_order_give_the_same_bytes_and_are_read_back(
    files: dict[str, tuple[bytes, bool]], data: Any
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        contents = contents_of(files, folder)
        write_archive(folder / "one.zip", contents)
        shuffled = data.draw(st.permutations(list(contents.items())))
        write_archive(folder / "other.zip", dict(shuffled))
        assert (folder / "one.zip").read_bytes() == (folder / "other.zip").read_bytes()
        with zipfile.ZipFile(folder / "one.zip") as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == {name: item[0] for name, item in files.items()}
            assert archive.namelist() == sorted(files)


@given(files=FILES.filter(lambda files: unfit_name(files) is None))
@settings(max_examples=60, deadline=None)
def test_names_that_are_fit_for_a_package_all_unpack_to_their_contents(files: dict[str, tuple[bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        contents = contents_of(files, folder)
        write_folder(folder / "written", contents)
        write_archive(folder / "package.zip", contents)
        with zipfile.ZipFile(folder / "package.zip") as archive:
            archive.extractall(folder / "unpacked")
        expected = {name: content for name, (content, _) in files.items()}
        for root in folder / "written", folder / "unpacked":
            found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
            assert found == expected


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["/etc/passwd"], "no plain path"),
        (["a/../b"], "no plain path"),
        ([".."], "no plain path"),
        (["."], "no plain path"),
        ([""], "no plain path"),
        (["./a"], "no plain path"),
        (["a//b"], "no plain path"),
        (["a/"], "no plain path"),
        (["a\\b"], "no plain path"),
        (["C:a"], "no plain path"),
        (["a\0b"], "no plain path"),
        (["a" * 256], "no plain path"),
        (["ä" * 128], "no plain path"),
        (["/".join(["a" * 200] * 6)], "no plain path"),
        (["a", "b", "a"], "'a' is there twice"),
        (["a/b", "A/B"], "'A/B' differs from 'a/b' only in case"),
        (["ä", "a\u0308"], "only in case"),
        (["a/b/c", "a"], "'a' has the name of the folder of 'a/b/c'"),
        (["a", "A/b"], "'A/b' is in a folder with the name of the file 'a'"),
    ],
)
def test_names_that_not_every_system_can_unpack_are_unfit(names: list[str], reason: str) -> None:
    assert reason in str(unfit_name(names))


@pytest.mark.parametrize(
    "names", [[], ["a", "b/a", "b/c/a", "ab", "b/ab"], ["a b", "ä.txt", "..a", "a..b/c..d", "console", "com10", "~", "-rf"]]
)
def test_ordinary_names_are_fit(names: list[str]) -> None:
    assert unfit_name(names) is None


def test_entries_have_a_fixed_date_mode_and_system_and_only_texts_are_deflated(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"0" * 1000)
    (tmp_path / "weights").chmod(0o777)
    write_archive(tmp_path / "a.zip", {"a.json": Content.of(b"{}" * 100), "weights": Content.of(tmp_path / "weights")})
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == 0o100644
            assert (info.create_system, info.extra, info.comment, info.flag_bits) == (3, b"", b"", 0)
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
    assert kinds == {"a.json": zipfile.ZIP_DEFLATED, "weights": zipfile.ZIP_STORED}


def test_what_is_as_repetitive_as_a_bomb_is_stored_so_that_our_own_reader_takes_it(tmp_path: Path) -> None:
    zeros, mixed = bytes(3 << 20), bytes(2 << 20) + random.Random(0).randbytes(1 << 20)
    contents = {"mixed": mixed, "short": zeros[: 1 << 20], "zeros": zeros}
    write_archive(tmp_path / "a.zip", {name: Content.of(content) for name, content in contents.items()})
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
    assert kinds == {"mixed": zipfile.ZIP_DEFLATED, "short": zipfile.ZIP_DEFLATED, "zeros": zipfile.ZIP_STORED}
    found = unpack(tmp_path / "a.zip", tmp_path / "unpacked")
    assert found["zeros"].size_bytes == len(zeros)


def test_an_archive_is_never_written_over_another(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"earlier")
    with pytest.raises(FileExistsError):
        write_archive(tmp_path / "a.zip", {})
    assert (tmp_path / "a.zip").read_bytes() == b"earlier"


@pytest.mark.parametrize(
    ("write", "content"),
    [
        (write_archive, b"other weights"),
        (write_archive, b""),
        (write_archive, b"weights and more"),
        (write_folder, b"Weights"),
        (write_folder, b"weights and more"),
    ],
)
def test_a_file_that_changed_after_its_digest_was_taken_is_refused(tmp_path: Path, write: Any, content: bytes) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    contents = {"model/weights": Content.of(tmp_path / "weights")}
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(ArtifactError, match=str(tmp_path / "weights")):
        write(tmp_path / "written", contents)


def test_a_file_that_the_kernel_cannot_move_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 5000)
    contents = {"weights": Content.of(tmp_path / "weights"), "a.json": Content.of(b"{}")}
    write_archive(tmp_path / "moved.zip", contents)

    def refuse(*_: int) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    write_archive(tmp_path / "copied.zip", contents)
    assert (tmp_path / "copied.zip").read_bytes() == (tmp_path / "moved.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "moved.zip").testzip() is None


@pytest.mark.real
def test_a_file_of_more_than_2_gib_is_written_with_zip64_and_read_back(tmp_path: Path) -> None:
    large = tmp_path / "weights.bin"
    with large.open("wb") as file:
        file.truncate(LARGE_BYTES - 3)
        file.seek(0, 2)
        file.write(b"end")
    try:
        write_archive(tmp_path / "large.zip", {"weights.bin": Content.of(large), "a.json": Content.of(b"{}")})
        with zipfile.ZipFile(tmp_path / "large.zip") as archive:
            info = archive.getinfo("weights.bin")
            assert (info.file_size, info.compress_size) == (LARGE_BYTES, LARGE_BYTES)
            assert archive.read("a.json") == b"{}"
            with archive.open(info) as source:
                source.seek(LARGE_BYTES - 3)
                assert source.read() == b"end"
    finally:
        large.unlink()
        (tmp_path / "large.zip").unlink(missing_ok=True)
