"""What does a package cost, compared with Olive's packaging and with a plain copy of the same bytes?

Four candidates with random float32 weights, as external data, are packed as a Zipfile without wheels, in two sizes. The sides
take turns, each in a process of its own:

- ``create``: ours, as a run does it, without Prefect: the archive is written, taken into the store, and published.
- ``all four steps``: between, a copy is opened and every model run on the golden samples, and another copy is opened and
  scored on all samples. Olive has nothing like it.
- ``Olive``: `generate_output_artifacts` of Olive 0.9.1, the last version that could pack the runtime too. uv makes an
  environment for it in the cache folder; where that fails, it is left out.
- ``copy and SHA-256``: a copy of every file and the digest of the copy, about the least that a checked package can cost.

What counts are **ratios found in each turn**: seconds belong to one machine, and wall time to what else it does. CPU and wall
seconds are those of the work, without imports, and with child processes. Peak memory is that of the whole process tree, imports
included: resident pages of all processes added up every 20 ms, those that they share counted for each. Files are read from
the page cache, and nothing waits for the disk. Accuracy is measured before, on random labels.

usage: python -m benchmarks.packaging [--sizes-mb 50 200] [--rounds 3] [--folder FOLDER] [--cache FOLDER] [--json FILE]
(as a module: as a script it would hide the library called ``packaging``)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.olive import CACHE, olive_environment
from packhouse.artifacts import ArtifactStore
from packhouse.config.loading import parse_config
from packhouse.decision import Grading, decide
from packhouse.evaluation.evaluate import evaluate
from packhouse.packaging import PackagingJob
from packhouse.plan import prepare

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(__file__).parent / "packagers"
# Versions from its time: it uses pkg_resources, and pydantic 1.
OLIVE = ("olive-ai==0.9.1", "onnxruntime", "requests", "pydantic<2", "setuptools<80")
STEPS = ("create", "validate", "score", "register")
CANDIDATES, SAMPLES = 4, 256
WIDTH, CLASSES = 1024, 10
SAMPLED_EVERY_S = 0.02
MB = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What a side took: CPU and wall seconds of its work, the same by step, and the peak of memory of the process tree."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    steps: dict[str, dict[str, float]]


def make_candidates(folder: Path, size_bytes: int) -> None:
    """Write ONNX models with external data, of about `size_bytes` each: products of random matrices, then ten logits."""
    random = np.random.default_rng(0)
    layers = max(1, size_bytes // (WIDTH * WIDTH * 4))
    for index in range(CANDIDATES):
        shapes = [(WIDTH, WIDTH)] * layers + [(WIDTH, CLASSES)]
        scale = np.float32(WIDTH**-0.5)
        weights = [
            numpy_helper.from_array(random.standard_normal(shape, np.float32) * scale, f"w{layer}")
            for layer, shape in enumerate(shapes)
        ]
        values = ["x", *(f"v{layer}" for layer in range(layers)), "y"]
        nodes = [helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]]) for i in range(layers + 1)]
        graph = helper.make_graph(
            nodes,
            "products",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = folder / f"candidate_{index}" / "products.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(model, path, save_as_external_data=True, location="products.onnx.data")


def graded_job(folder: Path, candidates: Path, store: ArtifactStore) -> PackagingJob:
    """Take the candidates into the store, evaluate them on random samples, and return what a package is made of."""
    random = np.random.default_rng(1)
    samples = random.standard_normal((SAMPLES, WIDTH), np.float32)
    np.savez(folder / "data.npz", x=samples, label=random.integers(0, CLASSES, SAMPLES))
    document: dict[str, Any] = {
        "candidates": {"type": "folder", "path": str(candidates)},
        "data": {"path": str(folder / "data.npz"), "labels": "label"},
        "accelerators": [{"session_options": {"intra_op_num_threads": 1}}],
        "metrics": [{"name": "accuracy", "type": "accuracy", "sub_types": [{"name": "accuracy_score", "priority": 1}]}],
        "output_dir": str(folder / "packages"),
    }
    plan = prepare(parse_config(document)).receive(store)
    evaluations = tuple(evaluate(request, store) for request in plan.requests)
    return decide(plan, [Grading(accelerator=plan.requests[0].accelerator.spec, evaluations=evaluations)])


def cost_of(command: Sequence[str | Path], task: Path, folder: Path) -> Cost:
    """Run a program in a fresh folder of `folder` and return what it took. Raises RuntimeError where it fails."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        fresh = Path(name)
        (fresh / "work").mkdir()
        program, *arguments = command[1:]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": name, "CI": "1"}  # CI: Olive sends no telemetry
        with (fresh / "log").open("w+") as log:
            process = subprocess.Popen(
                [command[0], PROGRAMS / program, task, fresh / "outcome.json", fresh / "work", *arguments],
                env=variables,
                stdout=log,
                stderr=log,
            )
            peak_bytes = 0
            while process.poll() is None:
                peak_bytes = max(peak_bytes, resident_bytes(process.pid))
                time.sleep(SAMPLED_EVERY_S)
        if process.returncode:
            raise RuntimeError(f"{program} ended with exit code {process.returncode}: {(fresh / 'log').read_text()[-2000:]}")
        steps = json.loads((fresh / "outcome.json").read_text())
    total = {key: sum(step[key] for step in steps.values()) for key in ("cpu_s", "wall_s")}
    return Cost(total["cpu_s"], total["wall_s"], peak_bytes / MB, steps)


