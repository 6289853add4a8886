"""The Prefect API that a run reports to, as far as it takes no server of Prefect's to see it."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

from flows.local_api import prefect_api


class Healthy(BaseHTTPRequestHandler):
    """Answers every request with 200."""

    def do_GET(self) -> None:
        """Say yes."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing else."""


@contextmanager
def serving(address: str) -> Iterator[str]:
    with HTTPServer((address, 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{address}:{server.server_port}/api"
        server.shutdown()


def test_clients_of_an_api_on_this_machine_load_no_more_than_one_certificate_authority() -> None:
    with serving("127.0.0.1") as url, temporary_settings({PREFECT_API_URL: url}):
        with prefect_api(lambda _: None):
            chosen = PREFECT_API_SSL_CERT_FILE.value()
            assert len(ssl.create_default_context(cafile=chosen).get_ca_certs()) == 1
        assert PREFECT_API_SSL_CERT_FILE.value() != chosen


@pytest.mark.parametrize("configured", [None, "/etc/authorities.pem"])
def test_clients_of_an_api_elsewhere_load_the_authorities_that_are_configured(configured: str | None) -> None:
    settings = {PREFECT_API_SSL_CERT_FILE: configured}
    with serving("127.0.0.2") as url, temporary_settings({PREFECT_API_URL: url, **settings}), prefect_api(lambda _: None):
        assert PREFECT_API_SSL_CERT_FILE.value() == configured
