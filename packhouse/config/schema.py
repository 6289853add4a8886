"""The JSON schema of a configuration file, for editors and for the reference documentation.

It describes what may be *written*: one package or several, settings nested under ``config`` or not. Types are as registered;
any case of them is read.
"""

import json
from typing import Any

from packhouse.config.model import PackhouseConfig


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file."""
    schema = PackhouseConfig.model_json_schema()
    for packaging in schema["properties"]["packaging"]["items"]["anyOf"]:
        definition = schema["$defs"][packaging["$ref"].removeprefix("#/$defs/")]
        name = definition["properties"]["type"]["default"]
        settings = {key: value for key, value in definition["properties"].items() if key not in ("type", "name")}
        definition["properties"]["type"] = {**definition["properties"]["type"], "const": name}
        definition["properties"]["config"] = {
            "type": "object",
            "description": "The settings of this type, as in Olive; they may also stand beside it.",
            "properties": settings,
            "additionalProperties": False,
        }
        definition["required"] = ["type"]
    for source in schema["properties"]["candidates"]["anyOf"]:
        definition = schema["$defs"][source["$ref"].removeprefix("#/$defs/")]
        definition["required"] = ["type", *definition["required"]]
    several = schema["properties"]["packaging"]
    schema["properties"]["packaging"] = {
        "description": several.pop("description"),
        "anyOf": [
            several,
            several["items"],
            {"type": "string", "description": "An Olive configuration file, whose packaging_config is taken."},
        ],
        "default": [],
    }
    return {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Packhouse configuration"}


def schema_text() -> str:
    """Return the schema as it is committed in ``docs/packhouse.schema.json``."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"
