"""Faults in the life of packages: killed and failed at every boundary, a run leaves nothing half done, and the next completes.

The faults of a test come one after the other, each in a run of its own that goes a bit further than the one before.
"""

import json
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from packhouse.artifacts import measure
from packhouse.errors import VerificationFailed
from packhouse.provenance.config import ENVELOPE_SUFFIX, PROVENANCE_SUFFIX, RUN_SUFFIX
from packhouse.provenance.keys import read_signing_key
from packhouse.provenance.signing import verify_beside
from packhouse.release import RELEASE_NAME, REPORT_NAME, Release, read_release
from packhouse.verification import verify_package
from tests.jobs import write_job
from tests.provenance.keys import write_keys
from tests.real.conftest import Packhouse, Server
from tests.real.test_runs import now, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

SHARED_MEMORY = Path("/dev/shm")
# Where a run is killed, and the steps that it begins: what an earlier one finished is taken from the cache.
KILLS: list[tuple[str, list[str]]] = [
    ("inside the archive first", ["create first"]),
    ("adopted first", ["create first"]),
    ("before validate first", ["create first", "validate first"]),
    ("after validate first", ["validate first"]),
    ("before score first", ["validate first", "score first"]),
    ("after score first", ["score first"]),
    ("before register first", ["score first", "register first"]),
    ("placing first", ["register first"]),
    ("appearing first.zip.provenance.json", ["register first"]),
    ("placed first", ["register first"]),
    ("placed second", ["register first", "create second", "validate second", "score second", "register second"]),
    ("writing report.html", ["register first", "register second"]),
    ("writing release.json", ["register first", "register second"]),
]
# Where a run that signs is killed, from just before a package is registered until just before the release is published.
KILLS_WHILE_REGISTERING = [
    "before register first",
    f"appearing first.zip{ENVELOPE_SUFFIX}",
    "placing first",
    f"appearing first.zip{PROVENANCE_SUFFIX}",
    f"appearing first.zip{RUN_SUFFIX}",
    "placed first",
    "writing release.json",
]
# Where something fails, the step that does not succeed for it, and what is said of it.
FAILURES = [
    ("full disk in create first", "create", "File too large"),
    ("full disk in validate first", "validate", "File too large"),
    ("dead worker in validate first", "validate", "its process was killed by SIGKILL during 'predict'"),
    ("full disk in placing first", "register", "File too large"),
]


