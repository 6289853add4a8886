"""The wheels of the ONNX Runtime that was used, of all it needs, and of what a package needs besides; or only their digests.

With the wheels, they are installed where there is no network; with the digests, what is installed is what was known here.

pip does the work, with the user's own configuration: a dry run gives exact versions and digests, and the files are then
downloaded against those digests. Works with pip 23.2 and later.
"""

import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from packhouse.artifacts import owned_suffix, remove_orphans
from packhouse.errors import PackagingFailed
from packhouse.pins import DISTRIBUTIONS
from packhouse.transient import is_said_to_pass

logger = logging.getLogger(__name__)

RUNTIME_FOLDER = "ONNXRuntimePackages/python"  # where packages have the wheels
REQUIREMENTS = "requirements.txt"
HEADER = "# pip install --no-index --find-links . --require-hashes --requirement requirements.txt\n"
WITHOUT = "set include_runtime_packages: false"

Pin = tuple[str, Version]


def fetch(distribution: str, version: str, cache: Path) -> tuple[Path, ...]:
    """Return the wheels of ``distribution==version`` and its dependencies, and their hash-pinned requirements.txt.

    See `fetch_all`. Raises PackagingFailed.
    """
    return fetch_all([f"{canonicalize_name(distribution)}=={Version(version)}"], cache)


def fetch_all(wanted: Sequence[str], cache: Path) -> tuple[Path, ...]:
    """Return the wheels of requirements such as ``name==version`` and of what they need, and a hash-pinned requirements.txt.

    The files lie in a folder of `cache` that holds nothing else. Dependencies have the versions that are installed
    here, where pip can still get them. A folder that was fetched before is used again if every digest in it is right.

    Laws: a folder that can be seen is complete; fetches at the same time, by any number of processes, all succeed; what one
    that was killed left is removed by the next.

    Raises:
        PackagingFailed: pip could not get the files; nothing is left in `cache`.
    """
    pins = _installed_dependencies(wanted)
    entry = cache / _key(wanted, pins)
    if not _is_complete(entry):
        cache.mkdir(parents=True, exist_ok=True)
        remove_orphans(cache)
        with tempfile.TemporaryDirectory(prefix=".fetching-", suffix=owned_suffix(), dir=cache) as scratch:
            fresh = _download(wanted, pins, Path(scratch))
            _publish(fresh, entry)
    return tuple(sorted(entry.iterdir()))


def lock(wanted: Sequence[str]) -> str:
    """Return the hash-pinned requirements.txt that `fetch_all` gives, without the files. Raises PackagingFailed."""
    with tempfile.TemporaryDirectory(prefix="packhouse-lock-") as scratch:
        return _requirements(_resolve(wanted, _installed_dependencies(wanted), Path(scratch)), header="")


def depends_on(wanted: Sequence[str] = (), extras: Sequence[str] = ()) -> dict[str, Any]:
    """Return, as JSON, what `fetch_all` and `lock` take from this environment for `wanted` and any runtime with these extras.

    It is which wheels fit here, and the versions of all that they depend on and that is installed.
    """
    runtimes = [f"{name}[{','.join(extras)}]" for name in sorted(DISTRIBUTIONS)]
    return {
        "wanted": sorted(wanted),
        "installed": _installed_dependencies([*wanted, *runtimes]),
        "tag": str(next(sys_tags())),
    }


def _key(wanted: Sequence[str], pins: Mapping[str, str]) -> str:
    """Name what the choice of wheels depends on: what is wanted, the interpreter, the platform, and the pins."""
    digest = hashlib.sha256(json.dumps([sorted(wanted), pins], sort_keys=True).encode()).hexdigest()
    first = re.sub("[^A-Za-z0-9.]+", "-", wanted[0])
    return f"{first}-{next(sys_tags())}-{digest[:12]}"


