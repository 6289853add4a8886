"""What a batch job does on its compute: fetch code, model and input, score mini batches in a process, store the output."""

import json
import select
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.azure.assets import Assets
from tests.fakes.azure.datastores import ARTIFACTS, DEFAULT, Datastores
from tests.fakes.azure.endpoints import Deployment
from tests.fakes.azure.images import Images, requirements
from tests.fakes.azure.jobs import Job
from tests.fakes.azure.messages import ServiceError
from tests.fakes.azure.schema import seconds

DRIVER = Path(__file__).with_name("batch_driver.py")
# Azure's own program on the compute imports them; the fake's does not, so they must be listed but are not installed.
NEEDED = ("azureml-core", "azureml-dataset-runtime")
# Of an environment without a conda file, whose image has to have everything.
OF_THE_IMAGE = ("onnxruntime", "numpy")
INIT_TIMEOUT_S = 120.0
ALL_FAILURES = -1


@dataclass(frozen=True)
class Scoring:
    """Runs batch jobs, one process each; the parts are those of the workspace."""

    folder: Path
    images: Images
    datastores: Datastores
    models: Assets
    environments: Assets
    codes: Assets
    data: Assets

    def __call__(self, job: Job) -> None:
        """Score the input of a job and store the predictions and its log.

        Raises:
            ServiceError: the job failed; its log says why.
        """
        place = self.folder / job.name
        log = place / "std_log.txt"
        place.mkdir(parents=True)
        log.touch()
        try:
            self._score(job, place, log)
        except ServiceError as error:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{error.code}: {error}\n")
            raise
        finally:
            for run in (job.name, job.child):
                self.datastores.write(ARTIFACTS, f"ExperimentRun/dcid.{run}/user_logs/std_log_0.txt", log.read_bytes())

    def check(self, deployment: Deployment) -> None:
        """Refuse a deployment whose parts are not registered."""
        settings = deployment.properties
        for assets, path in (
            (self.environments, settings.get("environmentId")),
            (self.codes, (settings.get("codeConfiguration") or {}).get("codeId")),
            (self.models, (settings.get("model") or {}).get("assetId")),
        ):
            if path is not None:
                assets.properties(path)

    def _score(self, job: Job, place: Path, log: Path) -> None:
        settings, output = job.settings, place / "output"
        output.mkdir()
        python = self.images.build(_requirements(self.environments.properties(settings["environmentId"]).get("condaFile")))
        script = self._fetch_script(settings["codeConfiguration"], place / "code")
        variables = {**self.images.variables(), **(settings.get("environmentVariables") or {})}
        variables["AZUREML_BI_OUTPUT_PATH"] = str(output)
        if model := settings.get("model"):
            # As in Azure, what was registered lies one level below the folder that the script is told.
            self.datastores.download(self.models.properties(model["assetId"])["modelUri"], place / "azureml-models")
            variables["AZUREML_MODEL_DIR"] = str(place / "azureml-models")
        files = list(self._inputs(job, place / "input"))
        size = settings["miniBatchSize"]
        batches = [files[first : first + size] for first in range(0, len(files), size)]
        with log.open("a", encoding="utf-8") as stream:
            process = Process([str(python), str(DRIVER), str(script)], variables, script.parent, stream)
            job.stop = process.cancel
            if job.is_cancelled:
                process.cancel()
            try:
                rows = _rows(process, batches, settings)
            finally:
                process.stop()
        if settings["outputAction"].lower() == "appendrow":
            (output / settings["outputFileName"]).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        self._store(job, output)

    def _fetch_script(self, code: Mapping[str, str], folder: Path) -> Path:
        sources = self.datastores.download(self.codes.properties(code["codeId"])["codeUri"], folder)
        script = sources / code["scoringScript"]
        if not script.is_file():
            raise ServiceError(400, "UserError", f"The scoring script {code['scoringScript']} is not in the code.")
        return script

    def _inputs(self, job: Job, folder: Path) -> Iterator[str]:
        """Yield the paths of the input's files, fetched from blob storage, in the order of their names."""
        for name, given in job.inputs.items():
            uri = given["uri"]
            if "/data/" in uri and "/versions/" in uri:
                uri = self.data.properties(uri)["dataUri"]
            found = self.datastores.download(uri, folder / name)
            files = [found] if found.is_file() else sorted(path for path in found.rglob("*") if path.is_file())
            if given["jobInputType"] == "UriFile" and found.is_dir():
                raise ServiceError(400, "UserError", f"The input {name} is said to be a file, and {uri} is a folder.")
            yield from map(str, files)

    def _store(self, job: Job, output: Path) -> None:
        """Upload what was made to where the job's output is."""
        prefix = job.output_uri.partition("/paths/")[2].rstrip("/")
        for path in sorted(output.rglob("*")):
            if path.is_file():
                self.datastores.write(DEFAULT, f"{prefix}/{path.relative_to(output).as_posix()}", path.read_bytes())


