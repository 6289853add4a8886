"""Train a classifier of handwritten digits, and write six ways to ship it as ONNX files.

The digits are real: 1797 labelled 8x8 images that come with scikit-learn (UCI, https://doi.org/10.24432/C50P49). A
third of them is held out for evaluation: nothing is trained, pruned or calibrated on it.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from export import quantise_dynamically, quantise_statically, write_onnx
from network import FloatArray, LabelArray, Schedule, initialise, prune, train
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

SEED = 0
EVALUATION_IMAGES = 597
CALIBRATION_IMAGES = 256
# A pixel counts the dark points in a 4x4 square of the scan.
BLACK = 16

WIDE, WIDE_SCHEDULE = (64, 128, 128), Schedule(epochs=10, learning_rate=0.1)
PRUNED, PRUNED_SCHEDULE = (32, 64, 64), Schedule(epochs=5, learning_rate=0.05)
NARROW, NARROW_SCHEDULE = (4, 8, 16), Schedule(epochs=12, learning_rate=0.05)


class Digits(NamedTuple):
    """Images (n, 1, 8, 8) from 0 to 1, labels (n,), and positions (n,) in scikit-learn's data set."""

    images: FloatArray
    labels: LabelArray
    ids: LabelArray


def make_candidates(folder: Path) -> None:
    """Write ``candidates/<name>.onnx`` and ``evaluation.npz`` to `folder`, and a line about each candidate to stdout.

    A second run on the same machine writes the same bytes. Files are put in place when all of them are complete.
    """
    training, evaluation = load()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:
        new = Path(name)
        (new / "candidates").mkdir()
        write_candidates(training, new / "candidates")
        np.savez(new / "evaluation.npz", image=evaluation.images, label=evaluation.labels, id=evaluation.ids)
        models = sorted(new.glob("candidates/*.onnx"))
        for model in models:
            size_bytes = model.stat().st_size
            sys.stdout.write(f"{model.stem:18} accuracy {accuracy(model, evaluation):.4f} {size_bytes:>10,} bytes\n")
        (folder / "candidates").mkdir(exist_ok=True)
        for path in (*models, new / "evaluation.npz"):
            path.replace(folder / path.relative_to(new))


def load() -> tuple[Digits, Digits]:
    """Return the digits for training and those for evaluation, with the same share of every class in both."""
    data = load_digits()
    images = (data.images / BLACK).astype(np.float32)[:, np.newaxis]
    labels = data.target.astype(np.int64)
    ids = np.arange(len(labels), dtype=np.int64)
    training, evaluation = train_test_split(ids, test_size=EVALUATION_IMAGES, stratify=labels, random_state=SEED)
    return (
        Digits(images[training], labels[training], training),
        Digits(images[evaluation], labels[evaluation], evaluation),
    )


def write_candidates(digits: Digits, folder: Path) -> None:
    """Train on `digits`, and write every candidate to ``<name>.onnx`` in `folder`."""
    images, labels = np.moveaxis(digits.images, 1, -1), digits.labels
    # One thread adds numbers up in one order, so that a second run finds the same weights.
    with threadpool_limits(1):
        wide = train(initialise(WIDE, SEED), images, labels, WIDE_SCHEDULE, SEED)
        pruned = train(prune(wide, PRUNED), images, labels, PRUNED_SCHEDULE, SEED)
        narrow = train(initialise(NARROW, SEED), images, labels, NARROW_SCHEDULE, SEED)
    baseline = folder / "wide-fp32.onnx"
    write_onnx(wide, baseline)
    write_onnx(wide, folder / "wide-fp16.onnx", half=True)
    write_onnx(pruned, folder / "wide-pruned.onnx")
    write_onnx(narrow, folder / "narrow-fp32.onnx")
    quantise_dynamically(baseline, folder / "wide-int8-dynamic.onnx")
    quantise_statically(baseline, folder / "wide-int8-static.onnx", digits.images[:CALIBRATION_IMAGES])


def accuracy(model: Path, digits: Digits) -> float:
    """Return the share of `digits` that the ONNX model recognises."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": digits.images})
    return float(np.mean(logits.argmax(axis=1) == digits.labels))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the candidates and the evaluation data of the digits example.")
    parser.add_argument("folder", type=Path, metavar="OUTPUT_FOLDER", help="where the files go; made if missing")
    make_candidates(parser.parse_args().folder)
