"""Faults of a run, put where the environment variable ``FAULT`` says: it is killed, or waits, a disk is full, a worker is dead.

Importing this changes the classes that write; it is done in a child process only.
"""

import os
import resource
import signal
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packhouse import output
from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.evaluation.session_host import SessionHost
from packhouse.output import OutputFolder
from packhouse.release import Package

FAULT = os.environ.get("FAULT", "")
steps: list[str] = []  # the last is the one that runs; packages of these runs go one after the other
FULL_DISK_BYTES = 100


def die_if(fault: str) -> None:
    """Kill this process if that is the fault."""
    if fault == FAULT:
        os.kill(os.getpid(), signal.SIGKILL)


def wait_if(fault: str) -> None:
    """Wait for the file ``FAULT_OVER`` if that is the fault."""
    while fault == FAULT and not Path(os.environ["FAULT_OVER"]).exists():
        time.sleep(0.05)


@contextmanager
def full_disk_if(fault: str) -> Iterator[None]:
    """Let the system take no file of over 100 bytes in the body, if that is the fault."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_DISK_BYTES if fault == FAULT else soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def dying_within(archive: zipfile.ZipFile, info: Any, *arguments: Any) -> None:
    """Write into an archive, and die when half of it is there."""
    _writestr(archive, info, *arguments)
    if info.filename == "manifest.json":
        die_if(f"inside the archive {Path(archive.filename or '').stem}")


def adopting(store: ArtifactStore, source: Path) -> Artifact:
    """Take a package into the store, and die before anything is recorded of it."""
    artifact = _adopt(store, source)
    die_if(f"adopted {source.stem}")
    return artifact


def placing(folder: OutputFolder, package: Package, store: ArtifactStore, beside: Mapping[str, Artifact]) -> Path:
    """Publish a package, on a disk that is full or not, and die."""
    with full_disk_if(f"full disk in placing {Path(package.name).stem}"):
        place = _publish(folder, package, store, beside)
    die_if(f"placed {Path(package.name).stem}")
    return place


def replacing(place: Path, new: Path) -> None:
    """Die with the new package beside the place that it is for."""
    die_if(f"placing {place.stem}")
    _replace(place, new)


def appearing(path: Path, target: Path) -> Path:
    """Die with a file that is to appear beside its place."""
    die_if(f"appearing {target.name}")
    return _appear(path, target)


def writing(folder: OutputFolder, name: str, content: bytes) -> Path:
    """Write a file, on a disk that is full or not, or die in the middle of it."""
    if f"writing {name}" == FAULT:
        folder._beside(name).write_bytes(content[: len(content) // 2])
    die_if(f"writing {name}")
    with full_disk_if(f"full disk in writing {name}"):
        return _write(folder, name, content)


def asking(host: SessionHost, request: str, **arguments: Any) -> dict[str, Any]:
    """Ask a worker that has been killed."""
    if steps and f"dead worker in {steps[-1]}" == FAULT and request == "predict":
        os.kill(host.pid, signal.SIGKILL)
    return _ask(host, request, **arguments)


anything: Any = output
_writestr, _adopt, _ask = zipfile.ZipFile.writestr, ArtifactStore.adopt, SessionHost.ask
_publish, _replace, _write, _appear = OutputFolder.publish, anything._replace, OutputFolder.write, Path.replace
for owner, name, replacement in (
    (zipfile.ZipFile, "writestr", dying_within),
    (ArtifactStore, "adopt", adopting),
    (SessionHost, "ask", asking),
    (OutputFolder, "publish", placing),
    (OutputFolder, "write", writing),
    (output, "_replace", replacing),
    (Path, "replace", appearing),
):
    setattr(owner, name, replacement)
