"""A client of the Open Inference Protocol v2 on a Unix socket."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from packhouse.errors import VerificationFailed
from packhouse.evaluation.data import Array
from packhouse.packaging.inference_server.messages import JSON_LENGTH, read_answer, write_request
from packhouse.packaging.inference_server.tensors import BadRequest

START_TIMEOUT_S = 600.0
ANSWER_TIMEOUT_S = 600.0
POLL_S = 0.1
SHOWN_LINES = 3


class InferenceClient:
    """A connection to the server of one model; use it as a context manager."""

    def __init__(self, socket: Path, model: str) -> None:
        """Connect when something is asked; `model` is the name that the model should be served under."""
        self._model = f"/v2/models/{quote(model, safe='')}"
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(transport=transport, base_url="http://localhost", timeout=ANSWER_TIMEOUT_S, trust_env=False)

    def wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Return when the model is ready. Raises VerificationFailed where the process ends before, or it takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise VerificationFailed(f"its server ended before it was ready: {_last_lines(log)}")
            try:
                self._http.get("/v2/health/ready").raise_for_status()
            except httpx.HTTPError:
                time.sleep(POLL_S)
            else:
                return
        raise VerificationFailed(f"its server was not ready within {START_TIMEOUT_S:g} s: {_last_lines(log)}")

    def placement(self) -> dict[str, int]:
        """Return how many nodes run on each provider, as the server says. Raises VerificationFailed."""
        metadata = self._ask("GET", self._model).json()
        placement = metadata.get("parameters", {}).get("placement")
        if not isinstance(placement, dict):
            raise VerificationFailed("its server does not tell on which provider the nodes run")
        return placement

    def infer(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return these outputs for the feed. Raises VerificationFailed where the server refuses, or gives something else."""
        body, headers = write_request(feed, outputs)
        answer = self._ask("POST", f"{self._model}/infer", content=body, headers=headers)
        try:
            return read_answer(answer.content, answer.headers.get(JSON_LENGTH))
        except BadRequest as error:
            raise VerificationFailed(f"its server gave an answer that is not one of the protocol: {error}") from error

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.HTTPError as error:
            raise VerificationFailed(f"its server did not answer: {type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise VerificationFailed(f"its server refused ({answer.status_code}): {answer.text}")
        return answer

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        self._http.close()


def _last_lines(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return " ".join(lines[-SHOWN_LINES:]) or "it said nothing"
