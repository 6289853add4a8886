"""A proxy on loopback that hands requests on to a server, but for some that it refuses, or cuts off in the middle."""

import http.client
import http.server
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

CUT = 0  # in place of a status: the connection ends in the middle
Failure = tuple[str, int, bool]  # pattern of method and path, status, and whether it is for the first time only


@contextmanager
def proxy(target: str, failures: Sequence[Failure], secret: str = "") -> Iterator[str]:
    """Stand before a server, and give the address; what is refused is answered with the credentials given, and a secret."""

    class Handler(BreakingHandler):
        to, pending, planted = target, list(failures), secret

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class BreakingHandler(http.server.BaseHTTPRequestHandler):
    """Hands one request on, unless one of the `pending` failures is meant for it."""

    to: str
    pending: list[Failure]
    planted: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def handle_any(self) -> None:
        size_bytes = int(self.headers.get("Content-Length") or 0)
        failure = next((item for item in self.pending if re.search(item[0], f"{self.command} {self.path}")), None)
        if failure and failure[2]:
            self.pending.remove(failure)
        if failure and failure[1] == CUT:
            self._cut(size_bytes)
            return
        body = self.rfile.read(size_bytes)
        if failure:
            self._answer(failure[1], f"no, {self.headers.get('Authorization')}, {self.planted}".encode(), "text/plain")
        else:
            self._hand_on(body)

    def _hand_on(self, body: bytes) -> None:
        request = urllib.request.Request(f"{self.to}{self.path}", data=body or None, method=self.command)
        request.add_header("Content-Type", self.headers.get("Content-Type") or "application/json")
        try:
            with urllib.request.urlopen(request) as response:
                self._answer(response.status, response.read(), response.headers.get("Content-Type") or "")
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read(), error.headers.get("Content-Type") or "")

    def _cut(self, size_bytes: int) -> None:
        """Hand half of the request on, or where it has no body, half of the answer back, and hang up on both sides."""
        server = http.client.HTTPConnection(self.to.removeprefix("http://"))
        server.putrequest(self.command, self.path)
        server.putheader("Content-Length", str(size_bytes))
        server.endheaders(self.rfile.read(size_bytes // 2))
        if not size_bytes:
            content = server.getresponse().read()
            self._answer(200, content, "application/octet-stream", sent=len(content) // 2)
        server.close()
        self.close_connection = True

    def _answer(self, status: int, body: bytes, kind: str, sent: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
