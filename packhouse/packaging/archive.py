"""Reproducible ZIP archives: the same contents give the same bytes, wherever and whenever they are written.

Names are sorted, dates and modes fixed; weights and wheels are stored, since they hardly compress, and texts deflated, but for
those that would grow as much as a bomb does when they are unpacked.
"""

import errno
import os
import zipfile
import zlib
from pathlib import Path

from packhouse.artifacts import CHUNK_BYTES, Artifact, measure
from packhouse.errors import ArtifactError
from packhouse.packaging.contents import Contents

EPOCH = (1980, 1, 1, 0, 0, 0)
MODE = 0o100644
DEFLATE_LEVEL = 6
UNIX = 3
HARMLESS_BYTES = 1 << 20  # up to this, a text may be as repetitive as it likes
MAX_RATIO = 200.0  # how many times larger a larger one may become when it is unpacked
# What the system says where it cannot copy between two files by itself.
CANNOT_MOVE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def write_archive(path: Path, contents: Contents) -> None:
    """Write `contents` to the new archive `path`. Raises ArtifactError where a file has not the size that it should have."""
    with zipfile.ZipFile(path, "x") as archive:
        for name in sorted(contents):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = UNIX
            info.external_attr = MODE << 16
            if isinstance(source := contents[name].source, bytes):
                archive.writestr(info, source, _method(source), DEFLATE_LEVEL)
            else:
                _store(archive, info, source, contents[name].artifact)


def _method(content: bytes) -> int:
    """Return how bytes are kept: deflated, unless a reader would have to take them for a bomb, such as samples of zeros."""
    if len(content) <= HARMLESS_BYTES:
        return zipfile.ZIP_DEFLATED
    compressor, packed_bytes = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS), 0
    for start in range(0, len(content), CHUNK_BYTES):
        packed_bytes += len(compressor.compress(content[start : start + CHUNK_BYTES]))
        if MAX_RATIO * packed_bytes >= len(content):
            return zipfile.ZIP_DEFLATED
    return zipfile.ZIP_DEFLATED if MAX_RATIO * (packed_bytes + len(compressor.flush())) >= len(content) else zipfile.ZIP_STORED


def _store(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path, artifact: Artifact) -> None:
    """Append a file as it is. Its CRC-32 was taken when it was received, so its bytes need not pass through here at all.

    `zipfile` can only write what it reads itself, hence the header and the directory entry by hand.
    """
    if artifact.crc32 is None or source.stat().st_size != artifact.size_bytes:
        raise ArtifactError(f"{source} was changed after its digest was taken; delete it and run again")
    info.CRC, info.file_size, info.compress_size = artifact.crc32, artifact.size_bytes, artifact.size_bytes
    info.header_offset = archive.start_dir
    file = archive.fp
    assert file is not None
    file.seek(archive.start_dir)
    file.write(info.FileHeader())
    file.flush()
    with source.open("rb", buffering=0) as reader:
        _move(reader.fileno(), file.fileno(), artifact.size_bytes)
    file.seek(0, os.SEEK_END)
    archive.start_dir = file.tell()
    archive.filelist.append(info)
    archive.NameToInfo[info.filename] = info
    archive._didModify = True  # type: ignore[attr-defined]  # noqa: SLF001


def _move(source: int, target: int, count: int) -> None:
    """Append `count` bytes of one open file to another, inside the kernel where the file systems can."""
    while count:
        try:
            moved = os.copy_file_range(source, target, count)
        except OSError as error:
            if error.errno not in CANNOT_MOVE:
                raise
            moved = os.write(target, os.read(source, min(CHUNK_BYTES, count)))
        if not moved:
            raise ArtifactError("a file became shorter while it was packed; leave the result storage alone and run again")
        count -= moved


def write_folder(path: Path, contents: Contents) -> None:
    """Write `contents` as files below the new folder `path`. Raises ArtifactError where one is not what its digest says."""
    for name, content in contents.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content.source, bytes):
            target.write_bytes(content.source)
        elif measure(content.source, target).sha256 != content.artifact.sha256:
            raise ArtifactError(f"{content.source} was changed after its digest was taken; delete it and run again")
