"""A copy of an MLflow model folder, opened with MLflow as whoever loads it would, in an environment of its requirements."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np

from packhouse.errors import EvaluationFailed, VerificationFailed
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.runtimes import RuntimeEnvironments
from packhouse.evaluation.session_host import SessionHost
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.golden import own_batch
from packhouse.packaging.job import PackagingJob, Workplace
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.pins import Pin
from packhouse.verification.opened import OpenPackage, Predictions
from packhouse.verification.payload import Payload
from packhouse.verification.reader import unpack
from packhouse.verification.unpacked import read_manifest, require_safe_model

WORKER = Path(__file__).with_name("worker.py")
REQUIREMENTS = "requirements.txt"


@contextmanager
def opened_by_mlflow(package: Path, job: PackagingJob, workplace: Workplace) -> Iterator[OpenPackage]:
    """Copy an MLflow model folder, check the copy against its manifest, and give its model, run by ``mlflow.pyfunc``.

    It runs in an environment of what it requires and nothing else. Where that cannot be installed, and what it requires is
    installed here, it runs here, and the package has a caveat.

    Raises:
        VerificationFailed: the package is not what its manifest says, or is not safe to open.
        EvaluationFailed: what it requires cannot be installed.
    """
    with tempfile.TemporaryDirectory(prefix="open-", dir=workplace.scratch) as scratch:
        folder = Path(scratch, "package")
        folder.mkdir()
        files = unpack(package, folder)
        manifest = read_manifest(folder, files)
        if len(manifest.candidates) != 1 or REQUIREMENTS not in files:
            raise VerificationFailed(f"an MLflow model folder has one model and {REQUIREMENTS}")
        require_safe_model(folder, manifest.candidates[0])
        python, caveat = _python(folder / REQUIREMENTS, workplace)
        model = _MLflowModel(manifest.candidates[0], folder, job, workplace, python)
        yield OpenPackage(files=len(files), models=[model], caveat=caveat)


class _MLflowModel:
    """The model of an MLflow model folder, loaded by ``mlflow.pyfunc.load_model`` in a process of its own."""

    def __init__(self, packaged: PackagedCandidate, folder: Path, job: PackagingJob, workplace: Workplace, python: str) -> None:
        self.packaged, self._python = packaged, python
        self._folder, self._workplace = folder, workplace
        self._accelerator = job.accelerator(packaged.accelerator)
        self._candidate = job.candidate(packaged.digest)
        lines = (folder / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
        self._requirements = [Pin.parse(line) for line in lines]

    @property
    def environment(self) -> str:
        return "mlflow.pyfunc with " + ", ".join(map(str, self._requirements))

    def predict(self, payload: Payload, batch_size: int, samples: int | None = None) -> Predictions:
        """Run the samples through MLflow, on the device. MLflow does not say where single nodes run."""
        with (
            device_locks(self._accelerator.devices([self._candidate.settings]), exclusive=False),
            tempfile.TemporaryDirectory(prefix="run-", dir=self._workplace.scratch) as scratch,
            SessionHost(Path(scratch), self._python, worker=WORKER) as host,
        ):
            host.ask("load", folder=str(self._folder), provider=self._accelerator.execution_provider)
            output = Path(scratch, "predictions.npz")
            answer = host.ask(
                "predict",
                data=str(payload.path.absolute()),
                inputs={value.name: payload.input_keys[value.name] for value in self._candidate.inputs},
                batch_size=batch_size,
                fixed_batch=own_batch(self._candidate),
                samples=samples,
                output=str(output),
            )
            with np.load(output, allow_pickle=False) as arrays:
                outputs = {name: arrays[name] for name in arrays.files}
        return Predictions(payload.ids[: answer["samples"]], outputs)


def _python(requirements: Path, workplace: Workplace) -> tuple[str, Caveat | None]:
    """Return an interpreter that has just these requirements; or this one, which has them too, and why."""
    try:
        return RuntimeEnvironments(workplace.runtimes).python_from_requirements(requirements), None
    except EvaluationFailed as error:
        pins = map(Pin.parse, requirements.read_text(encoding="utf-8").splitlines())
        if any(_installed_version(pin.name) != pin.version for pin in pins):
            raise
        remedy = "run again where its requirements can be installed"
        return sys.executable, Caveat(what="not run in an environment of its own", reason=str(error), remedy=remedy)


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
