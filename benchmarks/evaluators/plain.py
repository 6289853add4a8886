"""The floor: what an evaluation takes with onnxruntime and numpy and nothing else. ``plain.py TASK OUTCOME [MODEL ...]``."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Evaluate the models that are named, or all of the task, in this process."""
    task, names = json.loads(Path(sys.argv[1]).read_text()), sys.argv[3:]
    chosen = names or list(task["models"])
    Path(sys.argv[2]).write_text(json.dumps({name: evaluate(task, name) for name in chosen}))


def evaluate(task: dict[str, Any], name: str) -> dict[str, float]:
    """Return accuracy, and average and median latency in ms, with as many runs as the task says."""
    with np.load(task["data"]) as arrays:
        images, labels = arrays["image"], arrays["label"]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(task["models"][name], options, providers=["CPUExecutionProvider"])
    size = task["batch_size"]
    outputs = [session.run(None, {"image": images[at : at + size]})[0] for at in range(0, len(images), size)]
    accuracy = float(np.mean(np.concatenate(outputs).argmax(axis=1) == labels))
    runs = task["runs"][name]
    feeds = [{"image": image[np.newaxis]} for image in images[:256]]
    times = []
    for number in range(runs["warmup"] + runs["timed"]):
        feed, began = feeds[number % len(feeds)], time.perf_counter_ns()
        session.run(None, feed)
        times.append(time.perf_counter_ns() - began)
    timed = np.asarray(times[runs["warmup"] :]) / 1e6
    return {"accuracy": accuracy, "avg": float(timed.mean()), "p50": float(np.median(timed))}


if __name__ == "__main__":
    main()
