"""Switches that make chosen requests fail, a number of times."""

import re
import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What happens to the next `times` requests that match."""

    method: str
    path: re.Pattern[str]
    status: int
    code: str
    message: str
    times: int
    retry_after: float | None
    drop_connection: bool
    delay_s: float = 0.0
    loses_answer: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Tell whether a request is meant; ``*`` stands for every method."""
        return self.times > 0 and self.method in {"*", method} and self.path.search(path) is not None


@dataclass
class Faults:
    """The faults that are still to happen."""

    planned: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        """Plan a fault; of several that match, the first planned happens first."""
        with self._lock:
            self.planned.append(fault)

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault that a request meets and count it."""
        with self._lock:
            for fault in self.planned:
                if fault.matches(method, path):
                    fault.times -= 1
                    return fault
        return None
