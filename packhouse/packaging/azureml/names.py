"""What Azure ML allows in names, and files by which its SDK leaves others out."""

import re
from typing import Any

ASSET_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")  # of Azure's OpenAPI
MAX_ASSET_NAME = 255
# Files that Azure's SDK obeys: what they list would silently not be uploaded.
IGNORE_FILES = (".amlignore", ".gitignore")


def asset_version(value: Any) -> Any:
    """Return a version as a text, which may be given as a number. Raises ValueError where it is none of Azure's."""
    version = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(version, str) and not ASSET_NAME.fullmatch(version):
        raise ValueError(f"{version!r} cannot be a version; use a number, or auto")
    return version
