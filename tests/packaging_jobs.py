"""Packaging jobs for tests: real candidates in a real store, graded by numbers that the test gives."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.candidates import MODEL_NAME, Candidate, lay_out
from packhouse.config.loading import parse_config
from packhouse.decision import Grading, decide
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.packaging import Packaging, PackagingJob, Workplace
from packhouse.packaging.zipfile import Zipfile
from packhouse.plan import Plan, prepare
from packhouse.release import Delivery, Package, Registration, Release, Step, StepFailure
from tests.classifiers import write_family, write_points
from tests.jobs import job

CPU, GPU = "cpu-cpu", "gpu-cuda"
ACCELERATORS = [
    {"device": "cpu", "session_options": {"intra_op_num_threads": 1, "graph_optimization_level": 99}},
    {"device": "gpu", "execution_provider": "CUDAExecutionProvider", "provider_options": {"device_id": 0}},
]
METRICS = [
    {"name": "accuracy", "type": "accuracy", "sub_types": [{"name": "accuracy_score", "priority": 1}]},
    {"name": "latency", "type": "latency", "sub_types": [{"name": "p50", "priority": 2}, {"name": "max"}]},
]
EXACT, NEAR, FAR = "turned-0.0", "turned-0.3", "turned-0.9"
# Accuracy and latency in ms, or the reason of a failure, by accelerator and candidate: across all, a GPU's result is second.
Grades = Mapping[str, Mapping[str, tuple[float, float] | str]]
GRADES: Grades = {
    CPU: {EXACT: (0.97, 3.0), NEAR: (0.91, 2.0), FAR: (0.60, 1.0)},
    GPU: {EXACT: (0.95, 0.5), NEAR: (0.90, 0.4), FAR: "out of memory"},
}
ONE: Grades = {CPU: {EXACT: (0.97, 3.0)}}


@dataclass(frozen=True)
class Packing:
    """A job with everything that a packaging type is given to make a package of it."""

    job: PackagingJob
    workplace: Workplace

    def create(self, packaging: Packaging) -> Path:
        """Make a package in a fresh scratch folder and return its path."""
        scratch = Path(tempfile.mkdtemp(dir=self.workplace.scratch))
        return packaging.create(self.job, Workplace(self.workplace.store, scratch, self.workplace.cache))

    def zip(self, **settings: Any) -> Path:
        """Make a Zipfile, by default without the wheels, and return its path."""
        return self.create(Zipfile(**{"include_runtime_packages": False, **settings}))

    def candidate(self, name: str) -> Candidate:
        """Return the candidate with a name."""
        return next(candidate for candidate in self.job.candidates if candidate.name == name)


def make_packing(folder: Path, grades: Grades = GRADES, **changes: Any) -> Packing:
    """Receive the candidates of `folder` and rank them by `grades`; `changes` replace parts of the configuration.

    Where there are no candidates yet, those that the grades name by their error are written.
    """
    if "candidates" not in changes and not (folder / "candidates").exists():
        names = {name for graded in grades.values() for name in graded}
        write_family(folder / "candidates", sorted(float(name.removeprefix("turned-")) for name in names))
    if not (folder / "points.npz").exists():
        write_points(folder / "points.npz")
    located = {
        "candidates": {"type": "folder", "path": str(folder / "candidates")},
        "data": {"path": str(folder / "points.npz"), "labels": "label"},
        "output_dir": str(folder / "packages"),
    }
    accelerators = ACCELERATORS[: len(grades)]
    document = job(**{**located, "accelerators": accelerators, "metrics": METRICS, "packaging": [], **changes})
    store = ArtifactStore(folder / "results")
    plan = prepare(parse_config(document)).receive(store)
    gradings = [
        Grading(
            accelerator=spec,
            evaluations=tuple(_graded(plan, candidate, spec, graded[candidate.name], store) for candidate in plan.candidates),
        )
        for spec, graded in grades.items()
    ]
    workplace = Workplace(store, folder / "scratch", folder / "cache")
    workplace.scratch.mkdir()
    return Packing(decide(plan, gradings), workplace)


def make_release(packing: Packing, *packages: Package) -> Release:
    """Return a release of the job with packages."""
    deliveries = tuple(delivered(package) for package in packages)
    return Release(job=packing.job, deliveries=deliveries, configuration="0" * 64, created_at="2026-01-02T03:04:05+00:00")


def delivered(package: Package) -> Delivery:
    """Return the delivery of a package that passed all steps."""
    registration = Registration(digest=package.digest, places=(f"/packages/{package.name}",))
    return Delivery(type=package.type, name=package.name, package=package, registration=registration)


def undelivered(name: str, reason: str, step: Step = "create", kind: str = "Zipfile") -> Delivery:
    """Return the delivery of a package that did not pass a step."""
    return Delivery(type=kind, name=name, failure=StepFailure(step=step, reason=reason))


def predict(model: Path, samples: Any) -> dict[str, Any]:
    """Return what ONNX Runtime makes of ``x`` with a model, by name of the output, where it is a tensor."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs() if value.type.startswith("tensor(")]
    return dict(zip(names, session.run(names, {"x": samples}), strict=True))


def _graded(plan: Plan, candidate: Candidate, spec: str, grade: tuple[float, float] | str, store: ArtifactStore) -> Evaluation:
    if isinstance(grade, str):
        return Evaluation(candidate=candidate.digest, accelerator=spec, failure=grade)
    accuracy, latency_ms = grade
    values = {"accuracy-accuracy_score": accuracy, "latency-p50": latency_ms, "latency-max": 10 * latency_ms}
    metrics = {name: MetricValue(value=value, unit="ms" if "latency" in name else "", n=90) for name, value in values.items()}
    with np.load(store.path(plan.data.sha256)) as data:
        samples = data[plan.input_keys["x"]]
    fixed = candidate.inputs[0].shape[0]
    size = fixed if isinstance(fixed, int) else None
    return Evaluation(
        candidate=candidate.digest,
        accelerator=spec,
        metrics=metrics,
        predictions=_outputs(candidate, store, samples, size or len(samples)),
        sample_outputs=_outputs(candidate, store, samples[: size or 1], size or 1),
        runtime_version="1.24.0",
    )


def _outputs(candidate: Candidate, store: ArtifactStore, samples: Any, size: int) -> Artifact:
    """Return the stored outputs for samples, made in batches of a size, the last one filled up from the start."""
    with store.staging() as scratch:
        model = lay_out(candidate, store, scratch, MODEL_NAME)
        batches = range(0, len(samples), size)
        parts = [predict(model, samples[np.arange(start, start + size) % len(samples)]) for start in batches]
        outputs = {name: np.concatenate([part[name] for part in parts])[: len(samples)] for name in parts[0]}
        outputs = {name: array.astype(str) if array.dtype == object else array for name, array in outputs.items()}
        np.savez(scratch / "outputs.npz", **outputs)  # type: ignore[arg-type]
        return store.adopt(scratch / "outputs.npz")
