"""A limit for what could wait for ever, such as a pipe that nobody writes to."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def within_seconds(limit: int) -> Iterator[None]:
    """Fail what is still waiting after so many seconds."""

    def too_late(*_: object) -> None:
        raise AssertionError(f"it still waits after {limit} s")

    earlier = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
