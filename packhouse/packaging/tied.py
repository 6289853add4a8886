"""Run a program that does not outlive who started it: ``python tied.py PARENT_ID PROGRAM [ARGUMENT ...]``.

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
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Become the program that the arguments name."""
    _, parent, *command = sys.argv
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # the kernel tells nothing of what was before it was asked to
            sys.exit(f"{command[0]} is not run: who started it has ended")
    try:
        os.execvp(command[0], command)  # noqa: S606 - there is nothing for a shell to do
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
