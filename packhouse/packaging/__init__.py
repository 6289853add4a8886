"""Packaging types: what a package is made of, and how a type is added. All that a type needs is on this page.

A type is one class, derived from `Packaging`, that holds its configuration as fields, says in `plan` what it will make, and
makes it in `create`. What was made is then opened with `open`, run, scored, and only then registered with `register`; both
have defaults that suit a ZIP file or folder with a manifest. The class is found through the entry point group
``packhouse.packagers``, where the built-in types are registered exactly as a third party's would be::

    [project.entry-points."packhouse.packagers"]
    Zipfile = "packhouse.packaging.zipfile:Zipfile"

``docs/packaging-types.md`` has a complete example. `packed_model` gives the files of a model, `sealed` adds what every package
has, and `write_archive` or `write_folder` write them.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from packhouse.errors import Problem
from packhouse.packaging.job import PackagingJob, Workplace
from packhouse.provenance.config import BESIDE
from packhouse.records import Record, digest_of

if TYPE_CHECKING:
    from packhouse.packaging.archive import write_archive, write_folder
    from packhouse.packaging.caveat import Caveat
    from packhouse.packaging.contents import Content
    from packhouse.packaging.manifest import PackagedCandidate
    from packhouse.packaging.ranked_model import packed_model
    from packhouse.packaging.seal import sealed
    from packhouse.verification.opened import OpenModel, OpenPackage, Predictions

__all__ = [
    "Caveat",
    "Content",
    "OpenModel",
    "OpenPackage",
    "PackagedCandidate",
    "Packaging",
    "PackagingJob",
    "Predictions",
    "Workplace",
    "packed_model",
    "sealed",
    "write_archive",
    "write_folder",
]

# Imported when they are asked for: these modules themselves begin with an import of this one.
IMPORTED_WHEN_USED = {
    "Caveat": "packhouse.packaging.caveat",
    "Content": "packhouse.packaging.contents",
    "OpenModel": "packhouse.verification.opened",
    "OpenPackage": "packhouse.verification.opened",
    "PackagedCandidate": "packhouse.packaging.manifest",
    "Predictions": "packhouse.verification.opened",
    "packed_model": "packhouse.packaging.ranked_model",
    "sealed": "packhouse.packaging.seal",
    "write_archive": "packhouse.packaging.archive",
    "write_folder": "packhouse.packaging.archive",
}

FOLDER = "folder"  # in the context of validation: the folder that relative paths are taken from
FILE_NAME = re.compile(r"[^\x00-\x1f\ud800-\udfff/\\:*?\"<>|]+")
NO_FILE_NAME = "cannot be a file name on every system; use letters, digits, dots, dashes, underscores"
MAX_NAME_BYTES = 200  # file systems have 255, and temporary names are longer
MAX_ENDING_BYTES = 16  # what a type may add, such as .zip
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10))}
OWN_FILES = {"release.json", "report.html"}


if not TYPE_CHECKING:  # or else a type checker would take any name for one of this module

    def __getattr__(name: str) -> Any:
        """Return what is imported when it is used."""
        if name in IMPORTED_WHEN_USED:
            return getattr(import_module(IMPORTED_WHEN_USED[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Packaging(Record):
    """Base of all packaging types: a configuration that knows how to make its package."""

    type: str
    name: str = Field(default="OutputModels", description="Name of the package; a file name.")

    @field_validator("*")
    @classmethod
    def _paths_are_seen_from_the_configuration(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get(FOLDER)
        return folder / value if folder and isinstance(value, Path) else value

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, value: str) -> str:
        if not _is_file_name(value, MAX_NAME_BYTES):
            raise ValueError(f"{value!r} {NO_FILE_NAME}")
        return value

    @model_validator(mode="after")
    def _output_is_a_file_of_its_own(self) -> Self:
        try:
            name: Any = self.output_name
        except Exception as error:  # a type may raise anything
            what = f"the packaging type {self.type} cannot say what its package is called ({summary(error)})"
            raise ValueError(f"{what}; mend or uninstall it") from error
        if not isinstance(name, str) or not _is_file_name(name, MAX_NAME_BYTES + MAX_ENDING_BYTES):
            raise ValueError(f"{name!r}, which {self.type} would make, {NO_FILE_NAME}")
        if name.lower() in OWN_FILES or name.lower().endswith(BESIDE):
            raise ValueError(f"{name} is what every run writes beside its packages; choose another name")
        return self

    @model_validator(mode="before")
    @classmethod
    def _lift_nested_config(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "config" not in value:
            return value
        nested, flat = value["config"] or {}, {key: item for key, item in value.items() if key != "config"}
        if not isinstance(nested, Mapping):
            raise ValueError("config must be an object of settings")
        if twice := sorted(key for key in nested.keys() & flat.keys() if nested[key] != flat[key]):
            raise ValueError(f"{twice[0]} is given twice, with different values, in config and beside it")
        return {**nested, **flat}

    @property
    def output_name(self) -> str:
        """File or folder name of the package in the output folder."""
        return self.name

    @property
    def content_digest(self) -> str:
        """SHA-256 (hex) of the settings and of what `depends_on` gives: where it changes, the package is made again."""
        return digest_of([self.model_dump(mode="json"), self.depends_on()])

    def depends_on(self) -> Any:
        """Return, as JSON, what beside job and settings the package depends on, such as versions here; by default nothing."""
        return None

    def accelerators(self) -> Sequence[str]:
        """Return the accelerators that the configuration names, each of which a run has to have; by default none."""
        return ()

    def problems(self) -> Sequence[Problem]:
        """Return what can be known to be wrong before any work starts; `where` is relative to this configuration."""
        return ()

    def caveat(self) -> "Caveat | None":
        """Return what of the package cannot be checked here, which is no reason to refuse it; by default nothing.

        `open` says the same of what it opened. Such a check is not relied on any longer once it can be done without a caveat.
        """
        return None

    @abstractmethod
    def plan(self) -> str:
        """Return one sentence that says what will be made."""

    def remote_calls(self) -> Sequence[str]:
        """Return what registering asks of other systems, one request or kind of request each, in order; by default nothing."""
        return ()

    @abstractmethod
    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Make the package in the scratch folder and return its file or folder.

        The same job gives the same bytes, wherever and whenever it is made.

        Raises:
            PackagingFailed: with the reason and the remedy.
        """

    def open(self, package: Path, job: PackagingJob, workplace: Workplace) -> "AbstractContextManager[OpenPackage]":
        """Open a copy of the package as those open it who receive it; it is validated and scored by what it then does.

        By default, the package is a ZIP file or a folder with a manifest, whose models are ONNX files.
        """
        from packhouse.verification.opened import opened_models

        return opened_models(package, job, workplace)

    def register(self, package: Path, job: PackagingJob, workplace: Workplace) -> Sequence[str]:  # noqa: ARG002
        """Publish the package elsewhere than in the output folder, and return where it is; by default nowhere.

        It is what was validated, byte for byte. Registering it again changes nothing.

        Raises:
            RegistrationFailed: with the reason and the remedy; nothing half done is visible.
        """
        return ()


def summary(error: Exception) -> str:
    """Return an exception in one line: its class, and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _is_file_name(value: str, max_bytes: int) -> bool:
    return (
        FILE_NAME.fullmatch(value) is not None
        and len(value.encode()) <= max_bytes
        and value == value.strip(" .")
        and value.split(".", maxsplit=1)[0].lower() not in RESERVED
    )
