"""One fake Azure for all tests that drive it by the SDK in this process."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.azure import FakeAzure, Request
from tests.fakes.azure.contract import Contract
from tests.fakes.sdk import make_client


@pytest.fixture(scope="package")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    """A fake that this process takes for Azure."""
    with FakeAzure(tmp_path_factory.mktemp("azure")) as azure, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
        for name, value in azure.environment.items():
            patch.setenv(name, value)
        logging.getLogger("azure").setLevel(logging.ERROR)
        yield azure
        if path := os.environ.get("PACKHOUSE_RECORD_AZURE"):
            Path(path).write_text(recording(azure.requests), encoding="utf-8")
        assert azure.violations == []


@pytest.fixture(scope="package")
def client(azure: FakeAzure) -> Any:
    """The SDK's client, signed in as the service principal."""
    return make_client(azure)


def recording(seen: list[Request]) -> str:
    """The requests to the Resource Manager that keep to the contract, once each, for the tests of the contract."""
    contract = Contract()
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for request in seen:
        operation = contract.find(request.method, request.path, request.query.get("api-version", ""))
        if operation is not None and not contract.problems(request.method, request.path, request.query, request.body):
            key = (operation.id, operation.api_version, json.dumps(shape(request.body)))
            entry = {"method": request.method, "path": request.path, "query": request.query, "body": request.body}
            found.setdefault(key, entry)
    return json.dumps([found[key] for key in sorted(found)], indent=1) + "\n"


def shape(value: Any) -> Any:
    """What a body looks like, without its values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in sorted(value.items())}
    return type(value).__name__
