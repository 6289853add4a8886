"""A deployment asked before it gets traffic: by samples whose answers are known, and by all others for its scores."""

from packhouse.artifacts import ArtifactStore
from packhouse.errors import EvaluationFailed, RegistrationFailed, VerificationFailed
from packhouse.packaging.job import PackagingJob
from packhouse.verification.opened import OpenModel, OpenPackage
from packhouse.verification.payload import Payload
from packhouse.verification.score import score
from packhouse.verification.validate import validate


def require_answers(model: OpenModel, job: PackagingJob, store: ArtifactStore, *, scores: bool) -> None:
    """Compare the answers of a deployment with those of the evaluation; with `scores`, the quality metrics as well.

    Raises:
        RegistrationFailed: it does not answer, or something else.
    """
    opened = OpenPackage(files=0, models=[model])
    try:
        validate(opened, job, store)
        if scores:
            score(opened, job, store)
    except (VerificationFailed, EvaluationFailed) as error:
        raise RegistrationFailed(f"the smoke test failed: {error}", is_transient=error.is_transient) from error


def require_an_answer(model: OpenModel, job: PackagingJob, store: ArtifactStore) -> None:
    """Ask for one sample, of whatever deployment. Raises RegistrationFailed where there is no answer."""
    try:
        model.predict(Payload.of(job, store), 1, samples=1)
    except (VerificationFailed, EvaluationFailed) as error:
        raise RegistrationFailed(f"the endpoint does not answer: {error}", is_transient=error.is_transient) from error
