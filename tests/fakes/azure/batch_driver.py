"""The program that runs a batch deployment's scoring script in the deployment's Python; nothing but the standard library.

``python batch_driver.py SCRIPT`` calls ``init()``, and then ``run(mini_batch)`` for each line of standard input, a JSON list of
paths. It answers each with a line of JSON: ``{"rows": [...]}`` or ``{"failed": traceback}``. What is printed goes to the log.
"""

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any


def load(script: Path) -> ModuleType:
    """Import a script as Azure does: its folder is on the path, and it is not the main program."""
    sys.path.insert(0, str(script.parent))
    specification = importlib.util.spec_from_file_location(script.stem, script)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[script.stem] = module
    specification.loader.exec_module(module)
    return module


def rows(result: Any) -> list[str]:
    """Return the lines that ``append_row`` writes: a data frame's cells apart by spaces, a list's items as texts."""
    if hasattr(result, "to_csv"):
        return list(result.to_csv(sep=" ", header=False, index=False).splitlines())
    if isinstance(result, str | bytes) or not hasattr(result, "__iter__"):
        raise TypeError(f"run() returned a {type(result).__name__}; it must return a list or a data frame")
    return [str(item) for item in result]


def main() -> None:
    """Answer mini batches until there are no more; an ``init`` that fails ends the process with its traceback in the log."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    script = load(Path(sys.argv[1]))
    script.init()
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"rows": rows(script.run(json.loads(line)))}
        except Exception:  # noqa: BLE001 (whatever it is, the mini batch failed)
            sys.stderr.write(traceback.format_exc())
            answer = {"failed": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
