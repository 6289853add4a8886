"""Requests as they are recorded, and answers, in the forms of Azure Resource Manager."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass
class Request:
    """A request that reached the fake; `status` is what was answered, 0 where nothing was."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    content: bytes = field(repr=False, default=b"")
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    target: str = ""
    status: int = 0

    @cached_property
    def body(self) -> Any:
        """The JSON that was sent, or nothing."""
        if "json" not in self.headers.get("content-type", ""):
            return None
        try:
            return json.loads(self.content)
        except ValueError:
            return None

    @property
    def bearer(self) -> str:
        """The token or key that the caller showed."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def __str__(self) -> str:
        return f"{self.method} {self.host}{self.path}"


@dataclass
class Response:
    """An answer."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None

    def payload(self) -> bytes:
        """The bytes to send."""
        if self.content is not None:
            return self.content
        return b"" if self.body is None else json.dumps(self.body).encode()


class ServiceError(Exception):
    """A refusal by the service, with the status and the code that callers decide by."""

    def __init__(self, status: int, code: str, message: str, details: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details

    def body(self) -> dict[str, Any]:
        """The error as the service writes it."""
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self.details:
            error["details"] = [{"code": code, "message": message} for code, message in self.details]
        return {"error": error}

    def response(self) -> Response:
        """The refusal as an answer."""
        return Response(self.status, self.body(), {"x-ms-error-code": self.code})


def not_found(what: str) -> ServiceError:
    """Return the refusal for a resource that does not exist."""
    return ServiceError(404, "NotFound", f"{what} was not found.")
