"""A copy of a package, opened as whoever receives it would open it, so that its models can be run."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from packhouse.evaluation.data import Array
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.runtimes import RuntimeEnvironments
from packhouse.evaluation.session_host import SessionHost
from packhouse.evaluation.sessions import session_arguments
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.job import PackagingJob, Workplace
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.runtime_packages import RUNTIME_FOLDER
from packhouse.verification.payload import Payload
from packhouse.verification.reader import unpack
from packhouse.verification.unpacked import read_manifest, require_safe_model, settings_of


@dataclass(frozen=True)
class Predictions:
    """What a packaged model gave: arrays by output name, whose rows belong to `ids`; and nodes per provider if it tells."""

    ids: Array
    outputs: Mapping[str, Array]
    placement: Mapping[str, int] | None = None


class OpenModel(Protocol):
    """A model of an open package."""

    @property
    def packaged(self) -> PackagedCandidate:
        """What the package says of it."""
        ...

    @property
    def environment(self) -> str:
        """In words, what it runs in."""
        ...

    def predict(self, payload: Payload, batch_size: int, samples: int | None = None) -> Predictions:
        """Run all samples of the payload, or the first so many. Raises VerificationFailed, EvaluationFailed."""
        ...


@dataclass(frozen=True)
class OpenPackage:
    """An open package: how many files it has, its models, and what could not be done to open it as its consumers would."""

    files: int
    models: Sequence[OpenModel]
    caveat: Caveat | None = None


@contextmanager
def opened_models(package: Path, job: PackagingJob, workplace: Workplace) -> Iterator[OpenPackage]:
    """Unpack a copy of a ZIP file or folder that has a manifest, whose models are run as ONNX files, each in a process.

    A model runs with the wheels that the package brings, in an environment made of nothing else, if they are its runtime's;
    otherwise with the runtime that it was evaluated with.

    Raises:
        VerificationFailed: the package is not what its manifest says, or is not safe to open.
    """
    with tempfile.TemporaryDirectory(prefix="open-", dir=workplace.scratch) as scratch:
        folder = Path(scratch, "package")
        folder.mkdir()
        files = unpack(package, folder)
        manifest = read_manifest(folder, files)
        models = [_Model(candidate, folder, job, workplace) for candidate in manifest.candidates]
        for model in models:
            model.check()
        yield OpenPackage(files=len(files), models=models)


class _Model:
    """A model in an unpacked package, run by a worker on the accelerator that it is packaged for."""

    def __init__(self, packaged: PackagedCandidate, folder: Path, job: PackagingJob, workplace: Workplace) -> None:
        self.packaged = packaged
        self._folder, self._workplace = folder, workplace
        self._accelerator = job.accelerator(packaged.accelerator)
        self._candidate = job.candidate(packaged.digest)

    @property
    def environment(self) -> str:
        if self._brings_its_runtime:
            return "an environment of the package's own wheels"
        runtime = " ".join(self._accelerator.runtime) or f"{self.packaged.runtime} {self.packaged.runtime_version}"
        return f"{runtime}, which it was evaluated with"

    def check(self) -> None:
        """Refuse a model file that must not reach a loader."""
        require_safe_model(self._folder, self.packaged)

    def predict(self, payload: Payload, batch_size: int, samples: int | None = None) -> Predictions:
        """Run the samples in a worker of its own, on the device."""
        settings = settings_of(self._folder, self.packaged)
        provider, options = settings.execution_provider[0]
        arguments = session_arguments(self._accelerator, self._candidate.settings, self._folder / self.packaged.model_path) | {
            "provider": provider,
            "provider_options": options,
            "session_options": settings.session_options.model_dump(exclude_none=True),
        }
        inputs = {value.name: payload.input_keys[value.name] for value in self._candidate.inputs}
        with (
            device_locks(self._accelerator.devices([self._candidate.settings]), exclusive=False),
            tempfile.TemporaryDirectory(prefix="run-", dir=self._workplace.scratch) as scratch,
            SessionHost(Path(scratch), self._python()) as host,
        ):
            host.ask("read_data", path=str(payload.path.absolute()), inputs=inputs)
            created = host.ask("create_session", **arguments)
            output = Path(scratch, "predictions.npz")
            answer = host.ask("predict", batch_size=batch_size, output=str(output), samples=samples)
            with np.load(output, allow_pickle=False) as arrays:
                outputs = {name: arrays[name] for name in arrays.files}
        return Predictions(payload.ids[: answer["samples"]], outputs, created["placement"])

    @property
    def _brings_its_runtime(self) -> bool:
        wheels = (self._folder / RUNTIME_FOLDER).glob("*.whl")
        brought = {parse_wheel_filename(wheel.name)[:2] for wheel in wheels}
        needed = canonicalize_name(self.packaged.runtime), Version(self.packaged.runtime_version or "0")
        return self._accelerator.plugin is None and needed in brought

    def _python(self) -> str:
        environments = RuntimeEnvironments(self._workplace.runtimes)
        if self._brings_its_runtime:
            return environments.python_from_wheels(self._folder / RUNTIME_FOLDER)
        return environments.python(self._accelerator.runtime)
