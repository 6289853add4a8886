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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packaging.version import Version
from uv import find_uv_bin

from packhouse.errors import EvaluationFailed
from packhouse.pins import Pin, distribution_of, parse_runtime
from packhouse.records import digest_of

MARKER = "packhouse.json"
UV_TIMEOUT_S = 1800.0
CHECK_TIMEOUT_S = 120.0
REMEDY = "check `runtime` of the accelerator, the package index that uv is configured with, and the space on the disk"
# What an environment says of itself: where onnxruntime comes from, and which one is really imported.
CHECK = """
import importlib.metadata, json, numpy, onnxruntime
found = importlib.metadata.packages_distributions()["onnxruntime"]
print(json.dumps({"distributions": sorted(set(found)), "version": onnxruntime.__version__}))
"""


class RuntimeEnvironments:
    """The environments in a folder, one for each runtime, Python and numpy.

    Laws: what `installed` returns is complete and was seen to import its onnxruntime; any number of processes may ask for
    the same runtime at the same time, and one of them installs it; runtimes that differ have different environments.
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
        with self._lock(environment):
            if not _is_complete(environment):
                say(f"installing {', '.join(map(str, pins))}")
                try:
                    _install(environment, pins)
                except EvaluationFailed:
                    shutil.rmtree(environment, ignore_errors=True)
                    raise
        return str(_python(environment))

    def _environment(self, requirements: Sequence[str]) -> Path:
        made_of = [*requirements, sys.implementation.name, platform.python_version(), platform.machine(), sys.base_prefix]
        return self._folder / digest_of(made_of)[:24]

    @contextmanager
    def _lock(self, environment: Path) -> Iterator[None]:
        """Hold the lock of an environment; the kernel releases it when its holder dies, however that happens."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(environment.with_suffix(".lock"), os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
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


def _install(environment: Path, pins: Sequence[Pin]) -> None:
    """Make the environment from nothing; the marker comes last."""
    wanted, requirements = ", ".join(map(str, pins)), _requirements(pins)
    if environment.exists():
        shutil.rmtree(environment)
    _run(wanted, "uv", [find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(environment)], UV_TIMEOUT_S)
    install = ["pip", "install", "--quiet", "--python", str(_python(environment)), *requirements]
    _run(wanted, "uv", [find_uv_bin(), *install], UV_TIMEOUT_S)
    answer = _run(wanted, "importing it", [str(_python(environment)), "-I", "-c", CHECK], CHECK_TIMEOUT_S)
    found = json.loads(answer.strip().splitlines()[-1])
    distribution = distribution_of(pins)
    if found["distributions"] != [distribution.name]:
        both = " and ".join(found["distributions"])
        raise EvaluationFailed(
            f"the runtime {wanted} brings {both}, which overwrite each other's files; "
            "pin packages in `runtime` that need only one distribution of onnxruntime"
        )
    if Version(found["version"]).release[:3] != Version(distribution.version).release[:3]:
        raise EvaluationFailed(f"the runtime {wanted} imports onnxruntime {found['version']}; {REMEDY}")
    marker = environment / f"{MARKER}.new"
    marker.write_text(json.dumps({"requirements": requirements, **found}, indent=2) + "\n", encoding="utf-8")
    marker.replace(environment / MARKER)


def _run(wanted: str, what: str, command: Sequence[str], timeout_s: float) -> str:
    """Run a command and return its standard output. Raises EvaluationFailed with its reason."""
    environment = {**os.environ, "NO_COLOR": "1"}
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise EvaluationFailed(f"the runtime {wanted} is not installed: {what} took over {timeout_s:g} s; {REMEDY}") from None
    if done.returncode:
        reason = _reason(done.stderr or done.stdout) or f"exit code {done.returncode}"
        raise EvaluationFailed(f"the runtime {wanted} is not installed: {what} failed: {reason}; {REMEDY}")
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
