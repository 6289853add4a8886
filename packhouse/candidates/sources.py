"""Where candidates come from, and how a located model becomes a checked one."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from packhouse.accelerators import InferenceSettings, SessionOptions
from packhouse.candidates.model_file import OnnxFacts, inspect, require_regular_file
from packhouse.errors import InputError, Problem
from packhouse.records import Record

MODEL_SUFFIX = ".onnx"


@dataclass(frozen=True)
class LocatedModel:
    """A model that a source names: an ONNX file, or a folder that holds one."""

    name: str
    path: Path
    settings: InferenceSettings = field(default_factory=InferenceSettings)
    history: dict[str, dict[str, Any] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundModel:
    """A located model that was checked: its files under their paths relative to the model."""

    name: str
    entry: str
    files: dict[str, Path]
    facts: OnnxFacts
    settings: InferenceSettings
    history: dict[str, dict[str, Any] | None]


class Source(Record):
    """Base of all sources: a source only says which models there are; checking them is the same for all."""

    @abstractmethod
    def locate(self) -> Sequence[LocatedModel]:
        """Return the models that the source names. Raises InputError where it cannot be read."""

    def find(self) -> tuple[FoundModel, ...]:
        """Return the source's models sorted by name, each checked; nothing is written.

        Raises:
            InputError: there are none, or some are not acceptable; every problem is listed.
        """
        found, problems = [], []
        for model in self.locate():
            try:
                found.append(_check(model))
            except InputError as error:
                problems += [
                    Problem(f"candidate {model.name!r}: {item.where}", item.what, item.remedy) for item in error.problems
                ]
            except OSError as error:
                what = f"cannot be read ({error.strerror})"
                problems.append(Problem(f"candidate {model.name!r}: {model.path}", what, "check the path"))
        if problems:
            raise InputError(problems)
        return tuple(sorted(found, key=lambda model: model.name))


class FolderSource(Source):
    """A folder of ONNX files, or of folders with one ONNX file and its external data each."""

    type: Literal["folder"] = "folder"
    path: Path = Field(description="The folder.")

    def locate(self) -> Sequence[LocatedModel]:
        """Return every ONNX file in the folder and every folder in it that holds one."""
        remedy = f"put {MODEL_SUFFIX} files, or folders with one each, there"
        try:
            entries = sorted(self.path.iterdir())
            folders = [entry for entry in entries if entry.is_dir()]
            files = [entry for entry in entries if entry.suffix == MODEL_SUFFIX and not entry.is_dir()]
        except OSError as error:
            raise InputError.at(f"candidates.path = {self.path}", f"cannot be read ({error.strerror})", remedy) from error
        models = [LocatedModel(entry.stem, entry) for entry in files]
        models += [LocatedModel(entry.name, entry) for entry in folders if any(entry.glob(f"*{MODEL_SUFFIX}"))]
        if not models:
            raise InputError.at(f"candidates.path = {self.path}", "has no candidates", remedy)
        return unique_names(models)


class ListedModel(Record):
    """One candidate of an explicit list."""

    name: str = Field(description="Name of the candidate, unique in the list.", min_length=1)
    path: Path = Field(description="An ONNX file, or a folder with one ONNX file.")
    session_options: SessionOptions = Field(
        default=SessionOptions(), description="Session options of this candidate; they override the accelerator's."
    )


class ListSource(Source):
    """An explicit list of candidates."""

    type: Literal["list"] = "list"
    models: tuple[ListedModel, ...] = Field(min_length=1, description="The candidates.")

    def locate(self) -> Sequence[LocatedModel]:
        """Return the listed models."""
        return unique_names(
            [
                LocatedModel(model.name, model.path, InferenceSettings(session_options=model.session_options))
                for model in self.models
            ]
        )


def unique_names(models: list[LocatedModel]) -> list[LocatedModel]:
    """Return the models, or raise InputError where two have the same name."""
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError.at("candidates", f"the name {twice[0]!r} is used more than once", "give every candidate its own name")
    return models


def _check(model: LocatedModel) -> FoundModel:
    entry, files = _files_of_folder(model.path) if model.path.is_dir() else (model.path, {})
    facts = inspect(entry)
    names = {entry.name: entry, **{name: entry.parent / name for name in facts.external_data}, **files}
    for name in facts.external_data:
        if name.endswith(MODEL_SUFFIX):
            remedy = "save the model with its external data in a file of another kind"
            raise InputError.at(str(entry), f"keeps its weights in {name!r}, which is named like a model", remedy)
    for name in (model.name, *names):
        if not _is_unicode(name):
            raise InputError.at(repr(name), "is a name that is not UTF-8", "rename the file")
    return FoundModel(model.name, entry.name, dict(sorted(names.items())), facts, model.settings, model.history)


def _files_of_folder(folder: Path) -> tuple[Path, dict[str, Path]]:
    models = sorted(folder.glob(f"*{MODEL_SUFFIX}"))
    if len(models) != 1:
        raise InputError.at(
            str(folder),
            f"holds {len(models)} {MODEL_SUFFIX} files, and a candidate is one",
            "give each model its own folder",
        )
    files = {}
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise InputError.at(str(Path(parent, name)), "is a symbolic link", "put the folder itself there")
        for name in names:
            path = Path(parent, name)
            require_regular_file(path)
            files[path.relative_to(folder).as_posix()] = path
    return models[0], files


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