@dataclass
class Trial:
    """Runs of one job, of which each may have a fault; its packages are `first` and `second`, in this order."""

    packhouse: Packhouse
    folder: Path
    output: Path
    key: Path | None = None
    verified: set[str] = field(default_factory=set)

    def configure(self, name: str = "", errors: Sequence[float] = (0.0, 0.5), **settings: Any) -> Path:
        """Write the job, with settings of its packages; of several jobs, each has a name."""
        packaging = [{"type": "Faulty", "name": name, **settings} for name in ("first", "second")]
        signing = {"key_file": str(self.key)} if self.key else None
        (self.folder / name).mkdir(exist_ok=True)
        return write_job(self.folder / name, errors, packaging=packaging, output_dir=str(self.output), signing=signing)

    def start(self, config: Path, fault: str = "") -> subprocess.Popen[str]:
        """Start the job with a fault."""
        self.log.unlink(missing_ok=True)
        self.packhouse.environment |= {"FAULT": fault, "FAULT_LOG": str(self.log), "FAULT_OVER": str(self.over)}
        return self.packhouse.start("run", config, "--json")

    def run(self, config: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
        """Run the job with a fault, and return how it ended."""
        process = self.start(config, fault)
        output, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    @property
    def over(self) -> Path:
        """The file that what waits is waiting for."""
        return self.folder / "over"

    @property
    def log(self) -> Path:
        """The file with the steps that a run began."""
        return self.folder / "steps.log"

    @property
    def begun(self) -> list[str]:
        """The steps that the last run began."""
        return self.log.read_text().splitlines()

    @property
    def complete(self) -> set[str]:
        """What people see in the output folder when all is done."""
        suffixes = ("", PROVENANCE_SUFFIX, RUN_SUFFIX, *([ENVELOPE_SUFFIX] if self.key else []))
        return {*(f"{name}.zip{suffix}" for name in ("first", "second") for suffix in suffixes), REPORT_NAME, RELEASE_NAME}

    @property
    def visible(self) -> set[str]:
        """What people see in the output folder."""
        return {path.name for path in self.output.iterdir() if not path.name.startswith(".")}

    @property
    def temporary(self) -> list[Path]:
        """What runs have left in the output folder and the result storage."""
        return [*self.output.glob(".*"), *(self.packhouse.results / "blobs").glob(".*")]

    def require_whole(self) -> None:
        """Check that all that is visible is complete, and speaks of what it lies beside."""
        assert self.visible <= self.complete
        for package in self.output.glob("*.zip"):
            digest = measure(package).sha256
            if digest not in self.verified:
                assert len(verify_package(package).models) in (1, 2)
                self.verified.add(digest)
            for suffix, path in ((RUN_SUFFIX, ["digest"]), (PROVENANCE_SUFFIX, ["subject", 0, "digest", "sha256"])):
                beside = package.with_name(package.name + suffix)
                assert not beside.exists() or value_at(beside, path) == digest, beside.name

    def require_complete(self, models: int) -> None:
        """Check that everything is there, new, and nothing besides."""
        self.require_whole()
        assert self.visible == self.complete
        assert self.temporary == []
        release = read_release(self.output)
        assert release.is_complete
        for package in release.packages:
            assert measure(self.output / package.name).sha256 == package.digest
            assert len(verify_package(self.output / package.name).models) == models

    def require_signed(self, but: str = "") -> None:
        """Check that every package that is visible is signed, but for one of a name."""
        assert self.key
        keys = [read_signing_key(self.key, "").verifying_key]
        for package in self.output.glob("*.zip"):
            if package.stem == but:
                with pytest.raises(VerificationFailed, match="is not what it was"):
                    verify_beside(package, keys)
            else:
                assert verify_beside(package, keys)

    def require_one_release(self) -> Release:
        """Check that all that is visible is of the release that is there, and return it."""
        release = read_release(self.output)
        self.require_signed()
        for package in self.output.glob("*.zip"):
            assert value_at(package.with_name(package.name + RUN_SUFFIX), ["flow_run"]) == release.flow_run
            provenance = package.with_name(package.name + PROVENANCE_SUFFIX)
            assert value_at(provenance, ["predicate", "runDetails", "metadata", "invocationId"]) == release.flow_run
        assert f"{release.flow_run}" in (self.output / REPORT_NAME).read_text()
        return release


@contextmanager
def never_unsigned(folder: Path) -> Iterator[None]:
    """Look into a folder all the time, and fail if a package is ever seen without a signature."""
    is_over, unsigned, looked = threading.Event(), set[str](), 0

    def look() -> None:
        nonlocal looked
        while not is_over.wait(0.002):
            packages = list(folder.glob("*.zip"))
            looked += bool(packages)
            unsigned.update(path.name for path in packages if not path.with_name(path.name + ENVELOPE_SUFFIX).exists())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert looked > 100
    assert unsigned == set()


def value_at(path: Path, keys: Sequence[Any]) -> Any:
    value = json.loads(path.read_bytes())
    for key in keys:
        value = value[key]
    return value


@pytest.fixture
def trial(packhouse: Packhouse, tmp_path: Path) -> Trial:
    """A job whose type is installed in the child process, and whose packages go through their steps one after the other."""
    information = tmp_path / "installed" / "faulty-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[packhouse.packagers]\nFaulty = tests.real.faulty_type:Faulty\n")
    packhouse.environment |= {
        "PYTHONPATH": str(information.parent),
        "PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS": "1",
    }
    return Trial(packhouse, tmp_path, tmp_path / "packages")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system, where files are copied to and not linked."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        yield Path(folder)


def test_a_run_that_is_killed_at_every_boundary_leaves_nothing_half_done_and_goes_on_where_it_stopped(
    trial: Trial, server: Server
) -> None:
    earlier = trial.run(trial.configure(top_k=1))
    assert earlier.returncode == 0, earlier.stderr
    trial.require_complete(models=1)
    config, began = trial.configure(), now()

    for fault, steps in KILLS:
        killed = trial.run(config, fault)
        assert killed.returncode == -signal.SIGKILL, f"{fault}: {killed.stderr}"
        assert trial.begun == steps, fault
        trial.require_whole()
        read_release(trial.output)

    last = trial.run(config)
    assert last.returncode == 0, last.stderr
    assert trial.begun == ["register first", "register second"]
    trial.require_complete(models=2)
    assert set(server.count_evaluations(began)) == {"Cached"}


