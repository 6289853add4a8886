"""Paths in the nested parts of a configuration."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from packhouse.packaging import FOLDER


def _seen_from_the_configuration(value: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get(FOLDER)
    return folder / value if folder else value


ConfigPath = Annotated[Path, AfterValidator(_seen_from_the_configuration)]
