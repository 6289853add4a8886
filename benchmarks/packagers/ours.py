"""Our packaging alone, without Prefect: the steps of a run, in its order. ``ours.py TASK OUTCOME FOLDER STEP…``."""

import json
import sys
from pathlib import Path

from benchmarks.packagers.clock import Clock
from packhouse.artifacts import ArtifactStore, measure
from packhouse.output import OutputFolder
from packhouse.packaging import PackagingJob, Workplace
from packhouse.packaging.zipfile import Zipfile
from packhouse.release import Package
from packhouse.verification.score import score
from packhouse.verification.validate import validate


def main() -> None:
    """Take a Zipfile without wheels through the steps that are named: create, validate, score, register."""
    task = json.loads(Path(sys.argv[1]).read_text())
    outcome, folder, wanted, clock = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:], Clock()
    job = PackagingJob.model_validate_json(Path(task["job"]).read_bytes())
    store, packaging = ArtifactStore(Path(task["store"])), Zipfile(include_runtime_packages=False)
    with clock.step("create"), store.staging() as scratch:
        archive = store.adopt(packaging.create(job, Workplace(store, scratch, folder / "cache")))
        package = Package(type=packaging.type, name=packaging.output_name, files={packaging.output_name: archive})
    for name, check in (("validate", validate), ("score", score)):
        if name in wanted:
            with clock.step(name), store.staging() as scratch:
                workplace = Workplace(store, scratch, folder / "cache")
                store.place(archive, scratch / package.name)
                with packaging.open(scratch / package.name, job, workplace) as opened:
                    check(opened, job, store)
                assert measure(scratch / package.name).sha256 == archive.sha256
    with clock.step("register"):
        OutputFolder(folder / "packages").publish(package, store)
    store.path(archive.sha256).unlink()  # the bytes go with the published link, after the clock has stopped
    clock.save(outcome)


if __name__ == "__main__":
    main()
