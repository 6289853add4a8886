"""Run a program that does not outlive who started it: ``python tied.py PROGRAM [ARGUMENT ...]``.

Without it, a run that is killed would leave a builder behind that goes on to push an image, or a server that nobody asks. The
kernel tells the program to end, as a terminal would, so that docker and its like end their containers too. On other systems
than Linux it is only run.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tied(command: Sequence[str]) -> list[str]:
    """Return a command that runs this one, and ends with the thread that starts it."""
    return [sys.executable, "-I", "-S", __file__, *command]


def main() -> None:
    """Become the program that the arguments name."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - there is nothing for a shell to do
    except OSError as error:
        sys.exit(f"{sys.argv[1]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