def resident_bytes(process: int) -> int:
    """Return the bytes of memory that a process and all its children hold, as far as they are still there."""
    try:
        own = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return own + sum(resident_bytes(int(child)) for child in children)


def compare(size_mb: int, rounds: int, folder: Path, olive: Path | None) -> dict[str, list[Cost]]:
    """Return what each side took in every round, for candidates of `size_mb` each."""
    candidates, store, task = folder / "candidates", folder / "store", folder / "task.json"
    make_candidates(candidates, size_mb * MB)
    (folder / "job.json").write_text(graded_job(folder, candidates, ArtifactStore(store)).model_dump_json())
    task.write_text(json.dumps({"candidates": str(candidates), "store": str(store), "job": str(folder / "job.json")}))
    sides: dict[str, list[str | Path]] = {
        "create": [sys.executable, "ours.py", "create", "register"],
        "all four steps": [sys.executable, "ours.py", *STEPS],
        **({"Olive": [olive, "on_olive.py"]} if olive else {}),
        "copy and SHA-256": [sys.executable, "plain.py"],
    }
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, command in sides.items():
            costs[side].append(cost_of(command, task, folder))
    return costs


def spread(values: Sequence[float]) -> str:
    """Return median and range as text."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def print_size(size_mb: int, costs: dict[str, list[Cost]]) -> None:
    """Print what each side took, how many times less than Olive that is, and what our steps took."""
    rounds = len(costs["create"])
    print(f"\n{CANDIDATES} × {size_mb} MB, n = {rounds}: median (range)\n")
    print(f"{'':18} {'CPU s':>21} {'wall s':>23} {'peak MB':>9} {'Olive, × CPU':>22} {'Olive, × wall':>22}")
    for side, found in costs.items():
        ratios = [
            spread([getattr(theirs, key) / getattr(ours, key) for theirs, ours in zip(costs["Olive"], found, strict=True)])
            for key in ("cpu_s", "wall_s")
            if "Olive" in costs
        ]
        peak = statistics.median(cost.peak_mb for cost in found)
        cpu_s, wall_s = spread([cost.cpu_s for cost in found]), spread([cost.wall_s for cost in found])
        print(f"{side:18} {cpu_s:>21} {wall_s:>23} {peak:9.0f} " + " ".join(f"{ratio:>22}" for ratio in ratios))
    print("\nall four steps, CPU s")
    for step in STEPS:
        print(f"  {step:16} {spread([cost.steps[step]['cpu_s'] for cost in costs['all four steps']]):>21}")


def main() -> None:
    """Run the comparison and print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes-mb", type=int, nargs="+", default=[50, 200], help="size of a candidate, in MB (50 200)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of all sides (3)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to work; its disk is measured")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for Olive's environment, several GB (%(default)s)")
    parser.add_argument("--without-olive", action="store_true", help="leave Olive out")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    options = parser.parse_args()
    olive = None if options.without_olive else olive_environment(options.cache.absolute() / "olive-0.9.1", *OLIVE)
    print(f"{os.cpu_count()} CPUs, load before {os.getloadavg()[0]:.1f}")
    measured = {}
    for size_mb in options.sizes_mb:
        with tempfile.TemporaryDirectory(prefix="packhouse-benchmark-", dir=options.folder) as folder:
            costs = compare(size_mb, options.rounds, Path(folder), olive)
        print_size(size_mb, costs)
        measured[size_mb] = {side: [asdict(cost) for cost in found] for side, found in costs.items()}
    print(f"\nload after {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
