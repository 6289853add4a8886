"""The environments of a workspace as Pythons that can be started: what a conda file lists, installed once and kept."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uv
import yaml

from tests.fakes.azure.azurite import cache_folder
from tests.fakes.azure.messages import ServiceError

INSTALL_TIMEOUT_S = 600


@dataclass(frozen=True)
class Images:
    """Makes a Python for each environment in the tests' cache; `outside` is the environment of the tests' own process."""

    outside: Mapping[str, str]

    def build(self, requirements: Sequence[str]) -> Path:
        """Return the Python of an environment that has what pip is to install.

        Raises:
            ServiceError: pip cannot install it.
        """
        digest = hashlib.sha256("\n".join([sys.version, *sorted(requirements)]).encode()).hexdigest()[:16]
        folder = cache_folder(self.outside) / f"serving-{digest}"
        python = folder / "bin" / "python"
        with _locked(folder.with_suffix(".lock")):
            if not (folder / ".complete").exists():
                shutil.rmtree(folder, ignore_errors=True)
                self._uv("venv", "--quiet", "--python", sys.executable, str(folder))
                self._uv("pip", "install", "--quiet", "--python", str(python), *requirements)
                (folder / ".complete").touch()
        return python

    def variables(self) -> dict[str, str]:
        """Return the variables of a container, before those of its deployment."""
        kept = {name: self.outside[name] for name in ("PATH", "HOME", "LANG") if name in self.outside}
        return {**kept, "PYTHONUNBUFFERED": "1"}

    def _uv(self, *arguments: str) -> None:
        command = [uv.find_uv_bin(), *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, env=dict(self.outside)
        )
        if done.returncode:
            raise ServiceError(400, "ImageBuildFailure", f"Image build failed: {done.stderr[-1000:]}")


def requirements(conda_file: str) -> list[str]:
    """Return what pip is to install by a conda file; packages that only conda has make the build fail here."""
    wanted: list[str] = []
    for entry in yaml.safe_load(conda_file).get("dependencies", ()):
        if isinstance(entry, Mapping):
            wanted += entry["pip"]
        elif not str(entry).startswith(("python", "pip")):
            raise ServiceError(400, "ImageBuildFailure", f"Image build failed: this fake installs with pip only, not {entry}.")
    return wanted


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
