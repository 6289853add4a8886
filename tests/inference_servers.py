"""Inference servers for tests: the real program as a process, on a Unix socket or a port."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_S = 120


def write_served_model(folder: Path, model: Path, *, name: str = "points", **changes: Any) -> Path:
    """Put the files that a server reads beside a copy of a model, and return their folder; `changes` are of serving.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.read_bytes())
    settings = {"execution_provider": [["CPUExecutionProvider", {}]], "session_options": {"intra_op_num_threads": 1}}
    described: dict[str, Any] = {
        "name": name,
        "version": "1",
        "model_path": "model.onnx",
        "accelerator": "cpu-cpu",
        "device": "cpu",
        "plugin": None,
        "dimensions": {},
    }
    (folder / "inference_config.json").write_text(json.dumps(settings))
    (folder / "serving.json").write_text(json.dumps({**described, **changes}))
    return folder


def start_server(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the server of the model in a folder."""
    command = [sys.executable, "-m", "packhouse.packaging.inference_server", "--model", str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process when the context ends."""
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[httpx.Client]:
    """Serve the model in a folder on a Unix socket, and give a client of it."""
    with tempfile.TemporaryDirectory() as short:
        path = f"{short}/socket"
        process = start_server(folder, "--uds", path, *arguments)
        client = httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://server", timeout=TIMEOUT_S)
        with ended(process), client:
            wait_until_ready(client, process)
            yield client


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    """Return when a server says that it is ready; fail where it ends before."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        try:
            if client.get("/v2/health/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server was not ready in time")


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
