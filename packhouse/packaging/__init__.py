"""Packaging types: what a package is made of, and how a type is added.

A type is one class, derived from `Packaging`, that holds its configuration as fields, says in `plan` what it will make, and
makes it in `create`. What was made is then opened with `open`, run, scored, and only then registered with `register`; both
have defaults that suit a ZIP file or folder with a manifest. The class is found through the entry point group
``packhouse.packagers``, where the built-in types are registered exactly as a third party's would be::

    [project.entry-points."packhouse.packagers"]
    Zipfile = "packhouse.packaging.zipfile:Zipfile"
"""

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, reduce
from importlib import metadata
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from packhouse.errors import Problem
from packhouse.packaging.job import PackagingJob, Workplace
from packhouse.provenance.config import ENVELOPE_SUFFIX, PROVENANCE_SUFFIX
from packhouse.records import AnyOfSchema, Record

if TYPE_CHECKING:
    from packhouse.verification.opened import OpenPackage

__all__ = ["Packaging", "PackagingJob", "Workplace", "any_packaging", "packaging_types", "with_type_as_registered"]

ENTRY_POINTS = "packhouse.packagers"
FILE_NAME = re.compile(r"[^\x00-\x1f\ud800-\udfff/\\:*?\"<>|]+")
MAX_NAME_BYTES = 200  # file systems have 255, and temporary names are longer
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10))}
OWN_FILES = {"release.json", "report.html"}


class Packaging(Record):
    """Base of all packaging types: a configuration that knows how to make its package."""

    type: str
    name: str = Field(default="OutputModels", description="Name of the package; a file name.")

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, value: str) -> str:
        bad = (
            not FILE_NAME.fullmatch(value)
            or len(value.encode()) > MAX_NAME_BYTES
            or value != value.strip(" .")
            or value.split(".", maxsplit=1)[0].lower() in RESERVED
        )
        if bad:
            raise ValueError(f"{value!r} cannot be a file name on every system; use letters, digits, dots, dashes, underscores")
        return value

    @model_validator(mode="after")
    def _leaves_the_runs_own_files_alone(self) -> Self:
        if self.output_name.lower() in OWN_FILES or self.output_name.lower().endswith((PROVENANCE_SUFFIX, ENVELOPE_SUFFIX)):
            raise ValueError(f"{self.output_name} is what every run writes beside its packages; choose another name")
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

    def problems(self) -> Sequence[Problem]:
        """Return what can be known to be wrong before any work starts; `where` is relative to this configuration."""
        return ()

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


@cache
def packaging_types() -> dict[str, type[Packaging]]:
    """Return the installed packaging types by name."""
    points = sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name)
    return {point.name: point.load() for point in points}


def with_type_as_registered(value: Any) -> Any:
    """Return a packaging configuration with its ``type``, written in any case, as it is registered."""
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        return value
    spelled = {name.lower(): name for name in packaging_types()}
    return {**value, "type": spelled.get(value["type"].lower(), value["type"])}


def any_packaging() -> Any:
    """Return the union of all installed types, told apart by ``type``, for use as the type of a field."""
    types = tuple(packaging_types().values())
    union: Any = reduce(or_, types)
    return Annotated[union, Field(discriminator="type"), AnyOfSchema()] if len(types) > 1 else union
