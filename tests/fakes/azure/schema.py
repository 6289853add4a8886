"""Check a JSON value against an OpenAPI 2 schema as strictly as the service does.

A member that the schema does not name is an error, as in the service ("Could not find member ..."); the discriminator picks the
subtype; names of enumerations are compared without case, since recorded traffic shows that the service does so.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
INTEGER_RANGES = {"int32": 2**31, "int64": 2**63}
DURATION = re.compile(r"P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")


class Validator:
    """Checks values against the schemas of one document."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._subtypes: dict[str, list[str]] = {}
        for name, schema in definitions.items():
            for parent in schema.get("allOf", ()):
                self._subtypes.setdefault(_name(parent), []).append(name)

    def problems(self, value: Any, schema: Schema, where: str = "body") -> Iterator[str]:
        """Yield a sentence for everything that is wrong with `value`."""
        nullable = bool(schema.get("x-nullable"))
        if "$ref" in schema:
            schema = self._resolve(schema, value)
        if value is None:
            if not nullable and not schema.get("x-nullable"):
                yield f"{where}: null is not allowed"
            return
        schema = self._flatten(schema)
        kind = schema.get("type", "object" if "properties" in schema else None)
        if not _has_type(value, kind):
            yield f"{where}: {_show(value)} is not of type {kind}"
        elif isinstance(value, dict) and kind == "object":
            yield from self._object_problems(value, schema, where)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.problems(item, schema.get("items", {}), f"{where}[{index}]")
        else:
            yield from _scalar_problems(value, schema, where)

    def _object_problems(self, value: Mapping[str, Any], schema: Schema, where: str) -> Iterator[str]:
        members: Mapping[str, Schema] = schema.get("properties", {})
        others = schema.get("additionalProperties", not members)
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}: member '{name}' is missing"
        for name, item in value.items():
            if name in members:
                yield from self.problems(item, members[name], f"{where}.{name}")
            elif isinstance(others, Mapping):
                yield from self.problems(item, others, f"{where}.{name}")
            elif not others:
                yield f"{where}: could not find member '{name}'"

    def _resolve(self, schema: Schema, value: Any) -> Schema:
        """Follow a reference, and then the discriminator to the subtype that `value` says it is."""
        name = _name(schema)
        found = self._definitions[name]
        member = self._flatten(found).get("discriminator")
        if member and isinstance(value, dict):
            said = str(value.get(member)).lower()
            for subtype in self._all_subtypes(name):
                if self._definitions[subtype].get("x-ms-discriminator-value", subtype).lower() == said:
                    return self._definitions[subtype]
        return found

    def _all_subtypes(self, name: str) -> Iterator[str]:
        for subtype in self._subtypes.get(name, ()):
            yield subtype
            yield from self._all_subtypes(subtype)

    def _flatten(self, schema: Schema) -> Schema:
        """Merge what a schema inherits into it."""
        if "allOf" not in schema:
            return schema
        merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
        for parent in [*(self._flatten(self._definitions[_name(part)]) for part in schema["allOf"]), schema]:
            merged["properties"] = {**merged["properties"], **parent.get("properties", {})}
            merged["required"] = [*merged["required"], *parent.get("required", ())]
            merged |= {key: value for key, value in parent.items() if key not in {"properties", "required", "allOf"}}
        return merged


def seconds(duration: str) -> float:
    """Return the seconds of an ISO 8601 duration of days or less, as settings have them."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", duration)
    if found is None:
        raise ValueError(f"{duration!r} is not a duration")
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


def _scalar_problems(value: Any, schema: Schema, where: str) -> Iterator[str]:
    allowed = schema.get("enum")
    if allowed and str(value).lower() not in {str(one).lower() for one in allowed}:
        yield f"{where}: {_show(value)} is not one of {', '.join(map(str, allowed))}"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0) or len(value) > schema.get("maxLength", len(value)):
            yield f"{where}: {_show(value)} has {len(value)} characters"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{where}: {_show(value)} does not match {schema['pattern']}"
        if schema.get("format") == "duration" and not DURATION.fullmatch(value):
            yield f"{where}: {_show(value)} is not an ISO 8601 duration"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        limit = INTEGER_RANGES.get(schema.get("format", ""))
        if (
            value < schema.get("minimum", value)
            or value > schema.get("maximum", value)
            or (limit and not -limit <= value < limit)
        ):
            yield f"{where}: {value} is out of range"


def _has_type(value: Any, kind: str | None) -> bool:
    if isinstance(value, bool):
        return kind in {None, "boolean"}
    types: dict[str | None, tuple[type, ...]] = {
        None: (object,),
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
    }
    return isinstance(value, types[kind])


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
