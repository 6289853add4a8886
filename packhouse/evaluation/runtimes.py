"""Virtual environments for accelerators that bring their own onnxruntime, made by uv and kept.

An environment is named by everything that it is made from, so two distributions never meet in one. It is complete when its
marker is there, which is written last, and is then never touched again: what is complete works without a network.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version
from uv import find_uv_bin

from packhouse.errors import EvaluationFailed, PackhouseError
from packhouse.pins import Pin, distribution_of, parse_runtime
from packhouse.records import digest_of
from packhouse.transient import is_said_to_pass

MARKER = "packhouse.json"
TIMEOUT_S = 1800.0
REASON_BYTES = 10_000
REMEDY = "check `runtime` of the accelerator, the package index that uv is configured with, and the space on the disk"
# What an environment says of itself: where onnxruntime comes from, and which one is really imported.
CHECK = """
import importlib.metadata, json, numpy, onnxruntime
found = importlib.metadata.packages_distributions()["onnxruntime"]
print(json.dumps({"distributions": found, "version": onnxruntime.__version__}))
"""


class RuntimeEnvironments:
    """The environments in a folder, one for each runtime, Python and numpy.

    Laws: what `installed` returns is complete and was seen to import its onnxruntime; any number of processes may ask for
    the same runtime at the same time, and one of them installs it, or fails for all; runtimes that differ have different
    environments.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made when the first environment is."""
        self._folder = folder

    def installed(self, runtime: Sequence[str]) -> str | None:
        """Return the interpreter of a runtime where its environment is complete, else None; writes nothing."""
        if not runtime:
            return sys.executable
        environment = self._environment(_requirements(parse_runtime(runtime)))
        return str(_python(environment)) if _is_complete(environment) else None

    def python(self, runtime: Sequence[str], say: Callable[[str], None] = lambda _: None) -> str:
        """Return the interpreter of a runtime, and install it first where that is not done; without any, this one's.

        Raises:
            EvaluationFailed: it cannot be installed, or does not import the onnxruntime that was asked for.
        """
        if python := self.installed(runtime):
            return python
        pins = parse_runtime(runtime)
        environment = self._environment(_requirements(pins))

        def install(lock: int) -> None:
            say(f"installing {', '.join(map(str, pins))}")
            _install(environment, pins, lock)

        return self._made(environment, install)

    def python_from_wheels(self, folder: Path) -> str:
        """Return the interpreter of an environment of the wheels in `folder` only, installed without a network.

        The folder has the hash-pinned requirements.txt of `packhouse.packaging.runtime_packages`, which names it.

        Raises:
            EvaluationFailed: they cannot be installed, or onnxruntime cannot be imported from them.
        """
        return self.python_from_lock(folder / "requirements.txt", folder)

    def python_from_lock(self, requirements: Path, wheels: Path | None) -> str:
        """Return the interpreter of an environment of hash-pinned requirements, from `wheels` only if that is given.

        Raises:
            EvaluationFailed: they cannot be installed, or onnxruntime cannot be imported from them.
        """
        environment = self._environment([requirements.read_text(encoding="utf-8")])
        if _is_complete(environment):
            return str(_python(environment))
        return self._made(environment, lambda lock: _install_locked(environment, requirements, wheels, lock))

    def python_from_requirements(self, file: Path) -> str:
        """Return the interpreter of an environment of a requirements.txt, whose lines are pins, onnxruntime among them.

        Raises:
            EvaluationFailed: they cannot be installed, or onnxruntime cannot be imported.
        """
        requirements = file.read_text(encoding="utf-8").splitlines()
        environment = self._environment(requirements)
        if _is_complete(environment):
            return str(_python(environment))
        return self._made(environment, lambda lock: _install_requirements(environment, requirements, lock))

    def _made(self, environment: Path, install: Callable[[int], None]) -> str:
        """Return the interpreter of an environment, installed by whoever comes first."""
        asked = time.time()
        with self._lock(environment) as lock:
            if not _is_complete(environment):
                if os.fstat(lock).st_mtime > asked and (reason := os.pread(lock, REASON_BYTES, 0)):
                    told = reason.decode(errors="replace")
                    raise EvaluationFailed(told, is_transient=is_said_to_pass(told))
                try:
                    install(lock)
                except EvaluationFailed as error:
                    shutil.rmtree(environment, ignore_errors=True)
                    os.truncate(lock, 0)
                    os.pwrite(lock, str(error).encode(), 0)
                    raise
        return str(_python(environment))

    def _environment(self, requirements: Sequence[str]) -> Path:
        made_of = [*requirements, sys.implementation.name, platform.python_version(), platform.machine(), sys.base_prefix]
        return self._folder / digest_of(made_of)[:24]

    @contextmanager
    def _lock(self, environment: Path) -> Iterator[int]:
        """Hold the lock of an environment, a file that has why the last attempt to install it failed.

        The kernel releases the lock when its holder and what it started have died, however that happens.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(environment.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _requirements(pins: Sequence[Pin]) -> list[str]:
    """Return what to install: numpy as it is here too, unless it is pinned, so that arrays mean the same on both sides."""
    numpy = [] if any(pin.name == "numpy" for pin in pins) else [f"numpy=={metadata.version('numpy')}"]
    return sorted([*map(str, pins), *numpy])


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _is_complete(environment: Path) -> bool:
    return (environment / MARKER).exists() and _python(environment).exists()


def _install(environment: Path, pins: Sequence[Pin], lock: int) -> None:
    """Make the environment from nothing; the marker comes last."""
    runtime = f"the runtime {', '.join(map(str, pins))}"
    requirements = _requirements(pins)
    try:
        found = _install_into(environment, requirements, lock)
    except _CommandFailed as error:
        raise EvaluationFailed(f"{runtime} is not installed: {error}; {REMEDY}", is_transient=error.is_transient) from None
    distribution = distribution_of(pins)
    brought = sorted({canonicalize_name(name) for name in found["distributions"]})
    if brought != [distribution.name]:
        raise EvaluationFailed(
            f"{runtime} brings {' and '.join(brought)}, which overwrite each other's files; "
            "pin packages in `runtime` that need only one distribution of onnxruntime"
        )
    if Version(found["version"]).release[:3] != Version(distribution.version).release[:3]:
        raise EvaluationFailed(f"{runtime} imports onnxruntime {found['version']}, which is not what was pinned; {REMEDY}")
    _mark(environment, requirements, found["version"])


def _install_locked(environment: Path, requirements: Path, wheels: Path | None, lock: int) -> None:
    """Make the environment of nothing but hash-pinned requirements; the marker comes last."""
    source = ["--no-index", "--find-links", str(wheels)] if wheels else []
    options = [*source, "--require-hashes", "--requirement", str(requirements)]
    try:
        found = _install_into(environment, options, lock)
    except _CommandFailed as error:
        what = "the wheels of the package" if wheels else "the requirements of the package"
        raise EvaluationFailed(f"{what} cannot be installed: {error}", is_transient=error.is_transient) from None
    _mark(environment, requirements.read_text(encoding="utf-8").splitlines(), found["version"])


def _install_requirements(environment: Path, requirements: Sequence[str], lock: int) -> None:
    """Make the environment of pinned requirements; the marker comes last."""
    try:
        found = _install_into(environment, requirements, lock)
    except _CommandFailed as error:
        reason = f"the requirements of the package cannot be installed: {error}; {REMEDY}"
        raise EvaluationFailed(reason, is_transient=error.is_transient) from None
    _mark(environment, requirements, found["version"])


def _install_into(environment: Path, arguments: Sequence[str], lock: int) -> dict[str, Any]:
    """Make a new environment, install into it, and return what it says of its onnxruntime. Raises _CommandFailed."""
    if environment.exists():
        shutil.rmtree(environment)
    python = str(_python(environment))
    _run("uv venv", [find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(environment)], lock)
    _run("uv pip install", [find_uv_bin(), "pip", "install", "--quiet", "--python", python, *arguments], lock)
    found: dict[str, Any] = json.loads(_run("import onnxruntime", [python, "-I", "-c", CHECK], lock).splitlines()[-1])
    return found


def _mark(environment: Path, requirements: Sequence[str], version: str) -> None:
    marker = environment / f"{MARKER}.new"
    marker.write_text(json.dumps({"requirements": requirements, "onnxruntime": version}, indent=2) + "\n", encoding="utf-8")
    marker.replace(environment / MARKER)


class _CommandFailed(PackhouseError):
    """A command did not succeed; the message is its reason."""


def _run(what: str, command: Sequence[str], lock: int) -> str:
    """Run a command, which holds the lock too, and return its standard output."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "NO_COLOR": "1"},
            pass_fds=[lock],
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise _CommandFailed(f"{what} took over {TIMEOUT_S:g} s") from None
    if done.returncode:
        reason = _reason(done.stderr or done.stdout) or f"exit code {done.returncode}"
        raise _CommandFailed(f"{what} failed: {reason}", is_transient=is_said_to_pass(done.stderr))
    return done.stdout


def _reason(output: str) -> str:
    """Return the error and its last cause, each of which may go over several lines, without hints and tracebacks."""
    told = output.partition("\nhint:")[0]
    if told.startswith("Traceback"):
        return told.strip().splitlines()[-1]
    entries: list[str] = []
    for line in told.splitlines():
        stripped = line.strip()
        if not entries or stripped.startswith(("error:", "cause:", "Caused by:", "×", "╰─▶")):
            entries.append(stripped)
        else:
            entries[-1] += f" {stripped}"
    texts = [entry.lstrip("×╰─▶ ").removeprefix("error:").removeprefix("cause:").strip().rstrip(".") for entry in entries]
    return ": ".join(dict.fromkeys(text for text in (*texts[:1], *texts[-1:]) if text))
