"""Read a configuration file, YAML or JSON, and say plainly what is wrong with it."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from packhouse.config.model import PackhouseConfig
from packhouse.config.olive import from_olive, is_olive_config, packaging_of
from packhouse.errors import InputError, Problem

SHOWN_LENGTH = 80
# Settings that name a file or folder; relative ones are meant from the configuration's own folder.
PATHS = {
    ("candidates", "path"),
    ("candidates", "models", "*", "path"),
    ("candidates", "remap", "*"),
    ("candidates", "input_model"),
    ("data", "path"),
    ("output_dir",),
}
FUNCTIONS = {("data", "function"), ("metrics", "*", "user_config", "function")}


def load_config(path: Path) -> PackhouseConfig:
    """Return the configuration in the file `path`, its relative paths taken from the folder that it is in.

    A whole Olive configuration is accepted too: see `packhouse.config.olive`.

    Raises:
        InputError: the file cannot be read, or is not a configuration; every problem has its place, value and remedy.
    """
    document = read_document(path)
    if is_olive_config(document):
        document = from_olive(document, path)
    elif isinstance(document.get("packaging"), str):
        olive = (path.parent / document["packaging"]).resolve()
        document = {**document, "packaging": packaging_of(read_document(olive), olive)}
    document = {"output_dir": str(PackhouseConfig.model_fields["output_dir"].default), **document}
    return parse_config(_with_absolute_paths(document, path.resolve().parent))


def parse_config(document: Mapping[str, Any]) -> PackhouseConfig:
    """Return a configuration from plain data. Raises InputError."""
    try:
        return PackhouseConfig.model_validate(document)
    except ValidationError as error:
        problems = [_problem(detail) for detail in error.errors(include_url=False)]
        raise InputError(list(dict.fromkeys(problems))) from error


def read_document(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise InputError.at(str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except (yaml.YAMLError, ValueError) as error:
        place = " ".join(str(error).split())
        raise InputError.at(
            str(path), f"is not valid {'JSON' if path.suffix == '.json' else 'YAML'}: {place}", "mend it there"
        ) from error
    if not isinstance(document, dict):
        raise InputError.at(str(path), "does not hold a mapping of settings", "see docs/configuration.md")
    return document


def _problem(detail: ErrorDetails) -> Problem:
    location, model = _resolve(detail["loc"])
    what, _, remedy = detail["msg"].removeprefix("Value error, ").partition("; ")
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = list(model.model_fields) if model else []
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        what = f"unknown key, with the value {_shown(value)}"
    elif kind == "missing":
        what, remedy = "is required and missing", "add it"
    elif kind == "union_tag_invalid":
        context = detail["ctx"]
        what, remedy = f"unknown type {context['tag']!r}", f"use one of {context['expected_tags']}"
    elif kind == "union_tag_not_found":
        what, remedy = f"has no type: {_shown(value)}", "add type"
    elif not isinstance(value, Mapping | BaseModel):
        what = f"{_shown(value)} is refused: {what[:1].lower()}{what[1:]}" if kind != "value_error" else what
    return Problem(location, what, remedy or "see docs/configuration.md")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"


def _resolve(location: tuple[int | str, ...]) -> tuple[str, type[BaseModel] | None]:
    """Return a location as it is written, ``packaging[1].version``, and the model whose key it ends with.

    Validation names the chosen member of a union on the way; that is no part of the document and is left out.
    """
    text = ""
    model: type[BaseModel] | None = None
    models: list[type[BaseModel]] = [PackhouseConfig]
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif chosen := [member for member in models if len(models) > 1 and _tag(member) == part]:
            models = chosen
        elif part not in ("float", "str", "int", "bool", "function-after"):
            model = next((member for member in models if part in member.model_fields), models[0] if models else None)
            field = model.model_fields.get(part) if model else None
            models = list(_models_in(field.annotation)) if field else []
            text += f".{part}" if text else part
    return text, model


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("type")
    return field.default if field else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _with_absolute_paths(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the document with relative paths, also those of files with user functions, taken from `folder`."""

    def visit(value: Any, location: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {key: visit(item, (*location, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [visit(item, (*location, "*")) for item in value]
        if isinstance(value, str) and _matches(location, PATHS):
            return str(folder / value)
        if isinstance(value, str) and _matches(location, FUNCTIONS) and ".py:" in value:
            return str(folder / value)
        return value

    resolved: dict[str, Any] = visit(document, ())
    return resolved


def _matches(location: tuple[str, ...], patterns: set[tuple[str, ...]]) -> bool:
    return any(
        len(pattern) == len(location) and all(wanted in ("*", part) for wanted, part in zip(pattern, location, strict=True))
        for pattern in patterns
    )
