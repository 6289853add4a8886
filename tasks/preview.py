"""What a run would do: which evaluations and packages are in the result storage already, and how long the rest takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer

from packhouse.accelerators import Accelerator
from packhouse.artifacts import ArtifactStore
from packhouse.decision import Grading, decide
from packhouse.evaluation.evidence import Evidence
from packhouse.evaluation.probe import probe
from packhouse.evaluation.records import Evaluation, EvaluationRequest
from packhouse.evaluation.timing import TimingOutcome
from packhouse.packaging import Packaging
from packhouse.packaging.registry import asking
from packhouse.plan import Plan
from packhouse.records import Record
from packhouse.release import Package
from packhouse.verification.score import Score
from packhouse.verification.validate import Validation
from tasks.evaluate import has_its_files
from tasks.package import has_its_files as package_has_its_files
from tasks.package import package_key, score_key, still_holds, validation_key
from tasks.storage import result_folder, runtime_environments
from tasks.time import can_be_reused

R = TypeVar("R", bound=Record)

# What an evaluation takes where no earlier one tells: process, imports, session, and a short timing.
USUAL_EVALUATION_S = 6.0
USUAL_TIMING_S = 4.0  # for each candidate
USUAL_PACKAGE_S = 3.0


@dataclass(frozen=True)
class PlannedEvaluation:
    """An evaluation of the plan and whether it is in the result storage."""

    candidate: str
    accelerator: str
    is_cached: bool


@dataclass(frozen=True)
class PlannedTiming:
    """A tournament of the plan: who takes part, and whether it is in the result storage; None while evaluations are to do."""

    accelerator: str
    candidates: tuple[str, ...] | None
    is_cached: bool | None


@dataclass(frozen=True)
class PlannedPackage:
    """A package of the plan; whether it is in the result storage is known only where all evaluations are (else None).

    `remote_calls` is what registering it asks of other systems, and `caveat` what could not be checked of it here.
    """

    type: str
    what: str
    is_cached: bool | None
    remote_calls: tuple[str, ...]
    caveat: str | None


@dataclass(frozen=True)
class Preview:
    """What `packhouse plan` shows."""

    evaluations: tuple[PlannedEvaluation, ...]
    timings: tuple[PlannedTiming, ...]
    packages: tuple[PlannedPackage, ...]
    doubtful_accelerators: tuple[str, ...]
    estimate_s: float


def preview(plan: Plan) -> Preview:
    """Look up what the plan's tasks would find in the local result storage, by the same keys.

    Raises:
        InputError: a packaging type cannot say what it would do.
    """
    cached = {request.key: _cached(request) for request in plan.requests}
    done = [evaluation for evaluation in cached.values() if evaluation]
    gradings, timings = [], []
    for accelerator in plan.config.accelerators:
        evaluations = [cached[request.key] for request in plan.requests_on(accelerator.spec)]
        grading, timing = _timing(plan, accelerator.spec, evaluations)
        gradings += [grading] if grading else []
        timings += [timing] if timing else []
    packages = [_planned(index, packaging, plan, gradings) for index, packaging in enumerate(plan.config.packaging)]
    usual = sum(evaluation.duration_s for evaluation in done) / len(done) if done else USUAL_EVALUATION_S
    to_time = sum(
        len(plan.candidates if item.candidates is None else item.candidates) for item in timings if not item.is_cached
    )
    return Preview(
        evaluations=tuple(
            PlannedEvaluation(request.candidate.name, request.accelerator.spec, cached[request.key] is not None)
            for request in plan.requests
        ),
        timings=tuple(timings),
        packages=tuple(packages),
        doubtful_accelerators=tuple(filter(None, map(_doubt, plan.config.accelerators))),
        estimate_s=usual * (len(plan.requests) - len(done))
        + USUAL_TIMING_S * to_time
        + USUAL_PACKAGE_S * sum(not package.is_cached for package in packages),
    )


def _doubt(accelerator: Accelerator) -> str | None:
    """Return why an accelerator will not run, or cannot be tried yet; None where it runs. Installs nothing."""
    python = runtime_environments().installed(accelerator.runtime)
    if python is None:
        return f"{accelerator.spec}: a run will first install {', '.join(accelerator.runtime)}; whether it works shows then"
    if reason := probe(accelerator, python):
        return f"{accelerator.spec} does not run here, so all on it will fail and the run will end incomplete: {reason}"
    return None


def _timing(plan: Plan, spec: str, evaluations: Sequence[Evaluation | None]) -> tuple[Grading | None, PlannedTiming | None]:
    """Return what is known already of an accelerator, and its tournament if there is one to hold."""
    known = [item for item in evaluations if item]
    if len(known) < len(evaluations):
        return None, PlannedTiming(spec, None, None) if plan.is_timed else None
    request = plan.timing_on(spec, known)
    if request is None:
        return Grading(accelerator=spec, evaluations=tuple(known)), None
    names = tuple(candidate.name for candidate in request.candidates)
    outcome = _read(request.key, TimingOutcome)
    if outcome is None or not can_be_reused(outcome, ArtifactStore(result_folder())):
        return None, PlannedTiming(spec, names, is_cached=False)
    grading = Grading(accelerator=spec, evaluations=tuple(outcome.applied_to(known)), timing=outcome.summary)
    return grading, PlannedTiming(spec, names, is_cached=True)


def _planned(index: int, packaging: Packaging, plan: Plan, gradings: Sequence[Grading]) -> PlannedPackage:
    is_cached, validation = None, None
    if len(gradings) == len(plan.config.accelerators):
        store = ArtifactStore(result_folder())
        job = decide(plan, gradings, Evidence(store, plan.data))
        validation = _validation({"job": job, "packaging": packaging}, store)
        is_cached = validation is not None
    with asking(packaging, "plan", index):
        what = packaging.plan()
    with asking(packaging, "remote_calls", index):
        calls = tuple(packaging.remote_calls())
    with asking(packaging, "caveat", index):
        caveat = validation.caveat if validation else packaging.caveat()
    return PlannedPackage(packaging.type, what, is_cached, calls, str(caveat) if caveat else None)


def _validation(parameters: dict[str, Any], store: ArtifactStore) -> Validation | None:
    """Return what was found of a package that is made, validated and scored; registering it again costs next to nothing."""
    package = _read(package_key(None, parameters), Package)
    if package is None or not package_has_its_files(package, store):
        return None
    checked = {**parameters, "package": package}
    validation, score = _read(validation_key(None, checked), Validation), _read(score_key(None, checked), Score)
    hold = all(record is not None and still_holds(record, parameters["packaging"]) for record in (validation, score))
    return validation if hold else None


def _cached(request: EvaluationRequest) -> Evaluation | None:
    evaluation = _read(request.key, Evaluation)
    return evaluation if evaluation and has_its_files(evaluation, ArtifactStore(result_folder())) else None


def _read(key: str, kind: type[R]) -> R | None:
    """Return the record under a key of the result storage, or None where there is none."""
    storage = LocalFileSystem(basepath=str(result_folder()))
    store = ResultStore(result_storage=storage, serializer=JSONSerializer())
    if not store.exists(key):
        return None
    result: Any = store.read(key).result
    return result if isinstance(result, kind) else kind.model_validate(result)
