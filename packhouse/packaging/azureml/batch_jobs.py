"""Jobs of a batch endpoint."""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from packhouse.artifacts import ArtifactStore
from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.batch_model import BatchModel
from packhouse.packaging.azureml.server_log import LOG_LINES
from packhouse.packaging.azureml.workspace import AzureMLSession
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.verification.payload import Payload

LOG_SUFFIXES = (".txt", ".log")
COMPLETED, ENDED = "Completed", frozenset({"Completed", "Failed", "Canceled", "NotResponding"})
RunJob = Callable[[Path, Path], None]
logger = logging.getLogger(__name__)


def prepared_model(
    packaged: PackagedCandidate, job: PackagingJob, store: ArtifactStore, run: RunJob, scratch: Path, *, scores: bool
) -> BatchModel:
    """Return the model of a deployment that answered the golden samples, and with `scores` all, in one job.

    Raises:
        RegistrationFailed: the job did not complete.
    """
    model = BatchModel(
        packaged, "a job of the batch endpoint", job.candidate_on(packaged.digest, packaged.accelerator), run, scratch
    )
    golden = (1, job.evaluation_of(packaged.digest, packaged.accelerator).sample_count)
    model.prepare(Payload.of(job, store), golden, *([(job.batch_size, None)] if scores else []))
    return model


def run_job(session: AzureMLSession, endpoint: str, deployment: str, requests: Path, answers: Path) -> None:
    """Have a job score the files in a folder, and put what it wrote into another one.

    Raises:
        RegistrationFailed: it did not complete, and with its logs; or it took longer than an operation may.
    """
    name = session.ask("batch.invoke", endpoint=endpoint, deployment=deployment, folder=str(requests))
    started = time.monotonic()
    while (status := session.ask("batch.status", job=name)) not in ENDED:
        elapsed = time.monotonic() - started
        if elapsed > session.connection.timeout_s:
            session.ask("batch.cancel", job=name)
            raise RegistrationFailed(
                f"the smoke test's job {name} is {status} after {elapsed:.0f} s, so it was canceled → see whether the compute "
                "can start, or raise timeout_s of the block"
            )
        logger.info("job %s of the smoke test: %s for %d s", name, status, elapsed)
        session.sleep(session.connection.polling_interval_s)
    fetched = answers.with_name(f"fetched-{name}")
    if status != COMPLETED:
        session.ask("batch.fetch_logs", job=name, folder=str(fetched))
        raise _failed(session, name, status, fetched)
    session.ask("batch.fetch", job=name, folder=str(fetched))
    answers.mkdir(exist_ok=True)
    for path in fetched.rglob("*"):
        if path.is_file():
            shutil.move(path, answers / path.name)


def _end(log: str) -> str:
    """Return the last lines, for a job writes as much as it likes."""
    return "".join(log.splitlines(keepends=True)[-LOG_LINES:])


def _failed(session: AzureMLSession, name: str, status: str, fetched: Path) -> RegistrationFailed:
    """Return the failure of a job, with its logs."""
    written = [path for path in sorted(fetched.rglob("*")) if path.suffix in LOG_SUFFIXES]
    logs = {
        path.relative_to(fetched).as_posix(): session.connection.without_secrets(_end(path.read_text(errors="replace")))
        for path in written
    }
    last = next((text.strip().splitlines()[-1] for text in reversed(logs.values()) if text.strip()), "it wrote no log")
    return RegistrationFailed(f"the smoke test's job {name} is {status}: {last}", logs=logs)