def test_what_fails_in_a_step_is_one_packages_failure_which_the_next_run_makes_good(trial: Trial, elsewhere: Path) -> None:
    trial.output = elsewhere
    config = trial.configure()

    for fault, step, reason in FAILURES:
        failed = trial.run(config, fault)
        assert failed.returncode == 3, f"{fault}: {failed.stderr}"
        deliveries = {item["name"]: item["failure"] for item in json.loads(failed.stdout)["deliveries"]}
        assert deliveries["first.zip"]["step"] == step, fault
        assert reason in deliveries["first.zip"]["reason"]
        assert "worker" in fault or "free space" in deliveries["first.zip"]["reason"]
        assert deliveries["second.zip"] is None
        assert "first.zip" not in trial.visible
        trial.require_whole()

    assert trial.run(config).returncode == 0
    assert trial.begun == ["register first", "register second"]
    trial.require_complete(models=2)


def test_a_disk_that_is_full_when_the_release_is_written_leaves_the_earlier_one_and_says_what_to_do(trial: Trial) -> None:
    assert trial.run(trial.configure(top_k=1)).returncode == 0
    earlier = read_release(trial.output)
    config = trial.configure()

    failed = trial.run(config, "full disk in writing release.json")

    assert failed.returncode == 1, failed.stderr
    message = json.loads(failed.stdout)["message"]
    assert f"the output folder {trial.output} cannot be written" in message
    assert "free space on that disk and run again" in message
    assert read_release(trial.output) == earlier
    trial.require_whole()
    assert trial.run(config).returncode == 0
    trial.require_complete(models=2)


def test_a_run_that_signs_and_is_killed_while_it_registers_never_shows_an_unsigned_package(
    trial: Trial, tmp_path: Path
) -> None:
    trial.key, _ = write_keys(tmp_path)
    config = trial.configure()
    with never_unsigned(trial.output):
        for fault in KILLS_WHILE_REGISTERING:
            killed = trial.run(config, fault)
            assert killed.returncode == -signal.SIGKILL, f"{fault}: {killed.stderr}"
            trial.require_whole()
            trial.require_signed()
        assert trial.run(config).returncode == 0
        trial.require_complete(models=2)
        earlier = trial.require_one_release()

        config = trial.configure(top_k=1)
        assert trial.run(config, "placing first").returncode == -signal.SIGKILL
        assert read_release(trial.output) == earlier
        trial.require_signed(but="first")  # it has the signature of the one that is to replace it
        assert trial.run(config, f"appearing first.zip{PROVENANCE_SUFFIX}").returncode == -signal.SIGKILL
        trial.require_signed()
        assert trial.run(config).returncode == 0
        trial.require_complete(models=1)
        trial.require_one_release()


def test_of_two_runs_at_once_with_different_candidates_the_last_to_end_has_everything_that_is_there(
    trial: Trial, tmp_path: Path
) -> None:
    """One has registered a package when the other begins and ends."""
    trial.key, _ = write_keys(tmp_path)
    one, other = trial.configure("one", errors=(0.0, 0.5)), trial.configure("other", errors=(0.1, 0.4))
    waiting = trial.start(one, "waiting before register second")
    wait_until(lambda: (trial.log.exists() and trial.begun[-1] == "register second") or waiting.poll() is not None)
    quick = trial.run(other)
    assert quick.returncode == 0, quick.stderr
    assert trial.require_one_release().flow_run == json.loads(quick.stdout)["flow_run"]

    trial.over.touch()
    output, errors = waiting.communicate(timeout=300)

    assert waiting.returncode == 0, errors
    assert trial.require_one_release().flow_run == json.loads(output)["flow_run"] != json.loads(quick.stdout)["flow_run"]
    trial.require_complete(models=2)


@pytest.mark.parametrize("candidates", [((0.0, 0.5), (0.0, 0.5)), ((0.0, 0.5), (0.1, 0.4))], ids=["same", "different"])
def test_two_runs_at_once_leave_one_complete_release(
    trial: Trial, tmp_path: Path, candidates: Sequence[Sequence[float]]
) -> None:
    trial.key, _ = write_keys(tmp_path)
    configs = [trial.configure(name, errors=errors) for name, errors in zip(("one", "other"), candidates, strict=True)]
    with never_unsigned(trial.output):
        runs = [trial.start(config) for config in configs]
        ended = [run.communicate(timeout=500) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ended
    trial.require_complete(models=2)
    assert trial.require_one_release().flow_run in {json.loads(output)["flow_run"] for output, _ in ended}
