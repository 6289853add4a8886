"""Olive's evaluator alone, in its own environment: ``on_olive.py TASK OUTCOME``. Its configurations get the data from here."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]
from olive.data.registry import Registry  # type: ignore[import-not-found]


class Samples(torch.utils.data.Dataset):  # type: ignore[misc]
    """Images and labels of an .npz file."""

    def __init__(self, path: str) -> None:
        with np.load(path) as arrays:
            self.images, self.labels = arrays["image"], arrays["label"]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
        """Return an image and its label."""
        return {"image": self.images[index]}, int(self.labels[index])


@Registry.register_dataset()  # type: ignore[untyped-decorator]
def benchmark_samples(path: str, **_: Any) -> Samples:
    """Return the samples of an .npz file."""
    return Samples(path)


@Registry.register_post_process()  # type: ignore[untyped-decorator]
def benchmark_class(output: Any, **_: Any) -> Any:
    """Return the most likely class."""
    return output.argmax(dim=-1)


def main() -> None:
    """Evaluate the candidates one after the other in this process."""
    from olive.evaluator.olive_evaluator import OliveEvaluatorConfig  # type: ignore[import-not-found]
    from olive.hardware.accelerator import AcceleratorSpec  # type: ignore[import-not-found]
    from olive.model.config import ModelConfig  # type: ignore[import-not-found]
    from olive.systems.local import LocalSystem  # type: ignore[import-not-found]

    task, found = json.loads(Path(sys.argv[1]).read_text()), {}
    system = LocalSystem()
    for name, workflow in task["workflows"].items():
        config = json.loads(Path(workflow).read_text())
        result = system.evaluate_model(
            ModelConfig.model_validate(config["input_model"]),
            OliveEvaluatorConfig(**config["evaluators"]["evaluator"]),
            AcceleratorSpec("cpu", "CPUExecutionProvider"),
        )
        values = {key.rpartition("-")[2]: value["value"] for key, value in json.loads(result.model_dump_json()).items()}
        found[name] = {"accuracy": values["accuracy_score"], "avg": values["avg"], "p50": values["p50"]}
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
