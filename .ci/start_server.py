"""Start the Prefect server that the pinned dependencies give, and ask whether it is well."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

URL = "http://127.0.0.1:42017/api/health"
TIMEOUT_S = 240


def main() -> None:
    """Exit with 0 if the server answers in time."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", "42017"]
        environment = {**os.environ, "PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        server = subprocess.Popen(command, env=environment)
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not answers():
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the Prefect server did not start")
                time.sleep(0.5)
        finally:
            server.terminate()
            server.wait()
    print("the Prefect server started")


def answers() -> bool:
    """Return whether the server answers."""
    try:
        with urllib.request.urlopen(URL, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()
