"""The programs that a package carries: each runs a packed model on the sample input and judges what comes out."""

from importlib import resources
from importlib.resources.abc import Traversable

FOLDERS = ("cpp", "cs", "javascript", "python")
README = "README.md"


def files() -> dict[str, bytes]:
    """Return path below ``SampleCode/`` → content, in order of path; the same for every package."""
    root = resources.files(__name__)
    found = {README: root / README}
    for folder in FOLDERS:
        found |= {f"{folder}/{file.name}": file for file in (root / folder).iterdir() if _is_source(file)}
    return {path: found[path].read_bytes() for path in sorted(found)}


def _is_source(file: Traversable) -> bool:
    return file.is_file() and not file.name.startswith(".")
