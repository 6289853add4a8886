"""The parent's end of a worker process: start it, ask it, and turn whatever ends it into a reason."""

import contextlib
import json
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from packhouse.errors import EvaluationFailed

WORKER = Path(__file__).with_name("worker.py")
DEFAULT_TIMEOUT_S = 600.0
POLL_S = 0.5


class SessionHost:
    """A worker process that holds one candidate's session; use it as a context manager.

    An answer may take `timeout_s` seconds.
    """

    def __init__(
        self, scratch: Path, python: str = sys.executable, timeout_s: float = DEFAULT_TIMEOUT_S, worker: Path = WORKER
    ) -> None:
        """Start the script `worker` with the interpreter `python`; `scratch` takes its messages and is where it works."""
        self._log = scratch / "worker.log"
        self.timeout_s = timeout_s
        isolation = "-P" if python == sys.executable else "-I"  # what is on this one's path is not for another's runtime
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, isolation, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=scratch
            )

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Return the worker's answer.

        Raises:
            EvaluationFailed: the worker refused, died, or did not answer in time.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": request, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died_while(request) from None
        deadline = time.monotonic() + self.timeout_s
        while not select.select([self._process.stdout], [], [], POLL_S)[0]:
            if time.monotonic() > deadline:
                self._process.kill()
                raise EvaluationFailed(f"it did not finish {request!r} within {self.timeout_s:g} s and was stopped")
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._died_while(request)
        answer = json.loads(line)
        if "refused" in answer:
            raise EvaluationFailed(answer["refused"])
        result: dict[str, Any] = answer["ok"]
        return result

    def __enter__(self) -> Self:
        """Return the host itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the worker."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _died_while(self, request: str) -> EvaluationFailed:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return EvaluationFailed(f"its process {how} during {request!r}{hint}" + (f": {lines[-1]}" if lines else ""))
