"""A real Prefect server for the tests in this folder, and the command line as a child process."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

START_TIMEOUT_S = 240
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """A Prefect server on this machine and the home that it keeps its database in."""

    url: str
    home: Path

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer to a POST request."""
        response = httpx.post(f"{self.url}/{path}", json=body, timeout=60)
        response.raise_for_status()
        return response.json()

    def count_evaluations(self, started_after: str) -> dict[str, int]:
        """Return how many evaluation tasks ended in each state, of those that started after a time."""
        body = {"task_runs": {"name": {"like_": "evaluate "}, "start_time": {"after_": started_after}}, "limit": 200}
        names = [run["state"]["name"] for run in self.post("task_runs/filter", body)]
        return {name: names.count(name) for name in sorted(set(names))}


@dataclass
class Packhouse:
    """Runs of the command line with a Prefect home of their own."""

    environment: dict[str, str]
    prefix: tuple[str, ...] = ()
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command and return its process."""
        process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "flows.cli", *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a command to its end, check its exit code, and return its standard output."""
        output, errors = self.start(*arguments).communicate(timeout=500)
        assert self.started[-1].returncode == code, errors
        return output

    def release(self, config: Path, code: int = 0) -> Any:
        """Run a configuration and return the release record as plain data."""
        return json.loads(self.run("run", config, "--json", code=code))

    @property
    def results(self) -> Path:
        """The result storage."""
        return Path(self.environment["PREFECT_HOME"]) / "storage"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server with all its services and the UI."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, "PREFECT_HOME": str(home)}, stdout=log, stderr=log)
    found = Server(f"http://127.0.0.1:{port}/api", home)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_up(found.url):
            assert process.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.3)
        yield found
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def packhouse(server: Server, tmp_path: Path) -> Iterator[Packhouse]:
    """The command line, reporting to the server of the session, with its own results."""
    yield from _command_line({"PREFECT_API_URL": server.url}, tmp_path)


@pytest.fixture
def packhouse_alone(tmp_path: Path) -> Iterator[Packhouse]:
    """The command line without any server."""
    yield from _command_line({}, tmp_path)


def _command_line(extra: dict[str, str], folder: Path) -> Iterator[Packhouse]:
    home = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_PROFILES_PATH": str(folder / "prefect" / "profiles.toml")}
    found = Packhouse({**os.environ, **home, **extra})
    yield found
    for process in found.started:
        if process.poll() is None:
            process.kill()
            process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
