"""The Python distributions that candidates were measured with, and that a package brings as wheels."""

from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import quote

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from packhouse.packaging.job import PackagingJob
from packhouse.pins import parse_runtime

Distribution = tuple[str, str]  # canonical name and version


def purl(distribution: Distribution) -> str:
    """Return the package URL (https://github.com/package-url/purl-spec) of a distribution."""
    name, version = distribution
    return f"pkg:pypi/{name}@{quote(version, safe='')}"


def runtime_of(job: PackagingJob, spec: str) -> frozenset[Distribution]:
    """Return the distributions that candidates were measured with: onnxruntime, and what drives the accelerator's provider."""
    found = {job.runtime_on(spec), *((pin.name, pin.version) for pin in parse_runtime(job.accelerator(spec).runtime))}
    for evaluation in job.evaluations:
        if evaluation.accelerator == spec and evaluation.fingerprint:
            found |= set(evaluation.fingerprint.libraries.items())
    return frozenset((canonicalize_name(name), version) for name, version in found)


def wheels_among(names: Iterable[str]) -> dict[Distribution, str]:
    """Return the wheels among the names of files, by what they install."""
    wheels: dict[Distribution, str] = {}
    for name in sorted(names):
        with suppress(InvalidWheelFilename):
            distribution, version, _, _ = parse_wheel_filename(name.rpartition("/")[2])
            wheels[distribution, str(version)] = name
    return wheels
