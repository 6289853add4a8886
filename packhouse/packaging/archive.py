"""Reproducible ZIP archives: the same contents give the same bytes, wherever and whenever they are written.

Names are sorted, dates and modes fixed; weights and wheels are stored, since they hardly compress, and texts deflated.
"""

import shutil
import zipfile
from pathlib import Path

from packhouse.packaging.contents import Content, Contents

EPOCH = (1980, 1, 1, 0, 0, 0)
MODE = 0o100644
COPY_BYTES = 4 << 20
DEFLATE_LEVEL = 6
UNIX = 3


def write_archive(path: Path, contents: Contents) -> None:
    """Write `contents` to the new archive `path`."""
    with zipfile.ZipFile(path, "x") as archive:
        for name in sorted(contents):
            _write(archive, name, contents[name])


def _write(archive: zipfile.ZipFile, name: str, content: Content) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system = UNIX
    info.external_attr = MODE << 16
    if isinstance(content.source, bytes):
        archive.writestr(info, content.source, zipfile.ZIP_DEFLATED, DEFLATE_LEVEL)
        return
    info.file_size = content.artifact.size_bytes
    with content.source.open("rb", buffering=0) as source, archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, COPY_BYTES)


def write_folder(path: Path, contents: Contents) -> None:
    """Write `contents` as files below the new folder `path`."""
    for name, content in contents.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content.source, bytes):
            target.write_bytes(content.source)
        else:
            shutil.copyfile(content.source, target)
