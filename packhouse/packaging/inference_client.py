"""A server of one model that runs here, on a Unix socket, and its client by the Open Inference Protocol v2."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from packhouse.errors import VerificationFailed
from packhouse.evaluation.data import Array
from packhouse.packaging.inference_server.messages import JSON_LENGTH, read_answer, write_request
from packhouse.packaging.inference_server.tensors import BadRequest
from packhouse.packaging.tied import tied

START_TIMEOUT_S = 600.0
ANSWER_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.1
SHOWN_LINES = 3
MAX_SOCKET_BYTES = 107  # of a path, sun_path in unix(7)
ROOM_BYTES = MAX_SOCKET_BYTES - len("/packhouse-12345678/shared/server.sock")


def last_lines(log: str) -> str:
    """Return the last lines of a log, in one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return " ".join(lines[-SHOWN_LINES:])


@contextmanager
def socket_folder() -> Iterator[Path]:
    """Make a folder for a server's socket, and for what is beside it, as long as the context lasts.

    It is where temporary files are, unless that has so long a path that there is no room for the socket's.
    """
    is_short = len(os.fsencode(tempfile.gettempdir())) <= ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="packhouse-", dir=None if is_short else "/tmp") as folder:  # noqa: S108
        yield Path(folder)


@contextmanager
def running(command: Sequence[str], variables: Mapping[str, str], folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a folder while the context lasts, at most as long as this process, and write what it says to a log."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            tied(command), stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=dict(variables), cwd=folder
        )
    try:
        yield process
    finally:
        process.terminate()  # so that it ends processes of its own too
        try:
            process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Addresses:
    """The paths of a server: what answers when it is ready, what the model is, and inference."""

    ready: str
    metadata: str
    infer: str

    @classmethod
    def of_protocol(cls, model: str) -> Self:
        """Return those of the protocol, for the name that a model should be served under."""
        served = f"/v2/models/{quote(model, safe='')}"
        return cls("/v2/health/ready", served, f"{served}/infer")


class InferenceClient:
    """A connection to the server of one model; use it as a context manager."""

    def __init__(self, socket: Path, addresses: Addresses, last_words: Callable[[str], str] = last_lines) -> None:
        """Connect when something is asked; `last_words` returns what of a log says why a server ended."""
        self._addresses, self._last_words = addresses, last_words
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(transport=transport, base_url="http://localhost", timeout=ANSWER_TIMEOUT_S, trust_env=False)

    def wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Return when the model is ready. Raises VerificationFailed where the process ends before, or it takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise VerificationFailed(f"its server ended before it was ready: {self._end_of(log)}")
            try:
                self._http.get(self._addresses.ready).raise_for_status()
            except httpx.HTTPError:
                time.sleep(POLL_S)
            else:
                return
        raise VerificationFailed(f"its server was not ready within {START_TIMEOUT_S:g} s: {self._end_of(log)}")

    def placement(self) -> dict[str, int]:
        """Return how many nodes run on each provider, as the server says. Raises VerificationFailed."""
        metadata = self._ask("GET", self._addresses.metadata).json()
        placement = metadata.get("parameters", {}).get("placement")
        if not isinstance(placement, dict):
            raise VerificationFailed("its server does not tell on which provider the nodes run")
        return placement

    def infer(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return these outputs for the feed. Raises VerificationFailed where the server refuses, or gives something else."""
        body, headers = write_request(feed, outputs)
        answer = self._ask("POST", self._addresses.infer, content=body, headers=headers)
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

    def _end_of(self, log: Path) -> str:
        return self._last_words(log.read_text(encoding="utf-8", errors="replace")) or "it said nothing"

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        self._http.close()
