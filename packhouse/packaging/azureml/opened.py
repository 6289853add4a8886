"""A deployment's package opened here as Azure ML would: its scoring script runs its model.

The script of an online deployment runs behind Microsoft's inference server, that of a batch deployment in a process that calls
it as a job would. A script of the user's may take and give anything, so then the model is run without it.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Self

import httpx

from packhouse.errors import VerificationFailed
from packhouse.evaluation.data import Array
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.runtimes import RuntimeEnvironments
from packhouse.packaging.azureml.batch_model import BatchModel
from packhouse.packaging.azureml.environment import ONLINE_SERVER
from packhouse.packaging.azureml.layout import CODE_FOLDER, SCRIPT
from packhouse.packaging.azureml.server_log import last_words
from packhouse.packaging.inference_server.messages import JSON_LENGTH, read_answer, write_request
from packhouse.packaging.inference_server.tensors import BadRequest
from packhouse.packaging.job import PackagingJob, Workplace
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.tied import tied
from packhouse.ranking import Ranked
from packhouse.verification.opened import OpenModel, OpenPackage
from packhouse.verification.reader import unpack
from packhouse.verification.served import ServedModel
from packhouse.verification.unpacked import read_manifest, require_safe_model

SOCKET, LOG = "server.sock", "server.log"
START_TIMEOUT_S, ANSWER_TIMEOUT_S, BATCH_TIMEOUT_S = 300.0, 600.0, 3600.0
POLL_S = 0.1
# Calls a scoring script as a batch job does: with the files of a folder, ten at a time.
BATCH_DRIVER = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("entry", sys.argv[1])
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
script.init()
files = sorted(map(str, pathlib.Path(sys.argv[2]).iterdir()))
for start in range(0, len(files), 10):
    script.run(files[start:start + 10])
"""


@contextmanager
def opened_deployment(package: Path, job: PackagingJob, workplace: Workplace, *, is_online: bool) -> Iterator[OpenPackage]:
    """Run the generated scoring script of a copy of the package, in an environment of what its own would have.

    Raises:
        VerificationFailed: the package is not what its manifest says, or the script does not run.
        EvaluationFailed: what it needs cannot be installed.
    """
    with tempfile.TemporaryDirectory(prefix="open-", dir=workplace.scratch) as scratch:
        folder = Path(scratch, "package")
        files = unpack(package, folder)
        (packaged,) = read_manifest(folder, files).candidates
        require_safe_model(folder, packaged)
        accelerator, candidate = job.accelerator(packaged.accelerator), job.candidate(packaged.digest)
        ranked = next(item for item in job.by_accelerator[packaged.accelerator].ranked if item.candidate == packaged.digest)
        python = _python(job, ranked, workplace, Path(scratch), is_online=is_online)
        open_model = (
            _online(folder, packaged, job, python) if is_online else _batch(folder, packaged, job, python, Path(scratch))
        )
        with device_locks(accelerator.devices([candidate.settings]), exclusive=False), open_model as model:
            yield OpenPackage(files=len(files), models=[model])


def _python(job: PackagingJob, ranked: Ranked, workplace: Workplace, scratch: Path, *, is_online: bool) -> str:
    runtime = list(map(str, job.runtime_pins(ranked)))
    server = [str(ONLINE_SERVER)] if is_online else []
    requirements = scratch / "requirements.txt"
    requirements.write_text("\n".join([*server, *runtime, f"numpy=={metadata.version('numpy')}"]) + "\n", encoding="utf-8")
    return RuntimeEnvironments(workplace.runtimes).python_from_requirements(requirements)


@contextmanager
def _online(folder: Path, packaged: PackagedCandidate, job: PackagingJob, python: str) -> Iterator[OpenModel]:
    """Run the script behind the inference server, on a Unix socket, so that no port is opened."""
    with tempfile.TemporaryDirectory(prefix="packhouse-") as place:  # the path of a socket is short
        socket, log = Path(place, SOCKET), Path(place, LOG)
        server = [
            "-m",
            "gunicorn",
            "--bind",
            f"unix:{socket}",
            "--timeout",
            "0",
            "azureml_inference_server_http.server.entry:app",
        ]
        variables = _variables(folder) | {
            "AML_APP_ROOT": str(folder / CODE_FOLDER),
            "AZUREML_ENTRY_SCRIPT": SCRIPT,
        }
        with log.open("wb") as sink:
            process = subprocess.Popen(
                tied([python, *server]),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=place,
            )
        try:
            with _ScoringClient(socket) as client:
                client.wait_until_ready(process, log)
                environment = f"its scoring script behind {ONLINE_SERVER}"
                yield ServedModel(packaged, environment, client, job.candidate(packaged.digest))
        finally:
            process.terminate()
            try:
                process.wait(timeout=POLL_S * 100)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _batch(folder: Path, packaged: PackagedCandidate, job: PackagingJob, python: str, scratch: Path) -> Iterator[OpenModel]:
    """Run the script as a job would, over files."""

    def run(requests: Path, answers: Path) -> None:
        command = [python, "-c", BATCH_DRIVER, str(folder / CODE_FOLDER / SCRIPT), str(requests)]
        variables = _variables(folder) | {"AZUREML_BI_OUTPUT_PATH": str(answers)}
        log = scratch / LOG
        with log.open("wb") as sink:
            done = subprocess.run(
                tied(command),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=scratch,
                timeout=BATCH_TIMEOUT_S,
            )
        if done.returncode:
            raise VerificationFailed(f"its scoring script ended with {done.returncode}: {_end_of(log)}")

    place = scratch / "batch"
    place.mkdir()
    yield BatchModel(packaged, "its scoring script, as a batch job runs it", job.candidate(packaged.digest), run, place)


def _variables(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    own = {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    # Azure ML puts what was registered into a folder below the one that it names.
    return {**kept, **own, "AZUREML_MODEL_DIR": str(folder)}


def _end_of(log: Path) -> str:
    return last_words(log.read_text(encoding="utf-8", errors="replace")) or "it said nothing"


class _ScoringClient:
    """What asks the inference server; use it as a context manager."""

    def __init__(self, socket: Path) -> None:
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(transport=transport, base_url="http://localhost", timeout=ANSWER_TIMEOUT_S, trust_env=False)

    def wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Return when the script was loaded. Raises VerificationFailed where the server ends before, or it takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise VerificationFailed(f"its scoring script does not start: {_end_of(log)}")
            try:
                self._http.get("/").raise_for_status()
            except httpx.HTTPError:
                time.sleep(POLL_S)
            else:
                return
        raise VerificationFailed(f"its scoring script was not ready within {START_TIMEOUT_S:g} s: {_end_of(log)}")

    def infer(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return these outputs for the feed. Raises VerificationFailed where the script refuses, or gives something else."""
        body, headers = write_request(feed, outputs)
        try:
            answer = self._http.post("/score", content=body, headers=headers)
        except httpx.HTTPError as error:
            raise VerificationFailed(f"its scoring script did not answer: {type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise VerificationFailed(f"its scoring script refused ({answer.status_code}): {answer.text}")
        try:
            return read_answer(answer.content, answer.headers.get(JSON_LENGTH))
        except BadRequest as error:
            raise VerificationFailed(f"its scoring script gave an answer that is not one of the protocol: {error}") from error

    def placement(self) -> dict[str, int]:
        """Return how many nodes run on each provider, as the script says."""
        placement: dict[str, int] = self._http.get("/score").raise_for_status().json()["parameters"]["placement"]
        return placement

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
