"""What a Dockerfile has to be before anything is built from it, or where nothing is."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from packhouse.errors import VerificationFailed
from packhouse.packaging.runtime_packages import REQUIREMENTS

DOCKERFILE = "Dockerfile"
HADOLINT = "hadolint"
PINNED = re.compile(r"[A-Za-z0-9._-]+==[^\s;]+( --hash=sha256:[0-9a-f]{64})+")


def check_dockerfile(folder: Path) -> None:
    """Check the Dockerfile and the requirements of an unpacked package; with hadolint too, where it is installed.

    Raises:
        VerificationFailed: what is copied is not there, the image would run as root or without a health check, a requirement
            has no digest, or hadolint finds something.
    """
    path = folder / DOCKERFILE
    if not path.is_file():
        raise VerificationFailed(f"{DOCKERFILE} is missing")
    instructions = read_instructions(path.read_text(encoding="utf-8"))
    stage = instructions[max(index for index, (name, _) in enumerate(instructions) if name == "FROM") :]
    stated = dict(stage)
    for needed in ("ENTRYPOINT", "HEALTHCHECK", "USER"):
        if needed not in stated:
            raise VerificationFailed(f"{DOCKERFILE} has no {needed} in its last stage")
    if stated["USER"].split(":")[0] in {"root", "0"}:
        raise VerificationFailed(f"{DOCKERFILE} leaves the server to root")
    copied = [value.split()[0] for name, value in instructions if name == "COPY" and not value.startswith("--from=")]
    if missing := [source for source in copied if not (folder / source).exists()]:
        raise VerificationFailed(f"{DOCKERFILE} copies {missing[0]}, which is missing")
    for line in (folder / copied[0] / REQUIREMENTS).read_text(encoding="utf-8").splitlines():
        if not PINNED.fullmatch(line):
            raise VerificationFailed(f"{REQUIREMENTS} has a line that is not pinned with its digest: {line}")
    if program := shutil.which(HADOLINT):
        _lint(program, path)


def read_instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, continued lines joined, without comments.

    Raises:
        VerificationFailed: there is no FROM among them.
    """
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    stated = [line.strip() for line in lines.replace("\\\n", " ").splitlines() if line.strip()]
    instructions = [(name.upper(), value.strip()) for name, _, value in (line.partition(" ") for line in stated)]
    if "FROM" not in dict(instructions):
        raise VerificationFailed(f"{DOCKERFILE} has no FROM")
    return instructions


def _lint(program: str, path: Path) -> None:
    done = subprocess.run(
        [program, "--no-color", "--format", "json", str(path)], check=False, capture_output=True, encoding="utf-8"
    )
    try:
        findings = json.loads(done.stdout)
    except ValueError as error:
        raise VerificationFailed(f"{HADOLINT} failed: {done.stderr.strip() or done.stdout.strip()}") from error
    if findings:
        first = findings[0]
        raise VerificationFailed(f"{DOCKERFILE}, line {first['line']}: {first['message']} ({first['code']}, {HADOLINT})")
