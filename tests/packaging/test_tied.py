"""A tied program ends with who started it, however that ended; else it runs as if it were not tied."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from packhouse.packaging.tied import tied
from tests.killed_runs import request_of_a_killed_run

TIMEOUT_S = 60
STARTS_AND_WAITS = """
import subprocess, sys, time
from packhouse.packaging.tied import tied
print(subprocess.Popen(tied(["sleep", "600"])).pid, flush=True)
time.sleep(600)
"""
SHOWS_AND_ENDS = """
from packhouse.packaging.tied import tied
print(*tied(["echo", "run"]), sep="\\n")
"""
ASKS_MLFLOW = """
import sys
from packhouse.packaging.mlflow.registry import MLflowRegistry
MLflowRegistry(sys.argv[1]).ask("upload", name="model", digest="0", folder=".", sizes={})
"""


def program_of(pid: int) -> str | None:
    """Return the name of what a process runs, or None where it has ended."""
    try:
        _, name, state = Path(f"/proc/{pid}/stat").read_text().replace("(", ")").split(")")
    except OSError:
        return None
    return None if state.split()[0] in "ZX" else name


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_ends_when_who_started_it_is_killed(number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS_AND_WAITS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        deadline = time.monotonic() + TIMEOUT_S
        while program_of(child) != "sleep" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert program_of(child) == "sleep"
        parent.send_signal(number)
    while program_of(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert program_of(child) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_program_is_not_run_when_who_started_it_has_ended_already() -> None:
    shown = subprocess.run([sys.executable, "-c", SHOWS_AND_ENDS], check=True, capture_output=True, text=True)
    done = subprocess.run(shown.stdout.splitlines(), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "echo is not run: who started it has ended\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_nobody_goes_on_to_upload_to_mlflow_for_a_run_that_was_killed() -> None:
    def start(port: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", ASKS_MLFLOW, f"http://127.0.0.1:{port}"])

    assert b" HTTP/1.1\r\n" in request_of_a_killed_run(start)


def test_a_program_gets_its_arguments_and_input_and_gives_its_output_and_exit_code() -> None:
    command = tied(["sh", "-c", 'cat; echo "$1 $2" >&2; exit 7', "sh", "two words", "$HOME"])
    done = subprocess.run(command, check=False, input="given", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "given", "two words $HOME\n")


def test_a_program_that_is_not_there_is_an_error_that_names_it() -> None:
    done = subprocess.run(tied(["packhouse-test-missing"]), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"packhouse-test-missing cannot be run: {os.strerror(2)}\n")
