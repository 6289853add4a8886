"""What a measurement depends on besides the candidate: the machine and the runtime."""

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

from packhouse.records import Record

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")


class Fingerprint(Record):
    """The machine and runtime that an evaluation is valid for."""

    cpu_model: str
    cpu_count: int
    machine: str
    system: str
    runtime: str
    runtime_version: str


@cache
def fingerprint() -> Fingerprint:
    """Return the fingerprint of this machine and this environment."""
    runtime = runtime_distribution()
    return Fingerprint(
        cpu_model=_cpu_model(),
        cpu_count=os.cpu_count() or 0,
        machine=platform.machine(),
        system=platform.system(),
        runtime=runtime,
        runtime_version=metadata.version(runtime),
    )


def runtime_distribution() -> str:
    """Return the name of the onnxruntime distribution that is installed."""
    installed = {name.lower() for name in metadata.packages_distributions().get("onnxruntime", [])}
    return next((name for name in DISTRIBUTIONS if name in installed), min(installed, default="onnxruntime"))


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
