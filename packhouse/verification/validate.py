"""Validate a package: open a copy, run its models on the first samples, and compare with what was evaluated."""

from collections.abc import Mapping

import numpy as np

from packhouse.artifacts import ArtifactStore
from packhouse.candidates import TensorInfo
from packhouse.errors import VerificationFailed
from packhouse.evaluation.data import Array
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.golden import ATOL, RTOL, expected_outputs
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.records import Record
from packhouse.verification.opened import OpenModel, OpenPackage, Predictions
from packhouse.verification.payload import Payload


class ValidatedModel(Record):
    """A packaged model that ran: on how many samples and in what, where its nodes ran, and how far its outputs were off.

    `difference` is the largest absolute one; None where no output is a tensor of numbers.
    """

    model_path: str
    accelerator: str
    samples: int
    environment: str
    placement: dict[str, int] | None
    difference: float | None


class Validation(Record):
    """A package whose copy was opened and run: its number of files, its models, and what could not be checked."""

    files: int
    models: tuple[ValidatedModel, ...]
    caveat: Caveat | None = None


def validate(opened: OpenPackage, job: PackagingJob, store: ArtifactStore) -> Validation:
    """Run every model of an open package on the golden samples, one by one.

    Raises:
        VerificationFailed: an output is missing, of another type or shape, not finite, or not what it was; or a node runs
            elsewhere than on the accelerator.
        EvaluationFailed: a model cannot be run.
    """
    if not opened.models:
        raise VerificationFailed("there is no model in it")
    payload = Payload.of(job, store)
    models = tuple(_validated(model, payload, job, store) for model in opened.models)
    return Validation(files=opened.files, models=models, caveat=opened.caveat)


def _validated(model: OpenModel, payload: Payload, job: PackagingJob, store: ArtifactStore) -> ValidatedModel:
    packaged = model.packaged
    evaluation = job.evaluation_of(packaged.digest, packaged.accelerator)
    where = f"{packaged.name} on {packaged.accelerator}"
    predictions = model.predict(payload, batch_size=1, samples=evaluation.sample_count)
    _require_placement(where, packaged, predictions, job)
    expected = expected_outputs(evaluation, store)
    _require_signature(where, job.candidate(packaged.digest).outputs, predictions.outputs)
    return ValidatedModel(
        model_path=packaged.model_path,
        accelerator=packaged.accelerator,
        samples=evaluation.sample_count,
        environment=model.environment,
        placement=None if predictions.placement is None else dict(predictions.placement),
        difference=_difference(where, expected, predictions.outputs),
    )


def _require_placement(where: str, packaged: PackagedCandidate, predictions: Predictions, job: PackagingJob) -> None:
    provider = job.accelerator(packaged.accelerator).execution_provider
    if predictions.placement is not None and set(predictions.placement) - {provider}:
        strays = ", ".join(f"{count} on {name}" for name, count in predictions.placement.items() if name != provider)
        raise VerificationFailed(f"{where}: not all nodes run on {provider}, but {strays}")


def _require_signature(where: str, outputs: tuple[TensorInfo, ...], given: Mapping[str, Array]) -> None:
    for tensor in outputs:
        if tensor.dtype == "unknown":  # a sequence or a map
            continue
        if tensor.name not in given:
            raise VerificationFailed(f"{where}: the output {tensor.name!r} is missing")
        array = given[tensor.name]
        dtype = "str" if array.dtype.kind in "USO" else array.dtype.name
        if dtype != tensor.dtype:
            raise VerificationFailed(f"{where}: the output {tensor.name!r} is {dtype} and should be {tensor.dtype}")
        sizes = zip(array.shape[1:], tensor.shape[1:], strict=False)
        if tensor.shape and (
            array.ndim != len(tensor.shape) or any(isinstance(size, int) and size != found for found, size in sizes)
        ):
            shape = ", ".join("?" if size is None else str(size) for size in tensor.shape)
            raise VerificationFailed(
                f"{where}: the output {tensor.name!r} has the shape {array.shape} and should have [{shape}]"
            )


def _difference(where: str, expected: Mapping[str, Array], given: Mapping[str, Array]) -> float | None:
    """Return the largest difference of numbers from what is expected, or refuse it."""
    largest = None
    for name, wanted in expected.items():
        if name not in given:
            raise VerificationFailed(f"{where}: the output {name!r} is missing")
        array = given[name]
        if array.shape != wanted.shape:
            raise VerificationFailed(f"{where}: the output {name!r} has the shape {array.shape}, and had {wanted.shape}")
        if wanted.dtype.kind not in "fiub":
            if not np.array_equal(array.astype(str), wanted.astype(str)):
                raise VerificationFailed(f"{where}: the output {name!r} is not what it was when it was evaluated")
            continue
        if array.dtype.kind == "f" and (lost := int((~np.isfinite(array) & np.isfinite(wanted)).sum())):
            raise VerificationFailed(f"{where}: {lost} values of the output {name!r} are not finite")
        difference = float(np.nanmax(np.abs(array.astype(float) - wanted.astype(float)), initial=0.0)) if array.size else 0.0
        if not np.allclose(array.astype(float), wanted.astype(float), rtol=RTOL, atol=ATOL, equal_nan=True):
            raise VerificationFailed(
                f"{where}: the output {name!r} differs by up to {difference:.3g} from what it was when it was evaluated; "
                f"{ATOL:g} + {RTOL:g} of the value is tolerated"
            )
        largest = max(difference, largest or 0.0)
    return largest
