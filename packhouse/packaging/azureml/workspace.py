"""An Azure ML workspace as packaging types use it: where it is, how to log in, and a process that speaks to it.

The process is ours to stop: Azure's SDK has operations that never end, and sets variables and prints where others meet them.
"""

import contextlib
import json
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.failures import AzureFailed, Failure
from packhouse.packaging.tied import tied

CLIENT = "packhouse.packaging.azureml.client"
POLL_S = 0.5
STOP_TIMEOUT_S = 5.0
# What must not be told, in whatever text Azure gives: signatures of storage addresses, tokens, keys.
SIGNATURES = re.compile(r"(sig=|[Bb]earer |AccountKey=)[^\s&\"';,]+")
HIDDEN = "***"


@dataclass(frozen=True)
class AzureMLConnection:
    """A workspace and the credential to log in with; neither its repr nor what it raises has a secret in it.

    `credential` has the key `type` and the arguments of that kind of credential: see `client.CREDENTIALS`. An operation may
    take `timeout_s` seconds, one answer of a server `read_timeout_s`.
    """

    subscription_id: str
    resource_group: str
    workspace: str
    credential: Mapping[str, str | None] = field(default_factory=lambda: {"type": "default"}, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    cloud: str = "AzureCloud"
    timeout_s: float = 3600.0
    read_timeout_s: float = 120.0
    retries: int = 3
    polling_interval_s: int = 30

    @property
    def resource_id(self) -> str:
        """The workspace's identity in Azure Resource Manager."""
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"

    @contextmanager
    def session(self, sleep: Callable[[float], None] = time.sleep) -> Iterator["AzureMLSession"]:
        """Give a session with the workspace, which is there and lets us in.

        Raises:
            RegistrationFailed: it is not, or does not.
        """
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                tied([sys.executable, "-P", "-m", CLIENT]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
            session = AzureMLSession(self, process, log, sleep)
            try:
                session.ask("connect", **self.told())
                yield session
            finally:
                _stop(process)

    def without_secrets(self, text: str) -> str:
        """Return a text of Azure's in which nothing secret is left."""
        for secret in filter(None, self.secrets):
            text = text.replace(secret, HIDDEN)
        return SIGNATURES.sub(rf"\g<1>{HIDDEN}", text)

    def told(self) -> dict[str, Any]:
        """Return what the client process is told to connect with, secrets in clear."""
        return {
            "scope": [self.subscription_id, self.resource_group, self.workspace],
            "credential": dict(self.credential),
            "cloud": self.cloud,
            "read_timeout": self.read_timeout_s,
            "retry_total": self.retries,
            "polling_interval": self.polling_interval_s,
        }


class AzureMLSession:
    """A conversation with a workspace. What may pass is tried again, as `failures` says; `sleep` waits in between."""

    def __init__(
        self, connection: AzureMLConnection, process: subprocess.Popen[bytes], log: IO[bytes], sleep: Callable[[float], None]
    ) -> None:
        """Use a client process whose messages go to `log`."""
        self.connection = connection
        self.sleep = sleep
        self._process, self._log = process, log
        self._stopped: RegistrationFailed | None = None

    def ask(self, do: str, **arguments: Any) -> Any:
        """Return what the workspace answers.

        Raises:
            AzureFailed: with Azure's reason and the remedy.
            RegistrationFailed: the process ended, or took too long.
        """
        tried = 0
        while True:
            try:
                return self.ask_once(do, **arguments)
            except AzureFailed as error:
                if tried >= error.failure.retries:
                    raise
                tried += 1
                self.sleep(error.failure.delay_s(tried))

    def ask_once(self, do: str, **arguments: Any) -> Any:
        """Return what the workspace answers, and try nothing again. Raises what `ask` does."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended(do) from None
        deadline = time.monotonic() + self.connection.timeout_s
        with selectors.DefaultSelector() as answers:
            answers.register(self._process.stdout, selectors.EVENT_READ)
            while not answers.select(POLL_S):
                if time.monotonic() > deadline:
                    self._process.kill()
                    self._stopped = RegistrationFailed(
                        f"Azure ML did not finish {_words(do)} within {self.connection.timeout_s:g} s, so it was stopped → "
                        "try again; if it needs longer, raise timeout_s of the block",
                        is_transient=True,
                    )
                    raise self._stopped
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended(do)
        answer = json.loads(line)
        if "failed" in answer:
            told = {**answer["failed"], "message": self.connection.without_secrets(answer["failed"]["message"])}
            raise AzureFailed(f"workspace {self.connection.workspace}", Failure(**told, asked=do))
        return answer["ok"]

    def _ended(self, do: str) -> RegistrationFailed:
        if self._stopped:  # by us, which is the reason for all that is asked from then on
            return self._stopped
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines() or ["no message"]
        reason = self.connection.without_secrets(lines[-1])
        return RegistrationFailed(f"the process that speaks to Azure ML ended ({code}) during {_words(do)}: {reason}")


def _words(do: str) -> str:
    """Return what was asked, for a message."""
    return repr(do.rpartition(".")[2].replace("_", " "))


def _stop(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            if stream:
                stream.close()
    try:
        process.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
