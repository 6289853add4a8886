"""The checks of requests against the official OpenAPI: what the SDK sends passes, and what differs from it is caught."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.azure.contract import Contract
from tests.fakes.azure.schema import Validator

# What azure-ai-ml 1.35.2 sent; made by tests/fakes/test_azure.py with PACKHOUSE_RECORD_AZURE set to this file.
RECORDED = json.loads((Path(__file__).parent / "azure" / "recorded_requests.json").read_text(encoding="utf-8"))
# What is missed is no fault: another key in a map of free texts or numbers.
CAUGHT_AT_LEAST = 0.95
# Members that the contract requires, in the places where the SDK sends them.
REQUIRED = {"properties", "location", "authMode", "dataUri", "dataType", "endpointComputeType", "scoringScript", "serverType"}
Mutant = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract()


def problems(contract: Contract, request: dict[str, Any]) -> list[str]:
    return contract.problems(request["method"], request["path"], request["query"], request["body"])


def test_everything_that_the_sdk_sent_keeps_to_the_contract(contract: Contract) -> None:
    assert len(RECORDED) >= 30
    assert [found for request in RECORDED if (found := problems(contract, request))] == []


def test_changed_requests_are_caught(contract: Contract) -> None:
    mutants = [(change, mutant) for request in RECORDED for change, mutant in mutate(request)]
    missed = [change for change, mutant in mutants if not problems(contract, mutant)]
    assert len(mutants) > 300
    assert 1 - len(missed) / len(mutants) >= CAUGHT_AT_LEAST, missed


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"kind": "Pear", "weight": 3}, None),
        ({"kind": "pear", "weight": None}, None),
        ({"kind": "Pear", "weight": "3"}, "body.weight: '3' is not of type integer"),
        ({"kind": "Pear", "weight": True}, "body.weight: True is not of type integer"),
        ({"kind": "Pear", "seeds": 3}, "body: could not find member 'seeds'"),
        ({"kind": "Plum"}, "body.kind: 'Plum' is not one of Pear"),
        ({"kind": None}, "body.kind: null is not allowed"),
        ({}, "body: member 'kind' is missing"),
        ([], "body: [] is not of type object"),
    ],
)
def test_discriminator_leads_to_the_members_that_count(value: Any, problem: str | None) -> None:
    definitions: dict[str, dict[str, Any]] = {
        "Fruit": {
            "type": "object",
            "discriminator": "kind",
            "required": ["kind"],
            "properties": {"kind": {"type": "string", "enum": ["Pear"]}},
        },
        "Pear": {
            "allOf": [{"$ref": "#/definitions/Fruit"}],
            "properties": {"weight": {"type": "integer", "x-nullable": True}},
            "additionalProperties": False,
        },
    }
    found = list(Validator(definitions).problems(value, {"$ref": "#/definitions/Fruit"}))
    assert found == ([problem] if problem else [])


def mutate(request: dict[str, Any]) -> Iterator[Mutant]:
    """Yield requests that differ from a good one in a single place, each with what was changed."""
    where = f"{request['method']} {request['path'].rpartition('/workspaces/')[2]}"
    for name, query in {
        "no api-version": {key: value for key, value in request["query"].items() if key != "api-version"},
        "another api-version": {**request["query"], "api-version": "2019-01-01"},
        "unknown parameter": {**request["query"], "surprise": "1"},
    }.items():
        yield f"{where}: {name}", {**request, "query": query}
    yield f"{where}: misspelt path", {**request, "path": request["path"].replace("/workspaces/", "/workspace/")}
    yield (
        f"{where}: illegal name",
        {**request, "path": request["path"].replace("/workspaces/orchard", "/workspaces/or%20chard")},
    )
    for change, body in mutate_value(request["body"]):
        yield f"{where}: {change}", {**request, "body": body}


def mutate_value(value: Any, where: str = "body") -> Iterator[tuple[str, Any]]:
    """Yield values with another type somewhere, a member more, a member less that is required, or a member renamed."""
    if value is None:
        return
    yield f"{where} is of another type", 7 if isinstance(value, str) else "text"
    if not isinstance(value, dict):
        return
    yield f"{where} has one member more", {**value, "surprise": 7}
    for name, item in value.items():
        others = {key: copy.deepcopy(other) for key, other in value.items() if key != name}
        yield f"{where}.{name} is renamed", {**others, f"{name}X": item}
        if name in REQUIRED and (name != "properties" or where == "body"):
            yield f"{where}.{name} is missing", others
        for change, changed in mutate_value(item, f"{where}.{name}"):
            yield change, {**others, name: changed}
