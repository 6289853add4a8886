"""What a measurement depends on besides the candidate: the runtime and the machine.

What a candidate computes depends on the runtime and the kind of processor; how long it takes depends on more, which is kept
apart, so that a new kernel does not ask for outputs that are known.
"""

import os
import platform
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name

from packhouse.pins import distribution_of, parse_runtime
from packhouse.records import Record

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")
MODULE = "onnxruntime"
CPU_INFO = Path("/proc/cpuinfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
NONE = "none"


class Fingerprint(Record):
    """The machine and runtime that an evaluation is valid for; `libraries` are the versions of further provider packages."""

    cpu_model: str
    cpu_count: int
    machine: str
    system: str
    runtime: str
    runtime_version: str
    libraries: dict[str, str] = {}


class Machine(Record):
    """What times depend on besides the fingerprint: microcode, kernel release, and the frequency governor of the first CPU."""

    microcode: str
    kernel: str
    governor: str


def fingerprint(runtime: Sequence[str] = (), plugin: str | None = None) -> Fingerprint:
    """Return the fingerprint of this machine with a pinned runtime, or else with that of this environment and its plug-in."""
    return _fingerprint(tuple(runtime), plugin)


@cache
def _fingerprint(runtime: tuple[str, ...], plugin: str | None) -> Fingerprint:
    if runtime:
        pins = parse_runtime(runtime)
        distribution = distribution_of(pins)
        name, version = distribution.name, distribution.version
        libraries = {pin.name: pin.version for pin in pins if pin != distribution}
    else:
        name = runtime_distribution()
        version = metadata.version(name)
        libraries = _distributions_of(plugin) if plugin else {}
    return Fingerprint(
        cpu_model=_cpu_info("model name") or platform.processor(),
        cpu_count=os.cpu_count() or 0,
        machine=platform.machine(),
        system=platform.system(),
        runtime=name,
        runtime_version=version,
        libraries=libraries,
    )


def this_machine() -> Machine:
    """Return what times depend on now: the governor may be another one in the next run."""
    return Machine(
        microcode=_cpu_info("microcode") or NONE,
        kernel=platform.release(),
        governor=GOVERNOR.read_text().strip() if GOVERNOR.exists() else NONE,
    )


def runtime_distribution() -> str:
    """Return the name of the onnxruntime distribution that is installed."""
    known = next((name for name in DISTRIBUTIONS if _is_runtime(name)), None)
    return known or min(metadata.packages_distributions().get(MODULE, []), default=DISTRIBUTIONS[0]).lower()


def _is_runtime(name: str) -> bool:
    """Whether a distribution is installed and has onnxruntime in it: some have only a plug-in."""
    try:
        modules = metadata.distribution(name).read_text("top_level.txt") or ""
    except metadata.PackageNotFoundError:
        return False
    return MODULE in modules.split()


def _distributions_of(module: str) -> dict[str, str]:
    """Return name → version of what installed a module here; nothing where it is not installed, so that it will not run."""
    names = sorted(set(metadata.packages_distributions().get(module.partition(".")[0], [])))
    return {canonicalize_name(name): metadata.version(name) for name in names}


def _cpu_info(field: str) -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")
