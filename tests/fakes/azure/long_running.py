"""Operations that go on after the answer: a status address to poll, and an end that succeeds or fails."""

import datetime as dt
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.azure.messages import Request, Response, ServiceError

STATUS_PATH = re.compile(r"/mfeOperationsStatus/(?P<name>[^/]+)$")
RESULT_PATH = re.compile(r"/mfeOperationResults/(?P<name>[^/]+)$")
POLLS_AT_LEAST = 2


@dataclass
class LongRunning:
    """One operation. `work` raises `ServiceError` to fail it."""

    name: str
    work: Callable[[], Any]
    started: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat())
    polls: int = 0
    error: ServiceError | None = None
    result: Any = None
    thread: threading.Thread | None = None

    def run(self) -> None:
        """Do the work in a thread of its own."""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.work()
        except ServiceError as error:
            self.error = error
        except Exception as error:
            self.error = ServiceError(500, "InternalServerError", f"The fake failed: {error!r}")
            raise

    def status(self) -> dict[str, Any]:
        """What a poll sees; the first ones always see it going on."""
        self.polls += 1
        running = self.polls < POLLS_AT_LEAST or (self.thread is not None and self.thread.is_alive())
        body: dict[str, Any] = {"id": self.name, "name": self.name, "startTime": self.started}
        if running:
            return {**body, "status": "Updating", "percentComplete": 50.0}
        if self.error is not None:
            return {**body, "status": "Failed", **self.error.body()}
        return {**body, "status": "Succeeded", "percentComplete": 100.0}


class LongRunningOperations:
    """All operations of a workspace, by the address that is polled."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._operations: dict[str, LongRunning] = {}
        self.poll_after_ms = 200

    def start(self, work: Callable[[], Any]) -> dict[str, str]:
        """Begin `work` and return the headers that tell where to poll."""
        operation = LongRunning(f"oe:{uuid.uuid4()}:{uuid.uuid4()}", work)
        self._operations[operation.name] = operation
        operation.run()
        return {
            "Azure-AsyncOperation": f"{self._base}/mfeOperationsStatus/{operation.name}?api-version=2022-02-01-preview",
            "Location": f"{self._base}/mfeOperationResults/{operation.name}?api-version=2022-02-01-preview",
            "x-ms-async-operation-timeout": "PT1H",
            "Retry-After-Ms": str(self.poll_after_ms),
        }

    def answer(self, request: Request) -> Response | None:
        """Answer a poll, or return nothing where the request is none."""
        headers = {"Retry-After-Ms": str(self.poll_after_ms)}
        if found := STATUS_PATH.search(request.path):
            operation = self._operations.get(found["name"])
            return Response(200, operation.status(), headers) if operation else Response(404)
        if found := RESULT_PATH.search(request.path):
            operation = self._operations.get(found["name"])
            if operation is None:
                return Response(404)
            return Response(200, operation.result) if operation.result is not None else Response(204)
        return None

    def join(self, timeout_s: float) -> None:
        """Wait for everything that still runs."""
        for operation in self._operations.values():
            if operation.thread is not None:
                operation.thread.join(timeout_s)
