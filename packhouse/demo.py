"""The example that ships with the package: a family of digit classifiers, trained on the spot on real data."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from packhouse.errors import InputError, PackhouseError

INSTALLED = Path(__file__).parent / "examples" / "digits"
CHECKOUT = Path(__file__).parent.parent / "examples" / "digits"
CONFIG = "packhouse.yaml"


def make_demo(folder: Path, say: Callable[[str], None]) -> Path:
    """Train the candidates in `folder` and return the path of the configuration that grades them.

    Raises:
        InputError: the folder cannot be written to.
        PackhouseError: the example's script failed.
    """
    example = INSTALLED if INSTALLED.is_dir() else CHECKOUT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(example / CONFIG, folder / CONFIG)
    except OSError as error:
        raise InputError.at(str(folder), f"cannot be written to ({error.strerror})", "choose another folder") from error
    command = [sys.executable, str(example / "make_candidates.py"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            say(line.rstrip())
    if process.returncode:
        raise PackhouseError(f"{example / 'make_candidates.py'} ended with exit code {process.returncode}")
    return folder / CONFIG
