"""About the least that a checked package can cost: a copy of every file, and its SHA-256. ``plain.py TASK OUTCOME FOLDER``."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

from benchmarks.packagers.clock import Clock


def main() -> None:
    """Copy the candidates and take the digest of every copy."""
    task, folder, clock = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[3]), Clock()
    candidates = Path(task["candidates"])
    with clock.step("copy and digest"):
        for source in sorted(path for path in candidates.rglob("*") if path.is_file()):
            copy = folder / source.relative_to(candidates)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            with copy.open("rb", buffering=0) as file:
                hashlib.file_digest(file, "sha256")
    clock.save(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
