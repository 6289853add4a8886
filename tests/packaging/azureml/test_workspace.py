"""The process that speaks to a workspace: what is said when it was stopped, and that it does not outlive who started it."""

import contextlib
import os
import subprocess
import sys
import tempfile

import pytest

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.workspace import AzureMLConnection, AzureMLSession
from tests.killed_runs import request_of_a_killed_run

NEVER_ANSWERS = [sys.executable, "-c", "import time; time.sleep(600)"]
ANSWERS = [sys.executable, "-c", 'import sys; [print(\'{"ok": "found"}\', flush=True) for _ in sys.stdin]']
MANY_FILES = 1100
LOGS_IN = """
from packhouse.packaging.azureml.workspace import AzureMLConnection
scope, tenant = ("s", "g", "w"), "11111111-1111-1111-1111-111111111111"
principal = {"type": "service_principal", "tenant_id": tenant, "client_id": tenant, "client_secret": "planted"}
with AzureMLConnection(*scope, credential=principal).session():
    pass
"""


def test_what_is_asked_of_a_process_that_was_stopped_fails_for_the_reason_that_it_was() -> None:
    connection = AzureMLConnection("s", "g", "w", timeout_s=0.1)
    with (
        tempfile.TemporaryFile() as log,
        contextlib.suppress(BrokenPipeError),
        subprocess.Popen(NEVER_ANSWERS, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        session = AzureMLSession(connection, process, log, lambda _: None)
        for _ in range(2):
            with pytest.raises(RegistrationFailed, match=r"did not finish 'find' within 0\.1 s.*raise timeout_s") as failed:
                session.ask("online.find", endpoint="orchard")
            assert failed.value.is_transient


def test_it_is_asked_however_many_files_are_open() -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2 * MANY_FILES:
        pytest.skip("this machine does not let a process open that many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * MANY_FILES, limits[1]))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(MANY_FILES)]
    try:
        with (
            tempfile.TemporaryFile() as log,
            subprocess.Popen(ANSWERS, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        ):
            session = AzureMLSession(AzureMLConnection("s", "g", "w"), process, log, lambda _: None)
            assert session.ask("online.find", endpoint="orchard") == "found"
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_nobody_goes_on_to_ask_azure_for_a_run_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.ai.ml")

    def start(port: int) -> "subprocess.Popen[bytes]":
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        return subprocess.Popen([sys.executable, "-c", LOGS_IN])

    assert request_of_a_killed_run(start).startswith(b"CONNECT ")
