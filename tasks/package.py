"""Package: one task per configured type, and below it four steps, each cached by everything that it depends on."""

import asyncio
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

import packhouse
from packhouse.artifacts import ArtifactStore, measure
from packhouse.errors import InputError, PackagingFailed, PackhouseError, RegistrationFailed, VerificationFailed, explained
from packhouse.output import OutputFolder
from packhouse.packaging import Packaging, PackagingJob, Workplace
from packhouse.packaging.registry import distribution_of_type
from packhouse.provenance.config import RUN_SUFFIX, Publishing
from packhouse.records import Record, digest_of
from packhouse.release import Delivery, Package, Registration, Step, StepFailure, run_record
from packhouse.transient import may_pass
from packhouse.verification.score import Score, score
from packhouse.verification.validate import Validation, validate
from tasks.connect import connect
from tasks.fan_out import result_of
from tasks.provenance import provenance_beside, signing_key
from tasks.storage import artifact_store, package_cache

R = TypeVar("R", bound=Record)

RETRY_AFTER_S = [2.0, 10.0, 30.0]


def _may_pass(_: Task[..., Any], __: Any, state: State[Any]) -> bool:
    return may_pass(state.result(raise_on_failure=False))


# Every step is tried again by itself while the cause of its failure may pass.
RETRIED: dict[str, Any] = {
    "retries": len(RETRY_AFTER_S),
    "retry_delay_seconds": RETRY_AFTER_S,
    "retry_condition_fn": _may_pass,
}


def package_key(_: TaskRunContext | None, parameters: dict[str, Any]) -> str:
    """Return the address of the package's record in the result storage."""
    job, packaging = parameters["job"], parameters["packaging"]
    made_by = [packhouse.__version__, distribution_of_type(packaging.type)]
    return "package-" + digest_of([job.content_digest, packaging.content_digest, *made_by])


def validation_key(_: TaskRunContext | None, parameters: dict[str, Any]) -> str:
    """Return the address of the package's validation in the result storage."""
    return "validation-" + _checked_digest(parameters)


def score_key(_: TaskRunContext | None, parameters: dict[str, Any]) -> str:
    """Return the address of the package's score in the result storage."""
    return "score-" + _checked_digest(parameters)


def still_holds(record: Validation | Score, packaging: Packaging) -> bool:
    """Whether a package need not be looked at again: there was no caveat, or there would still be one."""
    return record.caveat is None or packaging.caveat() is not None


def _checked_digest(parameters: dict[str, Any]) -> str:
    return digest_of([package_key(None, parameters), parameters["package"].digest])


@task(
    task_run_name="create {packaging.output_name}",
    cache_key_fn=package_key,
    persist_result=True,
    result_serializer="json",
    **RETRIED,
)
def create_package(job: PackagingJob, packaging: Packaging) -> Package:
    """Make a package and take its files into the result storage.

    Raises:
        PackagingFailed: with the reason, which no later run takes from the cache.
    """
    with _failing_as(PackagingFailed), _workplace() as workplace:
        made = packaging.create(job, workplace)
        package = _adopt(packaging, made, workplace.store)
    _log(packaging, f"made: {package.size_bytes / 1e6:.1f} MB, SHA-256 {package.digest[:12]}")
    return package


@task(
    task_run_name="validate {packaging.output_name}",
    cache_key_fn=validation_key,
    persist_result=True,
    result_serializer="json",
    **RETRIED,
)
def validate_package(job: PackagingJob, packaging: Packaging, package: Package) -> Validation:
    """Open a copy of the package and run its models on the golden samples. Raises VerificationFailed."""
    with _failing_as(VerificationFailed), _workplace() as workplace:
        made = _laid_out(package, workplace)
        with packaging.open(made, job, workplace) as opened:
            validation = validate(opened, job, workplace.store)
        _require_unchanged(package, made)
    caveat = f", {validation.caveat}" if validation.caveat else ""
    _log(packaging, f"validated: {len(validation.models)} models of {validation.files} files{caveat}")
    return validation


@task(
    task_run_name="score {packaging.output_name}",
    cache_key_fn=score_key,
    persist_result=True,
    result_serializer="json",
    **RETRIED,
)
def score_package(job: PackagingJob, packaging: Packaging, package: Package) -> Score:
    """Compute the quality metrics from the package's own predictions, and compare. Raises VerificationFailed."""
    with _failing_as(VerificationFailed), _workplace() as workplace:
        made = _laid_out(package, workplace)
        with packaging.open(made, job, workplace) as opened:
            scored = score(opened, job, workplace.store)
        _require_unchanged(package, made)
    _log(packaging, f"scored: {len(scored.metrics)} metrics on {scored.samples} samples are what they were")
    return scored


@task(
    task_run_name="register {packaging.output_name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIED,
)
def register_package(job: PackagingJob, packaging: Packaging, delivery: Delivery, publishing: Publishing) -> Delivery:
    """Publish the package where its type says, and in the output folder, signed if that is configured.

    It is always done: what is there already stays. Without the key to sign with, nothing is published.

    Raises:
        RegistrationFailed: it could not be published.
    """
    package = delivery.package
    assert package
    with _failing_as(RegistrationFailed), _workplace() as workplace:
        key, folder = signing_key(publishing.signing), OutputFolder(publishing.output_dir)
        made = _laid_out(package, workplace)
        _require_unchanged(package, made)
        places = packaging.register(made, job, workplace)
        if isinstance(places, str):
            raise RegistrationFailed(f"the packaging type {packaging.type} gave one text as where it is, and no list of them")
        registration = Registration(digest=package.digest, places=(*places, str(folder.path / package.name)))
        _require_unchanged(package, made)
        delivery = delivery.with_(registration=registration)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        files = provenance_beside(package, packaging, job, publishing.configuration, key=key, finished_at=now)
        files[package.name + RUN_SUFFIX] = run_record(delivery, now, flow_run.id).model_dump_json(indent=2).encode()
        beside = {name: workplace.store.put_bytes(content) for name, content in files.items()}
        with folder.exclusive():
            folder.publish(package, workplace.store, beside)
    _log(packaging, f"registered: {', '.join(registration.places)}")
    return delivery.with_(beside=beside)


