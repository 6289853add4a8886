"""The Prefect API that a run from the command line reports to: the configured one, one on this machine, or a temporary one."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import httpx
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

from packhouse.errors import InputError, PackhouseError
from tasks.device import has_limits

SERVER = Path(__file__).with_name("temporary_api.py")
LOCAL_URL = "http://127.0.0.1:4200/api"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PEM_BEGIN, PEM_END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0
DRAIN_TIMEOUT_S = 10.0
POLL_S = 0.1


@contextmanager
def prefect_api(say: Callable[[str], None]) -> Iterator[str]:
    """Make a Prefect API available for the body and give its URL; `say` is told what is going on meanwhile.

    Raises:
        InputError: an API is configured and does not answer.
        PackhouseError: a temporary one cannot be started.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        if not _answers(configured):
            raise InputError.at(
                f"PREFECT_API_URL = {configured}", "does not answer", "start that server, or unset the variable"
            )
        say(f"using the Prefect API at {configured}")
        with _light_clients(configured):
            yield configured
    elif _answers(LOCAL_URL):
        say(f"using the Prefect server on this machine, {LOCAL_URL}")
        with temporary_settings({PREFECT_API_URL: LOCAL_URL}), _light_clients(LOCAL_URL):
            yield LOCAL_URL
    else:
        with _temporary_server(say) as url, temporary_settings({PREFECT_API_URL: url}), _light_clients(url):
            token = has_limits.set(False)
            try:
                yield url
            finally:
                has_limits.reset(token)


@contextmanager
def _temporary_server(say: Callable[[str], None]) -> Iterator[str]:
    say("starting a temporary Prefect API (10 to 20 s of work; 'prefect server start' beforehand saves it)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", str(SERVER), str(port)], stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _is_listening(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    lines = log.read().decode(errors="replace").strip().splitlines()
                    raise PackhouseError(f"a temporary Prefect API did not start: {lines[-1] if lines else 'no message'}")
                time.sleep(POLL_S)
            yield url
            APILogWorker.drain_all(timeout=DRAIN_TIMEOUT_S)
            EventsWorker.drain_all(timeout=DRAIN_TIMEOUT_S)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _light_clients(url: str) -> Iterator[None]:
    """Spare Prefect's clients of an API on this machine without TLS the loading of all certificate authorities.

    Each of the dozens of clients of a run would do that, at 20 ms of CPU, and none would ask one of them.
    """
    host = urlsplit(url)
    if host.scheme != "http" or host.hostname not in LOOPBACK:
        yield
        return
    authorities = Path(certifi.where()).read_text(encoding="ascii", errors="replace")
    with tempfile.TemporaryDirectory(prefix="packhouse-") as folder:
        one = Path(folder, "one-authority.pem")
        one.write_text(
            authorities[authorities.index(PEM_BEGIN) : authorities.index(PEM_END)] + PEM_END + "\n", encoding="ascii"
        )
        with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(one)}):
            yield


def _is_listening(port: int) -> bool:
    """Whether a server takes connections on a port of this machine; Prefect's does when it is ready."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url.rstrip('/')}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False
