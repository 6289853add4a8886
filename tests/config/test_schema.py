"""The JSON schema for editors describes what may be written; the flow's own suits forms."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from packhouse.config import PackhouseConfig, load_config
from packhouse.config.loading import parse_config
from packhouse.config.schema import config_schema, schema_text
from tests.config.documents import Document, document, documents, metric

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "packhouse.schema.json"
EXAMPLES = [path for path in sorted(ROOT.glob("examples/**/*.yaml")) if "candidates:" in path.read_text()]
VALIDATOR = jsonschema.Draft202012Validator(config_schema())


def test_committed_schema_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_example_names_the_schema_keeps_to_it_and_is_read(path: Path) -> None:
    first = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", path.read_text().splitlines()[0])
    assert first
    assert (path.parent / first[1]).resolve() == SCHEMA
    VALIDATOR.validate(yaml.safe_load(path.read_text()))
    load_config(path)


@settings(deadline=None)
@given(documents)
def test_schema_accepts_all_that_may_be_written(written: Document) -> None:
    assert list(VALIDATOR.iter_errors(written)) == []


@pytest.mark.parametrize("value", [0, 0.5, True, "0"])
def test_schema_accepts_every_kind_of_provider_option_that_is_read(value: object) -> None:
    written = document(accelerators=[{"provider_options": {"device_id": value}}])

    VALIDATOR.validate(written)
    assert parse_config(written).accelerators[0].provider_options == {"device_id": str(value)}


@pytest.mark.parametrize("value", [None, ["0"]])
def test_schema_refuses_provider_options_that_are_not_read(value: object) -> None:
    assert not VALIDATOR.is_valid(document(accelerators=[{"provider_options": {"device_id": value}}]))


@pytest.mark.parametrize(
    "packaging",
    [
        {"type": "Zipfile", "export_in_mlflow_format": True},
        {"type": "Zipfile", "config": {"export_in_mlflow_format": True}},
        [{"type": "MLflowModel", "name": "best"}],
        "olive.json",
    ],
)
def test_schema_accepts_every_form_of_packaging(packaging: Any) -> None:
    VALIDATOR.validate(document(packaging=packaging))


@pytest.mark.parametrize(
    "written",
    [
        document(metric=[]),
        document(candidates={"type": "folder", "path": "models", "pth": "x"}),
        document(metrics=[metric({"name": "p50", "priorty": 1})]),
        document(packaging={"type": "Zipfile", "exprt": True}),
        document(packaging=[{"type": "Zipfile", "config": {"exprt": True}}]),
        document(packaging=[{"type": "MLflowModel", "export_in_mlflow_format": True}]),
        document(packaging=[{"name": "no type"}]),
    ],
)
def test_schema_refuses_unknown_keys_in_every_form(written: Document) -> None:
    assert not VALIDATOR.is_valid(written)


def keywords(schema: Any) -> Iterator[str]:
    """Yield every key of a schema, at any depth."""
    for key, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        yield str(key)
        if isinstance(value, dict | list):
            yield from keywords(value)


def test_parameter_schema_lets_forms_switch_between_types() -> None:
    assert "oneOf" not in set(keywords(PackhouseConfig.model_json_schema()))


def test_parameter_schema_has_the_default_of_every_field_that_has_one() -> None:
    schema = PackhouseConfig.model_json_schema()
    for name, definition in {"PackhouseConfig": schema, **schema["$defs"]}.items():
        optional = definition["properties"].keys() - set(definition.get("required", ()))
        with_default = {field for field, content in definition["properties"].items() if "default" in content}
        assert optional == with_default, name
