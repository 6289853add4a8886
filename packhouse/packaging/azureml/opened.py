"""A deployment's package opened here as Azure ML would: its scoring script runs its model.

The script of an online deployment runs behind Microsoft's inference server, that of a batch deployment in a process that calls
it as a job would. A script of the user's may take and give anything, so then the model is run without it.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packhouse.errors import VerificationFailed
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.runtimes import RuntimeEnvironments
from packhouse.packaging.azureml.batch_model import BatchModel
from packhouse.packaging.azureml.environment import ONLINE_SERVER
from packhouse.packaging.azureml.layout import CODE_FOLDER, SCRIPT
from packhouse.packaging.azureml.server_log import last_words
from packhouse.packaging.inference_client import Addresses, InferenceClient, running, socket_folder
from packhouse.packaging.job import PackagingJob, Workplace
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.tied import tied
from packhouse.ranking import Ranked
from packhouse.verification.opened import OpenModel, OpenPackage
from packhouse.verification.reader import unpack
from packhouse.verification.served import ServedModel
from packhouse.verification.unpacked import read_manifest, require_safe_model

SOCKET, LOG = "server.sock", "server.log"
ADDRESSES = Addresses(ready="/", metadata="/score", infer="/score")
BATCH_TIMEOUT_S = 3600.0
# Calls a scoring script as a batch job does: with the files of a folder, ten at a time.
BATCH_PROGRAM = """
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
        accelerator, candidate = job.accelerator(packaged.accelerator), job.candidate_on(packaged.digest, packaged.accelerator)
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
    with socket_folder() as place:
        socket, log = place / SOCKET, place / LOG
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
        with (
            running([python, *server], variables, place, log) as process,
            InferenceClient(socket, ADDRESSES, last_words) as client,
        ):
            client.wait_until_ready(process, log)
            environment = f"its scoring script behind {ONLINE_SERVER}"
            yield ServedModel(packaged, environment, client, job.candidate_on(packaged.digest, packaged.accelerator))


@contextmanager
def _batch(folder: Path, packaged: PackagedCandidate, job: PackagingJob, python: str, scratch: Path) -> Iterator[OpenModel]:
    """Run the script as a job would, over files."""

    def run(requests: Path, answers: Path) -> None:
        command = [python, "-c", BATCH_PROGRAM, str(folder / CODE_FOLDER / SCRIPT), str(requests)]
        variables = _variables(folder) | {"AZUREML_BI_OUTPUT_PATH": str(answers)}
        log = scratch / LOG
        with log.open("wb") as sink:
            try:
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
            except subprocess.TimeoutExpired as error:
                raise VerificationFailed(f"its scoring script did not end within {BATCH_TIMEOUT_S:g} s") from error
        if done.returncode:
            said = last_words(log.read_text(encoding="utf-8", errors="replace")) or "it said nothing"
            raise VerificationFailed(f"its scoring script ended with {done.returncode}: {said}")

    place = scratch / "batch"
    place.mkdir()
    yield BatchModel(
        packaged,
        "its scoring script, as a batch job runs it",
        job.candidate_on(packaged.digest, packaged.accelerator),
        run,
        place,
    )


def _variables(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    own = {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    # Azure ML puts what was registered into a folder below the one that it names.
    return {**kept, **own, "AZUREML_MODEL_DIR": str(folder)}