@task(task_run_name="package {packaging.type} {packaging.output_name}", cache_policy=NO_CACHE, persist_result=False)
def deliver_package(job: PackagingJob, packaging: Packaging, publishing: Publishing) -> State[Any]:
    """Take a package through its four steps; what fails one goes no further. The result is a `Delivery` in any case."""
    settings = packaging.model_dump(mode="json")
    delivery = Delivery(type=packaging.type, name=packaging.output_name, settings=settings)
    made = partial(has_its_files, store=artifact_store())
    checked = partial(still_holds, packaging=packaging)
    steps: dict[Step, Callable[[Delivery], Delivery]] = {
        "create": lambda done: done.with_(package=result_of(create_package, (job, packaging), made)),
        "validate": lambda done: done.with_(validation=result_of(validate_package, (job, packaging, done.package), checked)),
        "score": lambda done: done.with_(score=result_of(score_package, (job, packaging, done.package), checked)),
        "register": lambda done: result_of(register_package, (job, packaging, done, publishing)),
    }
    for step, take in steps.items():
        try:
            delivery = take(delivery)
        except PackhouseError as error:
            delivery = delivery.with_(failure=_failure(step, error))
            break
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops no other package
            get_run_logger().exception("a step ended in a way that it should not")
            reason = f"{type(error).__name__}: {error}"
            delivery = delivery.with_(failure=StepFailure(step=step, reason=reason))
            break
    return (Failed if delivery.failure else Completed)(message=delivery.sentence, data=delivery)


def _failure(step: Step, error: PackhouseError) -> StepFailure:
    return StepFailure(step=step, reason=str(error), logs=error.logs if isinstance(error, RegistrationFailed) else {})


async def package_all(job: PackagingJob, packagings: Sequence[Packaging], publishing: Publishing) -> list[Delivery]:
    """Take all packages through their steps on the flow's task runner; one that fails stops no other."""
    futures = [deliver_package.submit(job, packaging, publishing) for packaging in packagings]

    def wait() -> None:
        for future in futures:
            future.wait()

    await asyncio.to_thread(wait)  # the flow's event loop stays free
    deliveries = []
    for future in futures:
        found = await future.state.aresult(raise_on_failure=False)
        if not isinstance(found, Delivery):
            raise found
        deliveries.append(found)
    return deliveries


def require_sources(job: PackagingJob, made: Iterable[Package | None], store: ArtifactStore) -> None:
    """Refuse to make packages of bytes that are not what was received; where all packages are made, no matter.

    A run receives candidates and data anew, and so mends the store; what works from a release alone cannot.

    Raises:
        InputError: what a package would be made of is missing or damaged in the store.
    """
    if all(package and has_its_files(package, store) for package in made):
        return
    for what, artifacts in (
        *((f"candidate {candidate.name!r}", candidate.files.values()) for candidate in job.candidates),
        ("the data", [job.data]),
    ):
        if not all(store.is_intact(artifact) for artifact in artifacts):
            remedy = "run the configuration again, which receives it anew"
            raise InputError.at("", f"{what} is missing or damaged in the result storage", remedy)


def has_its_files(package: Package, store: ArtifactStore) -> bool:
    """Whether the files of a package are in the store, undamaged."""
    return all(store.is_intact(artifact) for artifact in package.files.values())


@contextmanager
def _workplace() -> Iterator[Workplace]:
    store = artifact_store()
    with store.staging() as scratch:
        yield Workplace(store, scratch, package_cache(), connect, flow_run.id)


@contextmanager
def _failing_as(kind: type[PackhouseError]) -> Iterator[None]:
    """Raise whatever a packaging type raises as the failure of a step: types may be of third parties."""
    try:
        yield
    except kind:
        raise
    except PackhouseError as error:
        raise kind(str(error), is_transient=error.is_transient) from error
    except OSError as error:
        raise kind(explained(error), is_transient=may_pass(error)) from error
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        get_run_logger().exception("a packaging type failed in a way that it should not")
        raise kind(f"{type(error).__name__}: {error}", is_transient=may_pass(error)) from error


def _adopt(packaging: Packaging, made: Path, store: ArtifactStore) -> Package:
    paths = sorted(path for path in made.rglob("*") if path.is_file()) if made.is_dir() else [made]
    if made.name != packaging.output_name or not (paths and paths[0].exists()):
        raise PackagingFailed(f"the packaging type {packaging.type} did not make {packaging.output_name}, but {made.name}")
    files = {path.relative_to(made.parent).as_posix(): store.adopt(path) for path in paths}
    return Package(type=packaging.type, name=packaging.output_name, files=files)


def _laid_out(package: Package, workplace: Workplace) -> Path:
    """Put a copy of the package, under its own names, into the scratch folder; it is not to be changed there."""
    folder = workplace.scratch / "made"
    for name, artifact in package.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workplace.store.path(artifact.sha256), target)
    return folder / package.name


def _require_unchanged(package: Package, laid_out: Path) -> None:
    for name, artifact in package.files.items():
        if measure(laid_out.parent / name).sha256 != artifact.sha256:
            raise VerificationFailed(f"{name} was changed since the package was made; run again")


def _log(packaging: Packaging, step: str) -> None:
    get_run_logger().info("%s %s", packaging.output_name, step, extra={"subject": packaging.output_name, "step": step})
