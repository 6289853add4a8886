"""A relay of TCP connections to a registry on this machine, with a fault in what is pushed through it until it is mended."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Fault = Literal["cut", "error", "hold"]
CHUNK_BYTES = 1 << 16
LIMIT_BYTES = 1 << 20  # more than any request has but that of a layer
ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Relay(socketserver.ThreadingTCPServer):
    """The relay: `cut` ends a connection in the middle of a layer, `error` takes no manifest, `hold` answers no layer."""

    daemon_threads = True

    def __init__(self, registry: str, fault: Fault) -> None:
        """Listen on a port of this machine for a registry, which is given by host and port."""
        super().__init__(("127.0.0.1", 0), _Connection)
        host, _, port = registry.partition(":")
        self.registry = host, int(port)
        self.fault: Fault | None = fault
        self.held, self.left = threading.Event(), threading.Event()

    @property
    def address(self) -> str:
        """Host and port that images are pushed to."""
        return f"localhost:{self.server_address[1]}"

    def mend(self) -> None:
        """Relay everything from now on."""
        self.fault = None

    def forward(self, client: socket.socket, registry: socket.socket) -> None:
        """Give what a client says to the registry, up to the fault. `held` is set there, and `left` when the client goes."""
        sent = 0
        while chunk := client.recv(CHUNK_BYTES):
            sent += len(chunk)
            if self.fault == "error" and chunk.startswith(b"PUT ") and b"/manifests/" in chunk.partition(b"\r\n")[0]:
                client.sendall(ERROR)
                return
            if self.fault == "cut" and sent > LIMIT_BYTES:
                return
            if self.fault == "hold" and sent > LIMIT_BYTES:
                self.held.set()
                with suppress(ConnectionError):
                    while client.recv(CHUNK_BYTES):
                        pass
                self.left.set()
                return
            registry.sendall(chunk)


class _Connection(socketserver.BaseRequestHandler):
    server: Relay
    request: socket.socket

    def handle(self) -> None:
        with socket.create_connection(self.server.registry) as registry:
            answers = threading.Thread(target=_copy, args=(registry, self.request), daemon=True)
            answers.start()
            with suppress(ConnectionError):
                self.server.forward(self.request, registry)
            for end in (registry, self.request):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            answers.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def relaying(registry: str, fault: Fault) -> Iterator[Relay]:
    """Relay to a registry while the context lasts."""
    with Relay(registry, fault) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        try:
            yield relay
        finally:
            relay.shutdown()
