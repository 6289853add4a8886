"""A CONNECT proxy that ends TLS for Azure's host names on this machine and hands each request to the service behind the name.

Every other host is tunnelled untouched, so that a process under test still reaches a package registry; which ones is recorded.
"""

import select
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.azure.certificates import CertificateAuthority
from tests.fakes.azure.messages import Request, Response

AZURE = (
    ".azure.com",
    ".windows.net",
    ".microsoftonline.com",
    ".azureml.ms",
    ".azureml.net",
    ".visualstudio.com",
    ".microsoft.com",
)
TUNNEL_TIMEOUT_S = 60
Service = Callable[[Request], Response | None]


class Proxy:
    """Listens on loopback; `answer` returns the answer to a request, or nothing to drop the connection."""

    def __init__(self, authority: CertificateAuthority, answer: Service) -> None:
        self.tunnelled: set[str] = set()
        proxy = self

        class Handler(_Handler):
            certificates = authority
            service = staticmethod(answer)
            tunnelled = proxy.tunnelled

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the proxy listens, and the managed-identity endpoints with it."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    certificates: CertificateAuthority
    service: Service
    tunnelled: set[str]
    protocol_version = "HTTP/1.1"
    host = "127.0.0.1"

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if not host.endswith(AZURE):
            self._tunnel(host, int(port))
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.host = host
        self.close_connection = False
        try:
            self.connection = self.certificates.server_context(host).wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, ConnectionError):
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        request = Request(
            method=self.command,
            host=self.host,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            content=self._read_content(),
            headers={name.lower(): value for name, value in self.headers.items()},
            target=self.path,
        )
        response = self.service(request)
        if response is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self._write(response)

    # The names are those of http.server.
    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _read_content(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(content)

    def _write(self, response: Response) -> None:
        payload = response.payload()
        headers = {"content-type": "application/json; charset=utf-8", "content-length": str(len(payload))}
        headers |= {name.lower(): value for name, value in response.headers.items()}
        lines = [f"HTTP/1.1 {response.status} -", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if self.command == "HEAD" else payload))

    def _tunnel(self, host: str, port: int) -> None:
        self.tunnelled.add(host)
        self.close_connection = True
        try:
            other = socket.create_connection((host, port), timeout=TUNNEL_TIMEOUT_S)
        except OSError as error:
            self.send_error(502, f"{host}: {error}")
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with other:
            _copy_both_ways(self.connection, other)

    def log_message(self, *args: object) -> None:
        """Write nothing: requests are recorded."""


def _copy_both_ways(one: socket.socket, other: socket.socket) -> None:
    targets = {one: other, other: one}
    while True:
        ready, _, _ = select.select(list(targets), [], [], TUNNEL_TIMEOUT_S)
        if not ready:
            return
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            targets[source].sendall(data)
