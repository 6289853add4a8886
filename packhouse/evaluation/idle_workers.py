"""Workers that have evaluated a candidate and wait, without a session, until the same candidate is timed.

Starting a worker costs more CPU than most candidates do: interpreter, numpy and onnxruntime have to be loaded. A worker is
handed on to nobody but the candidate that it had, on the same accelerator, so candidates still share no process.
"""

import threading
from contextlib import ExitStack
from dataclasses import dataclass

from packhouse.accelerators import Accelerator
from packhouse.candidates import Candidate
from packhouse.errors import EvaluationFailed
from packhouse.evaluation.session_host import SessionHost
from packhouse.records import digest_of

MAX_WAITING = 32  # each holds some 50 MB
MAX_WAIT_S = 3600  # then a worker ends by itself


@dataclass(frozen=True)
class _Waiting:
    accelerator: str
    host: SessionHost
    owned: ExitStack


class IdleWorkers:
    """Workers that wait in this process; threads may share it.

    Only workers for the CPU are kept: on other devices, a process holds memory and the driver even without a session.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._lock = threading.Lock()

    def keep(self, host: SessionHost, owned: ExitStack, candidate: Candidate, accelerator: Accelerator, python: str) -> None:
        """Let a worker wait, and take over what it owns; end it where it cannot wait, or another one does already."""
        if accelerator.device != "cpu" or not self._has_released(host):
            owned.close()
            return
        key, waiting = _key(candidate, accelerator, python), _Waiting(accelerator.spec, host, owned)
        with self._lock:
            is_kept = len(self._waiting) < MAX_WAITING and self._waiting.setdefault(key, waiting) is waiting
        if not is_kept:
            owned.close()

    def take(self, owner: ExitStack, candidate: Candidate, accelerator: Accelerator, python: str) -> SessionHost | None:
        """Return the worker that waits for a candidate, which from now on ends with `owner`; None if there is none alive."""
        with self._lock:
            found = self._waiting.pop(_key(candidate, accelerator, python), None)
        if found is None:
            return None
        try:
            found.host.ask("wake")
        except EvaluationFailed:
            found.owned.close()
            return None
        owner.enter_context(found.owned)
        return found.host

    def end(self, accelerator: str | None = None) -> None:
        """End the workers that still wait, for one accelerator or for all."""
        with self._lock:
            keys = [key for key, waiting in self._waiting.items() if accelerator in (None, waiting.accelerator)]
            left = [self._waiting.pop(key) for key in keys]
        for waiting in left:
            waiting.owned.close()

    @staticmethod
    def _has_released(host: SessionHost) -> bool:
        try:
            host.ask("rest", seconds=MAX_WAIT_S)
        except EvaluationFailed:
            return False
        return True


def _key(candidate: Candidate, accelerator: Accelerator, python: str) -> str:
    return digest_of([candidate.digest, accelerator.identity, python])
