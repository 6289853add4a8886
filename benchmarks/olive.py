"""Environments with a version of Olive, made by uv and kept in the cache folder of the benchmarks."""

import os
import subprocess
import sys
from pathlib import Path

import uv

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "packhouse-benchmark"


def olive_environment(folder: Path, *requirements: str) -> Path | None:
    """Return the interpreter of an environment with these packages, made if it is not there; None where that fails."""
    python = folder / "bin" / "python"
    steps = (
        [uv.find_uv_bin(), "venv", "--allow-existing", "--python", sys.executable, str(folder)],
        [uv.find_uv_bin(), "pip", "install", "--python", str(python), *requirements],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"Olive is left out, since it cannot be installed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
    return python
