"""Score a package: recompute its quality metrics from its own predictions, and compare with the evaluation."""

from packhouse.artifacts import ArtifactStore
from packhouse.errors import VerificationFailed
from packhouse.evaluation.quality import quality
from packhouse.metrics import QUALITY_TYPES
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.job import PackagingJob
from packhouse.records import Record
from packhouse.verification.opened import OpenModel, OpenPackage
from packhouse.verification.payload import Payload

# Of the evaluated value. The same model on the same device gives the same classes; this leaves room for rounding only.
TOLERANCE = 1e-3


class ScoredMetric(Record):
    """A metric of a packaged model: its value when the candidate was evaluated, and from the package's own predictions."""

    model_path: str
    accelerator: str
    metric: str
    evaluated: float
    packaged: float
    tolerance: float


class Score(Record):
    """What a package scored on so many samples, no metrics where none is of quality; and what could not be done for it."""

    samples: int
    metrics: tuple[ScoredMetric, ...]
    caveat: Caveat | None = None


def score(opened: OpenPackage, job: PackagingJob, store: ArtifactStore) -> Score:
    """Run every model of an open package on all samples, join the outputs to the labels by id, and compute the metrics.

    Raises:
        VerificationFailed: a value differs from the evaluation's by more than is tolerated, or samples were not answered.
        EvaluationFailed: a model cannot be run, or its outputs do not give a metric a meaning.
    """
    payload = Payload.of(job, store)
    judged = any(metric.type in QUALITY_TYPES for metric in job.metrics)
    metrics = [item for model in opened.models for item in _scored(model, payload, job)] if judged else []
    return Score(samples=len(payload.ids) if judged else 0, metrics=tuple(metrics), caveat=opened.caveat)


def _scored(model: OpenModel, payload: Payload, job: PackagingJob) -> list[ScoredMetric]:
    packaged = model.packaged
    evaluated = job.evaluation_of(packaged.digest, packaged.accelerator).values
    predictions = model.predict(payload, batch_size=job.batch_size)
    labels = payload.labels_of(predictions.ids)
    scored = []
    for metric in job.metrics:
        if metric.type not in QUALITY_TYPES or metric.name not in evaluated:
            continue
        value, before = quality(metric, predictions.outputs, labels), evaluated[metric.name]
        tolerance = TOLERANCE * abs(before)
        if not abs(value - before) <= tolerance:
            raise VerificationFailed(
                f"{metric.name} of {packaged.name} on {packaged.accelerator} is {value:.6g} in the package, and was "
                f"{before:.6g} when it was evaluated; a difference of {tolerance:.3g} is tolerated"
            )
        scored.append(
            ScoredMetric(
                model_path=packaged.model_path,
                accelerator=packaged.accelerator,
                metric=metric.name,
                evaluated=before,
                packaged=value,
                tolerance=tolerance,
            )
        )
    return scored
