"""Say plainly what is wrong with a configuration: where it stands in the document, what was found, and what to do."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from packhouse.config.model import PackhouseConfig
from packhouse.errors import Problem
from packhouse.packaging.registry import installed_types

SHOWN_LENGTH = 80
ELSE = "see docs/configuration.md"
# What to give where pydantic found something of another type.
WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping of settings",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "invalid_key": "the key as a text, in quotes",
    "model_attributes_type": "a mapping of settings",
    "model_type": "a mapping of settings",
    "path_type": "a path",
    "string_type": "a text in quotes",
    "too_short": "at least one",
    "tuple_type": "a list",
}


def problems_of(error: ValidationError, document: Mapping[str, Any]) -> list[Problem]:
    """Return every problem of a document once, at its innermost place.

    Validation also refuses the list around a refused item, and a value once for each type that it could have had.
    """
    found = [
        (_locate(detail["loc"], document, is_missing=detail["type"] == "missing"), detail)
        for detail in error.errors(include_url=False)
    ]
    around = {place.path[:length] for place, _ in found for length in range(len(place.path))}
    remedies: dict[tuple[str, str], dict[str, None]] = {}
    for place, detail in found:
        if place.path not in around:
            for problem in _explain(place, detail):
                remedies.setdefault((problem.where, problem.what), {})[problem.remedy] = None
    return [Problem(where, what, ", or ".join(several)) for (where, what), several in remedies.items()]


@dataclass(frozen=True)
class _Place:
    """A place in the document, the model whose key it ends with, and the models that may stand there."""

    path: tuple[int | str, ...]
    owner: type[BaseModel] | None
    models: Sequence[type[BaseModel]]

    def __str__(self) -> str:
        """Return the place as it is written: ``packaging[1].config.version``."""
        return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).removeprefix(".")


def _explain(place: _Place, detail: ErrorDetails) -> Iterator[Problem]:
    kind, value, message = detail["type"], detail["input"], detail["msg"]
    where = str(place)
    if kind == "value_error":
        yield from (_as_written(where, line) for line in message.removeprefix("Value error, ").splitlines())
    elif kind == "extra_forbidden":
        known = list(place.owner.model_fields) if place.owner else []
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        yield Problem(where, f"unknown key, with the value {_shown(value)}", remedy)
    elif kind == "missing":
        yield Problem(where, "is required and missing", "add it")
    elif kind == "union_tag_not_found":
        yield Problem(where, f"has no type: {_shown(value)}", f"add type: {' or '.join(map(_tag, place.models))}")
    elif kind == "union_tag_invalid":
        tag = detail["ctx"]["tag"]
        if found := installed_types().unusable.get(tag) if place.path[0] == "packaging" else None:
            yield Problem(where, f"the type {tag!r} of {found.distribution} cannot be used: {found.reason}", found.remedy)
        else:
            yield Problem(where, f"unknown type {tag!r}", f"use one of {detail['ctx']['expected_tags']}")
    else:
        expected = message.partition(" should ")[2]
        remedy = f"give {WANTED[kind]}" if kind in WANTED else f"it should {expected}" if expected else ELSE
        yield Problem(where, f"{_shown(value)} is refused", remedy)


def _as_written(where: str, line: str) -> Problem:
    """Return the problem that a validator wrote as ``what; remedy``, with ``where: `` before it if it saw the whole."""
    what, separator, remedy = line.rpartition("; ")
    if not separator:
        what, remedy = line, ELSE
    if not where:
        where, _, what = what.partition(": ")
    return Problem(where, what, remedy)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"


def _locate(location: tuple[int | str, ...], document: Mapping[str, Any], *, is_missing: bool) -> _Place:
    """Return the place in the document that validation calls `location`.

    On the way, validation names the chosen member of a union, counts a single package as the first of a list, and has
    settings that are nested under ``config`` beside it; the document knows better. Only a missing key is not in it.
    """
    path: list[int | str] = []
    node: Any = document
    owner: type[BaseModel] | None = None
    models: Sequence[type[BaseModel]] = (PackhouseConfig,)
    for index, part in enumerate(location):
        if chosen := [model for model in models if len(models) > 1 and _tag(model) == part]:
            models = chosen
        elif isinstance(node, list | tuple) and isinstance(part, int):
            path.append(part)
            node = node[part]
        elif isinstance(node, Mapping):
            nested = node.get("config")
            if part not in node and isinstance(nested, Mapping) and part in nested:
                path.append("config")
                node = nested
            if part in node or (is_missing and index == len(location) - 1):
                owner = next((model for model in models if part in model.model_fields), next(iter(models), None))
                field = owner.model_fields.get(str(part)) if owner else None
                models = tuple(_models_in(field.annotation)) if field else ()
                path.append(str(part))
                node = node.get(part)
    return _Place(tuple(path), owner, models)


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("type")
    return field.default if field else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
