"""Changes that take Azure minutes. They are begun, and then waited for a little at a time, so that who waits can give up."""

from typing import Any

from azure.core.polling import LROPoller


class Changes:
    """The changes that were begun here."""

    def __init__(self) -> None:
        """Begin with none."""
        self._pollers: list[LROPoller[Any]] = []

    def begun(self, poller: LROPoller[Any]) -> int:
        """Return the number of a change, to wait for it by."""
        self._pollers.append(poller)
        return len(self._pollers) - 1

    def wait(self, change: int, seconds: float) -> bool:
        """Wait for a change, and return whether it is done. Raises what Azure says of one that failed."""
        poller = self._pollers[change]
        poller.wait(seconds)
        if not poller.done():
            return False
        poller.result()
        return True
