"""Find the official operation behind a request and tell what the request has wrong: path, query, api-version, body."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.fakes.azure.schema import Validator

SPECIFICATION = Path(__file__).parent / "specification"
# What azure-ai-ml itself sends against the contract, although the service takes it. Nothing that a caller decides belongs here.
TOLERATED = {
    ("CodeVersions_CreateOrUpdate", "body.properties.properties.hash_version: 202208 is not of type string"),
    # By this the SDK knows the step of a pipeline, which it then asks the run history for.
    ("Jobs_Get", "answer: member 'properties' is missing"),
}


@dataclass(frozen=True)
class Operation:
    """An operation of one api-version."""

    id: str
    api_version: str
    method: str
    path: str
    parameters: tuple[Mapping[str, Any], ...]
    responses: Mapping[str, Any]
    validator: Validator

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The paths that it answers; resource paths are compared without case."""
        escaped = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        return re.compile(escaped, re.IGNORECASE)

    def path_values(self, path: str) -> dict[str, str] | None:
        """Return the names in a path, or nothing where the path is another's."""
        found = self.pattern.fullmatch(path)
        return {name: unquote(value) for name, value in found.groupdict().items()} if found else None

    def problems(self, path: str, query: Mapping[str, str], body: Any) -> Iterator[str]:
        """Yield a sentence for everything that a request has wrong."""
        given: dict[str, Mapping[str, Any]] = {"path": self.path_values(path) or {}, "query": query}
        for parameter in self.parameters:
            where, name = parameter["in"], parameter["name"]
            if where == "body":
                if body is not None or parameter.get("required"):
                    yield from self.validator.problems(body, parameter["schema"])
            elif where in given:
                if name in given[where]:
                    yield from self.validator.problems(_typed(given[where][name], parameter), parameter, f"{where}.{name}")
                elif parameter.get("required"):
                    yield f"{where}.{name} is missing"
        if body is not None and not any(parameter["in"] == "body" for parameter in self.parameters):
            yield "body: this operation has none"
        known = {parameter["name"] for parameter in self.parameters if parameter["in"] == "query"}
        for name in query.keys() - known:
            yield f"query.{name} is unknown"

    def answer_problems(self, status: int, body: Any) -> Iterator[str]:
        """Yield a sentence for everything that an answer of the fake has wrong."""
        response = self.responses.get(str(status)) or (self.responses.get("default") if status >= 400 else None)
        if response is None:
            yield f"status {status} is none of {', '.join(self.responses)}"
        elif "schema" in response:
            yield from self.validator.problems(body, response["schema"], "answer")


class Contract:
    """All operations, of all api-versions that the SDK speaks."""

    def __init__(self) -> None:
        self.operations = [operation for file in sorted(SPECIFICATION.glob("*.json")) for operation in _read(file)]

    def find(self, method: str, path: str, api_version: str) -> Operation | None:
        """Return the operation that a request means."""
        for operation in self.operations:
            same = operation.method == method.lower() and operation.api_version == api_version
            if same and operation.path_values(path) is not None:
                return operation
        return None

    def problems(self, method: str, path: str, query: Mapping[str, str], body: Any) -> list[str]:
        """Return everything that a request has wrong."""
        api_version = query.get("api-version", "")
        operation = self.find(method, path, api_version)
        if operation is None:
            return [f"no operation {method} {path} in api-version '{api_version}'"]
        return [problem for problem in operation.problems(path, query, body) if (operation.id, problem) not in TOLERATED]


def _read(file: Path) -> Iterator[Operation]:
    document = json.loads(file.read_text(encoding="utf-8"))
    validator = Validator(document["definitions"])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield Operation(
                id=operation["operationId"],
                api_version=document["info"]["version"],
                method=method,
                path=path,
                parameters=tuple(operation["parameters"]),
                responses=operation["responses"],
                validator=validator,
            )


def _typed(text: str, parameter: Mapping[str, Any]) -> Any:
    """Read a query's text as the type that the parameter has."""
    if parameter.get("type") in {"integer", "boolean"}:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
