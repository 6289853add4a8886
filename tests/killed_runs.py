"""A run that is killed while what it started asks a server: whether that goes on for nobody."""

import socket
import subprocess
from collections.abc import Callable

TIMEOUT_S = 60


def request_of_a_killed_run(start: Callable[[int], "subprocess.Popen[bytes]"]) -> bytes:
    """Start a run that has a server on a port asked; kill it, and return the request that was begun once its sender has ended.

    Raises:
        TimeoutError: nothing was asked, or the sender has not ended.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_S)
        with start(server.getsockname()[1]) as run:
            connection, _ = server.accept()
            connection.settimeout(TIMEOUT_S)
            request = connection.recv(1 << 16)
            run.kill()
        with connection:
            while connection.recv(1 << 16):
                pass
    return request
