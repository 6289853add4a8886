"""What does a package cost, compared with a plain copy of the same bytes?

Four candidates of random float32 weights are packed as a Zipfile and published, as a run does it: `create` writes the
archive, the store takes it in, the output folder publishes it. The other side copies the candidates' files and takes the
SHA-256 of each copy, which is about the least that a checked package can cost. The sides take turns, so that whatever else the
machine does falls on both, and the result is the **ratio of the medians**: seconds belong to one machine, the ratio hardly.
`shutil.make_archive`, which deflates everything, is run once for comparison.

The evaluations are made up and no wheels are fetched. Files are read from the page cache, and nothing waits for the disk.

usage: python -m benchmarks.packaging [--size-mb 512] [--rounds 5] [--folder FOLDER] [--json]
(as a module: as a script it would hide the library called ``packaging``)
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from packhouse.artifacts import ArtifactStore
from packhouse.candidates import FolderSource
from packhouse.config import PackhouseConfig
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.metrics import MetricConfig, SubType
from packhouse.output import OutputFolder
from packhouse.packaging import PackagingJob, Workplace
from packhouse.packaging.zipfile import Zipfile
from packhouse.plan import prepare
from packhouse.release import Grading, Package, decide

CANDIDATES = 4
ROWS = 1024
LATENCY = MetricConfig(name="latency", type="latency", sub_types=(SubType(name="p50", priority=1),))


@dataclass(frozen=True)
class Cost:
    """What something took: CPU seconds of this process, and wall time."""

    cpu_s: float
    wall_s: float

    @classmethod
    def of(cls, work: Callable[[Path], None], folder: Path) -> "Cost":
        """Return what `work` takes in a fresh folder of `folder`; earlier writes are on disk before it starts."""
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            os.sync()
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            work(Path(fresh))
            return cls(time.process_time() - cpu_s, time.perf_counter() - wall_s)

    @classmethod
    def median(cls, costs: Sequence["Cost"]) -> "Cost":
        """Return the medians."""
        return cls(statistics.median(cost.cpu_s for cost in costs), statistics.median(cost.wall_s for cost in costs))


def make_candidates(folder: Path, size_bytes: int) -> None:
    """Write ONNX models with external data, of `size_bytes` together: one product with random weights each."""
    random = np.random.default_rng(0)
    for index in range(CANDIDATES):
        weights = random.standard_normal((ROWS, size_bytes // CANDIDATES // ROWS // 4), np.float32)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "weights"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", ROWS])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weights.shape[1]])],
            [numpy_helper.from_array(weights, "weights")],
        )
        path = folder / f"candidate_{index}" / "product.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(helper.make_model(graph), path, save_as_external_data=True, location="product.onnx.data")


def received_job(candidates: Path, store: ArtifactStore) -> PackagingJob:
    """Take the candidates into the store and return what a package is made of, with made-up evaluations."""
    config = PackhouseConfig(candidates=FolderSource(path=candidates), metrics=(LATENCY,), output_dir=candidates)
    plan = prepare(config).receive(store)
    evaluations = tuple(
        Evaluation(
            candidate=request.candidate.digest,
            accelerator=request.accelerator.spec,
            metrics={"latency-p50": MetricValue(value=place, unit="ms", n=1)},
        )
        for place, request in enumerate(plan.requests, start=1)
    )
    return decide(plan, [Grading(accelerator=plan.requests[0].accelerator.spec, evaluations=evaluations)])


def package_and_publish(job: PackagingJob, store: ArtifactStore, folder: Path) -> None:
    """Make a Zipfile package without wheels and publish it in `folder`, in the steps of a run."""
    packaging = Zipfile(include_runtime_packages=False)
    with store.staging() as scratch:
        archive = store.adopt(packaging.create(job, Workplace(store, scratch, scratch)))
    package = Package(type=packaging.type, name=packaging.output_name, files={packaging.output_name: archive})
    OutputFolder(folder).publish(package, store)
    store.path(archive.sha256).unlink()  # The bytes go with the published link, after the clock has stopped.


def copy_and_digest(candidates: Path, folder: Path) -> None:
    """Copy the candidates' files into `folder` and take the SHA-256 of every copy."""
    for source in sorted(path for path in candidates.rglob("*") if path.is_file()):
        copy = folder / source.relative_to(candidates)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        with copy.open("rb", buffering=0) as file:
            hashlib.file_digest(file, "sha256")


def make_archive(candidates: Path, folder: Path) -> None:
    """Make a ZIP archive of the candidates' files as Python's standard library does."""
    shutil.make_archive(str(folder / "archive"), "zip", candidates)


def compare(size_bytes: int, rounds: int, folder: Path) -> dict[str, Cost]:
    """Return the median cost of each way by name; `make_archive` runs once."""
    candidates, store = folder / "candidates", ArtifactStore(folder / "store")
    make_candidates(candidates, size_bytes)
    job = received_job(candidates, store)
    packed, copied = [], []
    for _ in range(rounds):
        packed.append(Cost.of(lambda fresh: package_and_publish(job, store, fresh), folder))
        copied.append(Cost.of(lambda fresh: copy_and_digest(candidates, fresh), folder))
    archived = Cost.of(lambda fresh: make_archive(candidates, fresh), folder)
    return {"package and publish": Cost.median(packed), "copy and SHA-256": Cost.median(copied), "make_archive": archived}


def main() -> None:
    """Run the comparison and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=int, default=512, help="size of all candidates, in MB of 1e6 bytes")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to work; its disk is measured")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="packhouse-benchmark-", dir=options.folder) as folder:
        costs = compare(options.size_mb * 1_000_000, options.rounds, Path(folder))
    floor = costs["copy and SHA-256"]
    rows = {
        name: {**asdict(cost), "cpu_ratio": cost.cpu_s / floor.cpu_s, "wall_ratio": cost.wall_s / floor.wall_s}
        for name, cost in costs.items()
    }
    if options.json:
        print(json.dumps({"size_mb": options.size_mb, "rounds": options.rounds, "medians": rows}, indent=2))
        return
    print(f"{CANDIDATES} candidates, {options.size_mb} MB together, medians of {options.rounds} rounds (make_archive: 1)\n")
    print(f"{'':20} {'CPU s':>8} {'wall s':>8} {'× CPU':>8} {'× wall':>8}")
    for name, row in rows.items():
        print(f"{name:20} {row['cpu_s']:8.2f} {row['wall_s']:8.2f} {row['cpu_ratio']:8.2f} {row['wall_ratio']:8.2f}")


if __name__ == "__main__":
    main()