def _installed_dependencies(wanted: Sequence[str]) -> dict[str, str]:
    """Return name → version of all that what is wanted depends on here, without itself and what is not installed."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    asked = [Requirement(text) for text in wanted]
    pending = list(asked)
    while pending:
        requirement = pending.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        versions[name] = installed.version
        for dependency in map(Requirement, installed.requires or ()):
            marker = dependency.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                pending.append(dependency)
    for requirement in asked:
        versions.pop(canonicalize_name(requirement.name), None)
    return versions


def _is_complete(folder: Path) -> bool:
    """Whether `folder` holds wheels, and requirements that name exactly their names, versions and digests."""
    try:
        wheels = [path for path in folder.iterdir() if path.name != REQUIREMENTS]
        digests: dict[Pin, str] = {}
        for wheel in wheels:
            name, version, _, _ = parse_wheel_filename(wheel.name)
            with wheel.open("rb") as reader:
                digests[name, version] = hashlib.file_digest(reader, "sha256").hexdigest()
        return bool(wheels) and (folder / REQUIREMENTS).read_bytes() == _requirements(digests).encode()
    except (OSError, InvalidWheelFilename):
        return False


def _requirements(digests: Mapping[Pin, str], header: str = HEADER) -> str:
    lines = (f"{name}=={version} --hash=sha256:{digest}\n" for (name, version), digest in sorted(digests.items()))
    return header + "".join(lines)


def _download(wanted: Sequence[str], pins: Mapping[str, str], scratch: Path) -> Path:
    """Download into a folder of `scratch` and return it, complete."""
    folder = scratch / "python"
    folder.mkdir()
    (folder / REQUIREMENTS).write_bytes(_requirements(_resolve(wanted, pins, scratch)).encode())
    output = _pip(
        *("download", "--require-hashes", "--no-deps", "--only-binary", ":all:"),
        *("--requirement", str(folder / REQUIREMENTS), "--dest", str(folder)),
    )
    if output is not None:
        raise _failure(wanted, output)
    if not _is_complete(folder):
        raise PackagingFailed(f"pip downloaded other files for {_words(wanted)} than it had announced; run again, or {WITHOUT}")
    return folder


def _resolve(wanted: Sequence[str], pins: Mapping[str, str], scratch: Path) -> dict[Pin, str]:
    """Ask pip what it would install, and return the SHA-256 of each distribution's wheel."""
    report, constraints = scratch / "report.json", scratch / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())), encoding="utf-8")
    ask = ("install", "--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report), *wanted)
    output = _pip(*ask, "--constraint", str(constraints))
    if output is not None and pins and not any(f"No matching distribution found for {text}" in output for text in wanted):
        logger.warning(
            "pip cannot get %s with the dependencies installed here (%s); packing the versions that it finds instead",
            _words(wanted),
            _reason(output),
        )
        output = _pip(*ask)
    if output is not None:
        raise _failure(wanted, output)
    digests: dict[Pin, str] = {}
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        name, version = canonicalize_name(item["metadata"]["name"]), Version(item["metadata"]["version"])
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest is None:
            raise PackagingFailed(f"the package index gives no SHA-256 of {name} {version}; use another, or {WITHOUT}")
        digests[name, version] = digest
    return digests


def _pip(*arguments: str) -> str | None:
    """Run pip with the user's configuration; return None where it succeeded, else what it said."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
    )
    return None if done.returncode == 0 else done.stdout + done.stderr


def _words(wanted: Sequence[str]) -> str:
    return ", ".join(wanted)


def _failure(wanted: Sequence[str], output: str) -> PackagingFailed:
    remedy = (
        "install it (python -m ensurepip)"
        if "No module named pip" in output
        else "connect to a package index or configure pip's (python -m pip config list)"
    )
    reason = f"the wheels of {_words(wanted)} cannot be fetched: {_reason(output)}; {remedy}, or {WITHOUT}"
    return PackagingFailed(reason, is_transient=is_said_to_pass(output))


def _reason(output: str) -> str:
    """Return pip's last meaningful line, with the broken connection behind it where there is one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["pip failed without a word"]
    errors = [line for line in lines if line.startswith("ERROR:") and "ResolutionImpossible" not in line]
    reason = (errors or lines)[-1].removeprefix("ERROR:").strip()
    broken = [line.partition("connection broken by ")[2] for line in lines if "connection broken by " in line]
    return f"{reason} (connection broken by {broken[-1]})" if broken else reason


def _publish(fresh: Path, entry: Path) -> None:
    """Make the complete folder `fresh` appear as `entry`, of which a complete one may have appeared meanwhile.

    A damaged entry is mended file by file, each in one step, so that another process never finds a file missing.
    """
    try:
        fresh.rename(entry)
    except OSError:
        if _is_complete(entry):
            return
        if not entry.is_dir():
            raise
        for stranger in {path.name for path in entry.iterdir()} - {path.name for path in fresh.iterdir()}:
            path = entry / stranger
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        for path in fresh.iterdir():
            path.replace(entry / path.name)
