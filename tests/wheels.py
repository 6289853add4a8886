"""Real wheels that are made in a moment, for tests of what pip and uv do."""

import base64
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def make_wheel(folder: Path, name: str, version: str, *requires: str, modules: Mapping[str, str] | None = None) -> Path:
    """Write a wheel with these files and their texts, or with one module of its name."""
    info = f"{name}-{version}.dist-info"
    files = {
        **({f"{name}.py": f"version = {version!r}\n"} if modules is None else modules),
        f"{info}/METADATA": metadata_text(name, version, *requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},{_record_hash(text)},{len(text.encode())}\n" for path, text in files.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return wheel


@contextmanager
def breaking_index(folder: Path) -> Iterator[str]:
    """Serve the wheels in a folder as a package index that breaks every download off in its middle; give its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            wheel = folder / Path(self.path).name
            if wheel.suffix == ".whl":
                content = wheel.read_bytes()
                self._answer("application/octet-stream", len(content), content[: len(content) // 2])
                return
            links = "".join(
                f'<a href="/{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
                for path in folder.glob(f"{Path(self.path).name.replace('-', '_')}-*.whl")
            )
            self._answer("text/html", len(links), links.encode())

        def _answer(self, kind: str, size_bytes: int, sent: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size_bytes))
            self.end_headers()
            self.wfile.write(sent if self.command == "GET" else b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def metadata_text(name: str, version: str, *requires: str) -> str:
    """Return the METADATA of a distribution."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
    return "\n".join(lines) + "\n"


def _record_hash(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
