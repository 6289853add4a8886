"""The child process that loads an MLflow model folder with ``mlflow.pyfunc`` and answers one JSON line per request.

It runs as a script, in any environment that has what the folder's ``requirements.txt`` names.
"""

import json
import os
import sys
import zipfile
from typing import Any

import numpy as np
from mlflow import pyfunc


class Refused(Exception):
    """The model cannot be run as asked; the message is the reason that is reported."""


class Worker:
    """One MLflow model."""

    def __init__(self) -> None:
        self.model: Any = None

    def load(self, folder: str, provider: str) -> dict[str, Any]:
        """Load the model. MLflow only warns where it falls back to another provider; here that is a reason to refuse."""
        self.model = pyfunc.load_model(folder)
        active = self.model.get_raw_model().get_providers()
        if active[0] != provider:
            raise Refused(f"MLflow loads it on {active[0]} and not on {provider}")
        return {"providers": active}

    def predict(
        self,
        *,
        data: str,
        inputs: dict[str, str],
        batch_size: int,
        fixed_batch: int | None,
        samples: int | None,
        output: str,
    ) -> dict[str, Any]:
        """Run all samples, or the first so many, and write the outputs that are arrays to the .npz file `output`.

        The last batch is filled up from the start only where the model takes no other size.
        """
        with np.load(data, allow_pickle=False) as arrays:
            given = {name: arrays[key].astype(self._dtypes()[name]) for name, key in inputs.items()}
        total = len(next(iter(given.values())))
        size = fixed_batch or batch_size
        parts: dict[str, list[Any]] = {}
        done = 0
        for start in range(0, min(total, samples or total), size):
            index = np.arange(start, start + size if fixed_batch else min(start + size, total)) % total
            count = min(size, total - start)
            for name, value in self.model.predict({name: array[index] for name, array in given.items()}).items():
                if isinstance(value, np.ndarray):
                    parts.setdefault(name, []).append(value[:count] if value.ndim else value[None])
            done += count
        with zipfile.ZipFile(output, "w") as file:
            for name, values in parts.items():
                array = np.concatenate(values)
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    storable = array.astype(str) if array.dtype == object else array
                    np.lib.format.write_array(member, storable, allow_pickle=False)
        return {"samples": done}

    def _dtypes(self) -> dict[str, Any]:
        return {value.name: value.type for value in self.model.metadata.get_input_schema().inputs}


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(worker, request.pop("do"))(**request)}
        except Refused as error:
            answer = {"refused": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever MLflow or a provider raises is the reason
            answer = {"refused": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
