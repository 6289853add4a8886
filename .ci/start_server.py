"""Start the Prefect server that the pinned dependencies give, and ask whether it is well."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TIMEOUT_S = 240


def main() -> None:
    """Exit with 0 if the server answers in time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        environment = {**os.environ, "PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        server = subprocess.Popen(command, env=environment)
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not answers(f"http://127.0.0.1:{port}/api/health"):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the Prefect server did not start")
                time.sleep(0.5)
        finally:
            server.terminate()
            server.wait()
    print("the Prefect server started")


def answers(url: str) -> bool:
    """Return whether the server answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - it is our own
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()
