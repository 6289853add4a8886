"""Read a configuration file, YAML or JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from packhouse.config.model import PackhouseConfig
from packhouse.config.olive import from_olive, is_olive_config, packaging_of
from packhouse.config.problems import problems_of
from packhouse.errors import InputError
from packhouse.packaging import FOLDER

# Settings that name a file or folder; relative ones are meant from the configuration's own folder. Those of packagings, which
# may be of third parties, are known by their type.
PATHS = {
    ("candidates", "path"),
    ("candidates", "models", "*", "path"),
    ("candidates", "remap", "*"),
    ("candidates", "input_model"),
    ("data", "path"),
    ("output_dir",),
    ("signing", "key_file"),
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
    if isinstance(document.get("packaging"), str):
        olive = (path.parent / document["packaging"]).resolve()
        packaging = packaging_of(read_document(olive), olive)
        if not packaging:
            raise InputError.at("packaging", f"{olive} has no packaging_config", "name an Olive configuration that has one")
        document = {**document, "packaging": packaging}
    document = {"output_dir": str(PackhouseConfig.model_fields["output_dir"].default), **document}
    folder = path.resolve().parent
    return parse_config(_with_absolute_paths(document, folder), folder)


def parse_config(document: Mapping[str, Any], folder: Path | None = None) -> PackhouseConfig:
    """Return a configuration from plain data; relative paths in packagings are taken from `folder`. Raises InputError."""
    try:
        return PackhouseConfig.model_validate(document, context={FOLDER: folder})
    except ValidationError as error:
        raise InputError(problems_of(error, document)) from error


def read_document(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file; a key that is given twice is refused. Raises InputError."""
    language = "JSON" if path.suffix == ".json" else "YAML"
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = json.loads(text, object_pairs_hook=_unique) if language == "JSON" else yaml.load(text, _Loader)  # noqa: S506
    except OSError as error:
        raise InputError.at(str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        place = f" (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})" if error.problem_mark else ""
        raise InputError.at(str(path), f"is not valid YAML: {what}{place}", "mend it there") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError.at(str(path), f"is not valid {language}: {error}", "mend it there") from error
    if not isinstance(document, dict):
        raise InputError.at(str(path), "does not hold a mapping of settings", "see docs/configuration.md")
    return document


class _Loader(yaml.SafeLoader):
    """Reads plain data, and refuses a key that is given twice, of which YAML would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping as it is written, before `<<` merges others into it."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return node


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"the key {twice!r} is given twice")
    return dict(pairs)


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