def _rows(process: "Process", batches: Sequence[Sequence[str]], settings: Mapping[str, Any]) -> list[str]:
    """Return the rows of all mini batches, each tried as often as the settings allow.

    A mini batch counts as many errors as it returned rows too few; more of them than the threshold end the job. It is assumed
    that a job of which nothing succeeded fails whatever the threshold is.
    """
    retries, threshold = settings["retrySettings"], settings["errorThreshold"]
    rows: list[str] = []
    errors, failure = 0, ""
    for batch in batches:
        scored: list[str] = []
        for _ in range(1 + retries["maxRetries"]):
            answer = process.ask(batch, seconds(retries["timeout"]))
            if "rows" in answer:
                scored = answer["rows"]
                break
            failure = answer["failed"].strip().splitlines()[-1]
        rows += scored
        errors += max(0, len(batch) - len(scored))
        if errors > threshold != ALL_FAILURES:
            raise ServiceError(
                400,
                "UserError",
                f"{errors} items failed, which is more than the error threshold {threshold}. {failure}".strip(),
            )
    if not rows and errors:
        raise ServiceError(400, "UserError", f"No item was processed successfully. {failure}".strip())
    return rows


def _requirements(conda_file: str | None) -> Sequence[str]:
    """Return what pip is to install for a batch deployment."""
    if conda_file is None:
        return OF_THE_IMAGE
    wanted = requirements(conda_file)
    for name in NEEDED:
        if not any(requirement.startswith(name) for requirement in wanted):
            raise ServiceError(400, "UserError", f"ModuleNotFoundError: batch deployments need {name} in the conda file.")
    return [requirement for requirement in wanted if not requirement.startswith(NEEDED)]


@dataclass
class Process:
    """The driver as a process: started for the first mini batch, and again after one that took too long."""

    command: Sequence[str]
    variables: Mapping[str, str]
    folder: Path
    log: Any
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _cancelled: bool = False

    def ask(self, batch: Sequence[str], timeout_s: float) -> dict[str, Any]:
        """Return what the script makes of a mini batch, or how that failed.

        Raises:
            ServiceError: ``init`` failed, or the job was cancelled.
        """
        if self._cancelled:
            raise ServiceError(400, "Canceled", "The job was cancelled.")
        process = self._running or self._start()
        assert process.stdin
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(batch).encode() + b"\n")
            process.stdin.flush()
        answer = self._answer(process, timeout_s)
        if answer is None:
            self.stop()
            return {"failed": f"TimeoutError: run() took more than {timeout_s:g} s, or ended its process"}
        return answer

    def cancel(self) -> None:
        """End the process from another thread, for good."""
        self._cancelled = True
        if (process := self._running) is not None:
            process.kill()

    def stop(self) -> None:
        """End the process; it starts anew for another mini batch."""
        process, self._running = self._running, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream
            with suppress(BrokenPipeError):
                stream.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._running = process = subprocess.Popen(
            self.command, env=self.variables, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log
        )
        if self._answer(process, INIT_TIMEOUT_S) is None:
            self.stop()
            raise ServiceError(400, "UserError", "EntryScriptException: init() of the scoring script failed. See its log.")
        return process

    @staticmethod
    def _answer(process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, Any] | None:
        """Return a line of the driver's; nothing where none came in time, or it ended."""
        assert process.stdout
        ready, _, _ = select.select([process.stdout], [], [], timeout_s)
        line = process.stdout.readline() if ready else b""
        return dict(json.loads(line)) if line.endswith(b"\n") else None
