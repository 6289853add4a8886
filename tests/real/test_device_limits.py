"""Concurrency limits of a real Prefect server: made where nobody named one, required where somebody did."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.jobs import write_job
from tests.real.conftest import Packhouse, Server

pytestmark = pytest.mark.real


def limit_on(server: Server, name: str) -> Any:
    """Return a limit as the server has it."""
    return httpx.get(f"{server.url}/v2/concurrency_limits/{name}", timeout=60).json()


def create(server: Server, name: str, limit: int) -> None:
    server.post("v2/concurrency_limits/", {"name": name, "limit": limit, "active": True})


def problem_of(packhouse: Packhouse, config: Path) -> Any:
    (problem,) = json.loads(packhouse.run("run", config, "--json", code=2))["problems"]
    assert not (config.parent / "packages").exists()
    return problem


def test_of_a_device_is_made_and_free_again_after_timing(packhouse: Packhouse, server: Server, tmp_path: Path) -> None:
    packhouse.release(write_job(tmp_path, packaging=[]))

    name = f"packhouse-{socket.gethostname().lower()}-cpu"
    found = limit_on(server, name)
    assert (found["limit"], found["active"], found["active_slots"]) == (1, True, 0)


def test_that_is_named_and_missing_ends_the_run_before_it_begins(packhouse: Packhouse, tmp_path: Path) -> None:
    config = write_job(tmp_path, accelerators=[{"concurrency_limit": "lab-gpu"}])

    assert problem_of(packhouse, config) == {
        "where": "accelerators[0].concurrency_limit = lab-gpu",
        "what": "the Prefect API has no such limit",
        "remedy": "prefect gcl create lab-gpu --limit 1, or leave the setting out",
    }


def test_that_is_named_needs_a_server_that_lasts(packhouse_alone: Packhouse, tmp_path: Path) -> None:
    config = write_job(tmp_path, accelerators=[{"concurrency_limit": "lab-gpu"}])

    assert problem_of(packhouse_alone, config)["what"] == "needs a Prefect server that lasts, and there is none"


def test_that_lets_two_through_is_refused(packhouse: Packhouse, server: Server, tmp_path: Path) -> None:
    create(server, "wide-open", 2)

    problem = problem_of(packhouse, write_job(tmp_path, accelerators=[{"concurrency_limit": "wide-open"}]))

    assert problem["what"] == "lets 2 through at a time"


def test_that_is_named_is_waited_for(packhouse: Packhouse, server: Server, tmp_path: Path) -> None:
    create(server, "lab", 1)
    taken = server.post("v2/concurrency_limits/increment", {"names": ["lab"], "slots": 1, "mode": "concurrency"})
    assert taken
    process = packhouse.start("run", write_job(tmp_path, accelerators=[{"concurrency_limit": "lab"}], packaging=[]))
    assert process.stderr
    for line in process.stderr:
        if "timing on cpu-cpu: waiting for the limit lab" in line:
            break
    assert process.poll() is None

    server.post("v2/concurrency_limits/decrement", {"names": ["lab"], "slots": 1})

    process.communicate(timeout=300)
    assert process.returncode == 0
