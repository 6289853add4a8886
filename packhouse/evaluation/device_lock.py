"""Machine-wide ownership of devices: many may compute on one, or one may measure on it.

A kernel lock (flock) on a file per device: it is released when its holder dies, however that happens.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LOCK_FOLDER, OTHER_FOLDER = Path("/var/lock"), Path("/tmp")  # noqa: S108 - one that everybody has, whatever TMPDIR says
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
    path, mode = _folder() / f"packhouse-{device}.lock", fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        descriptor = _open(path)
        try:
            while not _is_taken(descriptor, mode):
                if waiting:
                    waiting()
                    waiting = None
                time.sleep(POLL_S)
            if _is_same(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


def _is_taken(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether a file is still the one at a path: somebody may have deleted it, and others would lock another one."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _folder() -> Path:
    return LOCK_FOLDER if os.access(LOCK_FOLDER, os.W_OK) else OTHER_FOLDER


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
