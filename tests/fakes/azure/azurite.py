"""Azurite, Microsoft's own emulator of blob storage: installed once into a cache folder, started per fake on a free port."""

import fcntl
import re
import secrets
import shutil
import subprocess
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

VERSION = "3.37.0"
INSTALL_TIMEOUT_S = 600
START_TIMEOUT_S = 60
LISTENING = re.compile(r"listens on https://127\.0\.0\.1:(\d+)")


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where programs and environments are kept from one test run to the next."""
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "packhouse-tests")


def why_unavailable() -> str | None:
    """Return why blob storage cannot be started on this machine, if so."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    return f"Azurite needs {' and '.join(missing)}, which this machine lacks" if missing else None


def install(environment: Mapping[str, str]) -> Path:
    """Return Azurite's blob program, after installing it where it is missing; parallel test processes wait for one another."""
    folder = cache_folder(environment) / f"azurite-{VERSION}"
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".complete").exists():
            npm = shutil.which("npm") or "npm"
            command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", f"azurite@{VERSION}"]
            subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S, env=dict(environment), stdout=subprocess.DEVNULL)
            (folder / ".complete").touch()
    return program


class Azurite:
    """A running blob service for one storage account."""

    def __init__(self, folder: Path, account: str, certificate: tuple[Path, Path], environment: Mapping[str, str]) -> None:
        self.account = account
        self.key = b64encode(secrets.token_bytes(64)).decode()
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "azurite.log"
        command = [
            str(install(environment)),
            *("--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(folder)),
            *("--cert", str(certificate[0]), "--key", str(certificate[1]), "--oauth", "basic"),
            *("--skipApiVersionCheck", "--disableTelemetry"),
        ]
        own = {**environment, "AZURITE_ACCOUNTS": f"{account}:{self.key}"}
        with log.open("w") as stream:
            self._process = subprocess.Popen(command, env=own, stdout=stream, stderr=subprocess.STDOUT, cwd=folder)
        self.port = self._wait(log)

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(timeout=30)

    def _wait(self, log: Path) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := LISTENING.search(log.read_text(encoding="utf-8")):
                return int(found[1])
            time.sleep(0.05)
        self._process.kill()
        raise RuntimeError(f"Azurite did not start: {log.read_text(encoding='utf-8')[-2000:]}")
