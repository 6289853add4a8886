"""Write ``configuration.md``, the reference of all settings, from the configuration's JSON schema.

What a setting means is said where it is defined. ``--check`` only prints the difference, and exits with 1 if there is one.
"""

import difflib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packhouse.config.schema import config_schema
from packhouse.evaluation.quality import PASSED_ON
from packhouse.metrics import HIGHER_IS_BETTER, QUALITY_TYPES, SUB_TYPES, TIMED_TYPES, UNITS

REFERENCE = Path(__file__).with_name("configuration.md")
EXAMPLE = Path(__file__).parent.parent / "examples" / "digits" / "packhouse.yaml"

INTRODUCTION = """\
# Configuration
<!-- Made by docs/make_reference.py. Change the descriptions in the code, or the introduction there. -->

A job is one YAML or JSON file. `packhouse plan FILE` checks it and says what is wrong with it. Unknown keys are errors.

- **Relative paths** are taken from the folder of the configuration file: candidates, data, functions in files, an Olive file,
  the output folder. Where there is no file, as in a run started from Prefect's UI, they are taken from the working directory.
- **Functions** are `package.module:function` or `path/to/file.py:function`. That of `data` takes nothing and returns a dict of
  arrays; that of a custom metric takes a dict of outputs and the labels, and returns a number, or a dict of them by sub type.
- **`packaging`** is one packaging, a list of them, or the path of an Olive configuration, whose `packaging_config` is taken.
- **Settings of a packaging** stand beside `type` and `name`, or below `config`, as in Olive, or some here and some there.
- **Case** does not matter in the `type` of a packaging or a metric, and in `device`. All else is written as it is here.
- **A whole Olive configuration** can be given instead: see [Coming from Olive](olive.md).

[`packhouse.schema.json`](packhouse.schema.json) says the same to editors; `packhouse schema` prints it.

## Example
"""

METRIC_TYPES = f"""\
## Metric types

In `metric_config`, timing knows `warmup_num` and `repeat_test_num`; accuracy knows `threshold` (for a single column of scores,
0.5 by default), and passes {", ".join(f"`{name}`" for name in sorted(PASSED_ON))} on to scikit-learn.

| `type` | sub types | unit | better | measured |
|---|---|---|---|---|"""


def reference() -> str:
    """Return the text of the reference."""
    schema = config_schema()
    models = schema["$defs"]
    lines = [INTRODUCTION, f"```yaml\n{EXAMPLE.read_text(encoding='utf-8')}```", ""]
    for model in [{**schema, "title": "Settings"}, *(models[name] for name in in_order_of_use(schema["properties"], models))]:
        lines += section(model, models)
    return "\n".join([*lines, METRIC_TYPES, *map(metric_type_row, [*SUB_TYPES, "custom"])]) + "\n"


def in_order_of_use(part: Any, models: dict[str, Any]) -> dict[str, None]:
    """Return the names of all models that a part of the schema leads to, each followed by those that it leads to itself."""
    names: dict[str, None] = {}
    for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(part)):
        names |= {name: None, **in_order_of_use(models[name], models)}
    return names


def section(model: dict[str, Any], models: dict[str, Any]) -> Iterator[str]:
    """Yield the heading, the description and the table of settings of a model."""
    yield from (f"## {model['title']}", "", model["description"].replace("``", "`"), "")
    yield from ("| key | type | default | description |", "|---|---|---|---|")
    for key, value in model["properties"].items():
        is_required = key in model.get("required", ()) or "const" in value
        description = value.get("description", "Which one this is.").replace("<", "\\<")
        yield f"| `{key}` | {type_text(value, models)} | {'required' if is_required else default_text(value)} | {description} |"
    yield ""


def type_text(value: dict[str, Any], models: dict[str, Any]) -> str:
    """Return what may be written for a value, with a link to each model, by its `type` where it has one."""
    if "$ref" in value:
        name = value["$ref"].removeprefix("#/$defs/")
        kind = models[name]["properties"].get("type", {}).get("const")
        return f"[{f'`type: {kind}`' if kind else name}](#{name.lower()})"
    if choices := value.get("enum", [value["const"]] if "const" in value else []):
        return " or ".join(f"`{choice}`" for choice in choices)
    if "anyOf" in value:
        texts = [type_text(choice, models) for choice in value["anyOf"] if choice.get("type") != "null"]
        lists = {f"list of {text}": f"one or a list of {text}" for text in texts if f"list of {text}" in texts}
        return " or ".join(lists.get(text, text) for text in texts if f"list of {text}" not in lists)
    if value["type"] == "array":
        return f"list of {type_text(value['items'], models)}"
    if isinstance(value.get("additionalProperties"), dict):
        return f"mapping to {type_text(value['additionalProperties'], models)}"
    names = {"string": value.get("format", "text"), "boolean": "`true` or `false`", "object": "mapping"}
    bound = f" ≥ {value['minimum']}" if "minimum" in value else ""
    return f"{names.get(value['type'], value['type'])}{bound}"


def default_text(value: dict[str, Any]) -> str:
    """Return the default as it would be written, without what is not set in it."""
    default = json.loads(
        json.dumps(value.get("default")),
        object_hook=lambda members: {key: item for key, item in members.items() if item not in (None, {}, [])},
    )
    return "" if default in (None, {}, []) else f"`{default if isinstance(default, str) else json.dumps(default)}`"


def metric_type_row(kind: str) -> str:
    """Return the row of a metric type in the table of them."""
    names = ", ".join(f"`{name}`" for name in SUB_TYPES.get(kind, ())) or "as in what the function returns"
    better = "as configured" if kind not in HIGHER_IS_BETTER else "higher" if HIGHER_IS_BETTER[kind] else "lower"
    how = "on all samples" if kind in QUALITY_TYPES else "with the device to itself" if kind in TIMED_TYPES else "once"
    return f"| `{kind}` | {names} | {UNITS.get(kind, '')} | {better} | {how} |"


def main() -> None:
    """Write the file, or check it."""
    text, present = reference(), REFERENCE.read_text(encoding="utf-8") if REFERENCE.exists() else ""
    if sys.argv[1:] != ["--check"]:
        REFERENCE.write_text(text, encoding="utf-8")
        return
    sys.stdout.writelines(difflib.unified_diff(present.splitlines(True), text.splitlines(True), REFERENCE.name, "current"))
    sys.exit(present != text)


if __name__ == "__main__":
    main()
