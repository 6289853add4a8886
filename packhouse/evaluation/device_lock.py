"""Machine-wide ownership of devices: many may compute on one, or one may measure on it.

A kernel lock (flock) on a file per device: it is released when its holder dies, however that happens.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LOCK_FOLDER = Path("/var/lock")
POLL_S = 0.05


@contextmanager
def device_locks(devices: Iterable[str], *, exclusive: bool, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the locks of several devices, taken in one order by everybody."""
    with ExitStack() as held:
        for device in sorted(devices):
            held.enter_context(device_lock(device, exclusive=exclusive, waiting=waiting))
        yield


@contextmanager
def device_lock(device: str, *, exclusive: bool, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of `device`, shared to compute or exclusive to measure; `waiting` is called once if it is taken."""
    descriptor = _open(_folder() / f"packhouse-{device}.lock")
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        while True:
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting:
                    waiting()
                    waiting = None
                time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)


def _folder() -> Path:
    return LOCK_FOLDER if os.access(LOCK_FOLDER, os.W_OK) else Path(tempfile.gettempdir())


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
