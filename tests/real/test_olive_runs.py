"""Real Olive runs, from their output folders to packages whose models do what Olive measured."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.conftest import SHARED
from tests.real.conftest import Packhouse

OLIVE = SHARED / "olive"
INPUTS = OLIVE / "inputs"
BATCH_SIZE = 50
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not OLIVE.is_dir(), reason="the outputs of real Olive runs are not beside the project"),
]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("search_zip", {"3fb5a692", "0fbaee14", "06d414cd", "ffc173d5"}),
        ("v0.9.1_search_zip", {"model"}),
    ],
)
def test_an_olive_run_is_packed_and_every_model_reproduces_its_accuracy(
    run: str, expected: set[str], packhouse: Packhouse, tmp_path: Path
) -> None:
    document = json.loads((OLIVE / run / "config.json").read_text())
    document |= {
        "candidates": {
            "type": "olive",
            "path": str(OLIVE / run / "output_dir"),
            "remap": {"/home/ml/olive/run/cache_A": str(OLIVE / run / "cache")} if run == "search_zip" else {},
            "input_model": str(INPUTS / "tiny.onnx"),
        },
        "baseline": "input_model",
        "data": {"path": str(INPUTS / "eval.npz"), "labels": "y", "batch_size": BATCH_SIZE},
        "packaging_config": {"type": "zipfile", "config": {"include_runtime_packages": False}},
    }
    config = tmp_path / "olive.json"
    config.write_text(json.dumps(document))
    release = packhouse.release(config)
    candidates = release["job"]["candidates"]
    names = {name for candidate in candidates for name in (candidate["name"], *candidate["same_as"])}
    assert names == expected | {"input_model"}
    with zipfile.ZipFile(tmp_path / "packages" / "OutputModels.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    ranks = json.loads((tmp_path / "unpacked" / "models_rank.json").read_text())
    assert [entry["rank"] for entry in ranks] == list(range(1, len(release["job"]["overall"]["ranked"]) + 1))
    assert len(ranks) == len(candidates)
    for entry in ranks:
        measured = entry["metrics"]["accuracy-accuracy_score"]["value"]
        assert accuracy(tmp_path / "unpacked", entry["model_config"]["config"]) == measured


def accuracy(root: Path, model: dict[str, Any]) -> float:
    """Return the accuracy of a packaged model with its own inference settings."""
    settings = model["inference_settings"]
    options = ort.SessionOptions()
    for name, value in settings["session_options"].items():
        if value is not None and name.endswith("num_threads"):
            setattr(options, name, value)
    session = ort.InferenceSession(root / model["model_path"], options, providers=settings["execution_provider"])
    with np.load(INPUTS / "eval.npz") as data:
        # Dynamically quantised models depend on what else is in a batch, so batches are cut as in the evaluation.
        batches = [data["x"][start : start + BATCH_SIZE] for start in range(0, len(data["x"]), BATCH_SIZE)]
        scores = np.concatenate([session.run(None, {"x": batch})[0] for batch in batches])
        return float((scores.argmax(axis=1) == data["y"]).mean())
