"""The life of a package as tasks against a real Prefect API: create, validate, score, register, and what fails in between."""

import asyncio
import errno
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from prefect import flow
from prefect.context import TaskRunContext
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from packhouse.artifacts import measure
from packhouse.errors import InputError, PackagingFailed, RegistrationFailed, VerificationFailed
from packhouse.packaging import Packaging, PackagingJob, Workplace
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.zipfile import Zipfile
from packhouse.provenance.config import BESIDE, Publishing, SigningConfig
from packhouse.provenance.keys import read_signing_key, read_verifying_key
from packhouse.provenance.signing import sign_package, verify_beside
from packhouse.release import NOT_PASSED, RELEASE_NAME, REPORT_NAME, Delivery, Release, Step, read_release
from packhouse.verification.opened import OpenPackage
from tasks import package as tasks_package
from tasks import publish as tasks_publish
from tasks.package import deliver_package, package_all
from tasks.publish import publish_release
from tests.packaging_jobs import CPU, EXACT, Packing, make_packing
from tests.provenance.keys import write_keys

module: Any = tasks_package
STEPS: tuple[Step, ...] = ("create", "validate", "score", "register")
RECORDS = {"create": "package", "validate": "validation", "score": "score", "register": "registration"}
CONFIGURATION = "c" * 64
Hook = Callable[[Path | None], Any]


class Kit(Zipfile):
    """A third party's type: a ZIP file, and in each step, what the test wants. `steps` has every step that it was asked for."""

    type: Literal["Kit"] = "Kit"  # type: ignore[assignment]
    include_runtime_packages: bool = False
    hooks: ClassVar[dict[str, Hook]] = {}
    steps: ClassVar[list[str]] = []

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        made = super().create(job, workplace)
        return self._asked(made) or made

    @contextmanager
    def open(self, package: Path, job: PackagingJob, workplace: Workplace) -> Iterator[OpenPackage]:
        self._asked(package)
        with super().open(package, job, workplace) as opened:
            yield replace(opened, caveat=self.caveat())

    def caveat(self) -> Caveat | None:
        hook = self.hooks.get("caveat")
        return hook(None) if hook else None

    def register(self, package: Path, job: PackagingJob, workplace: Workplace) -> Sequence[str]:  # noqa: ARG002
        places: Sequence[str] | None = self._asked(package)
        return ("https://kits.example/kit",) if places is None else places

    def _asked(self, package: Path) -> Any:
        context = TaskRunContext.get()
        assert context
        step = context.task.name.removesuffix("_package")
        self.steps.append(step)
        hook = self.hooks.get(step)
        return hook(package) if hook else None


KIT, PLAIN = Kit(name="kit"), Zipfile(name="plain", include_runtime_packages=False)


@pytest.fixture(scope="module", autouse=True)
def api() -> Iterator[None]:
    """A Prefect API with a database of its own."""
    with prefect_test_harness(server_startup_timeout=240):
        yield


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    """A job whose one candidate has the accuracy that it really has; its store is not to be changed."""
    return make_packing(tmp_path_factory.mktemp("packing"), {CPU: {EXACT: (1.0, 3.0)}})


@pytest.fixture
def job(packing: Packing) -> PackagingJob:
    return packing.job


@pytest.fixture(autouse=True)
def storage(packing: Packing, tmp_path: Path) -> Iterator[Path]:
    """The result storage of one test, with the candidate in it; afterwards nothing temporary is left in it."""
    folder = Path(shutil.copytree(packing.workplace.scratch.parent / "results", tmp_path / "results"))
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: folder}):
        yield folder
    if (folder / "blobs").is_dir():
        assert [path.name for path in (folder / "blobs").iterdir()] == ["sha256"]


@pytest.fixture(autouse=True)
def hooks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Hook]:
    """What is done in the steps of a kit."""
    found: dict[str, Hook] = {}
    monkeypatch.setattr(Kit, "hooks", found)
    monkeypatch.setattr(Kit, "steps", [])
    return found


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "packages"


def packages_in(output: Path) -> list[str]:
    """Return the names of the packages in the output folder, without what lies beside them."""
    return sorted(path.name for path in output.iterdir() if not path.name.endswith(BESIDE))


def deliver(job: PackagingJob, output: Path, *packagings: Packaging, signing: SigningConfig | None = None) -> list[Delivery]:
    """Take packages through their steps in a flow."""

    @flow(name="deliver", validate_parameters=False)
    async def delivered() -> list[Delivery]:
        return await package_all(job, packagings, Publishing(output_dir=output, configuration=CONFIGURATION, signing=signing))

    deliveries: list[Delivery] = asyncio.run(delivered())
    return deliveries


def taken(action: Callable[[], Any]) -> list[str]:
    """Do something and return the steps that kits were asked for meanwhile."""
    before = len(Kit.steps)
    action()
    return Kit.steps[before:]


def fail(error: BaseException) -> Hook:
    def raise_it(_: Path | None) -> None:
        raise error

    return raise_it


def test_a_package_passes_all_four_steps_and_what_each_gave_is_kept(job: PackagingJob, output: Path) -> None:
    (delivery,) = deliver(job, output, KIT)

    assert Kit.steps == list(STEPS)
    assert delivery.failure is None
    assert delivery.package and delivery.validation and delivery.score and delivery.registration  # noqa: PT018
    assert [model.difference for model in delivery.validation.models] == [0.0]
    assert [metric.packaged for metric in delivery.score.metrics] == [1.0]
    assert delivery.registration.places == ("https://kits.example/kit", str(output / "kit.zip"))
    assert delivery.registration.digest == delivery.package.digest == measure(output / "kit.zip").sha256


ERRORS: dict[str, tuple[BaseException, str]] = {
    "a reason": (PackagingFailed("no licence; ask for one"), "no licence; ask for one"),
    "an error of a programmer": (KeyError("scale"), "KeyError: 'scale'"),
    "an error of a library": (ValueError("no such region"), "ValueError: no such region"),
    "a full disk": (
        OSError(errno.ENOSPC, "No space left on device"),
        "No space left on device; free space on that disk and run",
    ),
    "a closed folder": (PermissionError(errno.EACCES, "Permission denied"), "Permission denied; make it accessible"),
    "an exit": (SystemExit("no licence"), "SystemExit: no licence"),
}


@pytest.mark.parametrize(
    ("step", "kind"), [*zip(STEPS, ERRORS, strict=False), *zip(itertools.cycle(STEPS[::-1]), ERRORS, strict=False)]
)
def test_a_package_that_fails_in_a_step_goes_no_further_and_stops_no_other(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], step: Step, kind: str
) -> None:
    error, reason = ERRORS[kind]
    hooks[step] = fail(error)

    failed, plain = deliver(job, output, KIT, PLAIN)

    assert Kit.steps == list(STEPS[: STEPS.index(step) + 1])
    assert failed.failure
    assert failed.failure.step == step
    assert reason in failed.failure.reason
    assert failed.sentence == f"kit.zip {NOT_PASSED[step]}: {failed.failure.reason}"
    assert [getattr(failed, RECORDS[item]) is not None for item in STEPS] == [
        STEPS.index(item) < STEPS.index(step) for item in STEPS
    ]
    assert plain.registration
    assert packages_in(output) == ["plain.zip"]


def test_a_package_that_failed_takes_up_where_it_stopped(job: PackagingJob, output: Path, hooks: dict[str, Hook]) -> None:
    for step in STEPS:
        hooks[step] = fail(PackagingFailed("not yet"))
    assert taken(lambda: deliver(job, output, KIT)) == ["create"]
    for step, following in itertools.pairwise(STEPS):
        del hooks[step]
        assert taken(lambda: deliver(job, output, KIT)) == [step, following]
    del hooks["register"]
    assert taken(lambda: deliver(job, output, KIT)) == ["register"]
    assert (output / "kit.zip").exists()


def test_the_state_of_a_package_that_failed_is_failed_and_says_why(
    job: PackagingJob, output: Path, hooks: dict[str, Hook]
) -> None:
    publishing = Publishing(output_dir=output, configuration=CONFIGURATION)
    hooks["validate"] = fail(PackagingFailed("it does not load"))

    state = deliver_package(job, KIT, publishing, return_state=True)

    assert state.is_failed()
    sentence = "kit.zip was made, and does not do what it should, so it is not registered: it does not load"
    assert state.message == sentence
    hooks.clear()
    state = deliver_package(job, KIT, publishing, return_state=True)
    assert state.is_completed()
    assert state.message == "kit.zip is made"


@pytest.mark.parametrize(
    "made",
    [
        lambda made: made.rename(made.with_name("other.zip")),
        lambda made: made.unlink(),
        lambda made: made.unlink() or made.mkdir(),
    ],
    ids=["another name", "nothing", "an empty folder"],
)
def test_a_type_that_makes_something_else_than_it_says_is_told_so(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], made: Hook
) -> None:
    hooks["create"] = made

    (delivery,) = deliver(job, output, KIT)

    assert delivery.failure
    assert delivery.failure.step == "create"
    assert "the packaging type Kit did not make kit.zip" in delivery.failure.reason


def test_only_registering_is_done_when_nothing_has_changed(job: PackagingJob, output: Path) -> None:
    (first,) = deliver(job, output, KIT)
    assert taken(lambda: deliver(job, output, KIT)) == ["register"]
    (second,) = deliver(job, output, KIT)
    assert second.with_(beside={}) == first.with_(beside={})
    assert second.beside.keys() == first.beside.keys()


def lose(blob: Path) -> None:
    blob.unlink()


def damage(blob: Path) -> None:
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [lose, damage])
def test_a_package_whose_bytes_were_lost_is_made_again_and_what_was_found_of_them_still_holds(
    job: PackagingJob, output: Path, storage: Path, harm: Callable[[Path], None]
) -> None:
    (first,) = deliver(job, output, KIT)
    assert first.package
    harm(storage / "blobs" / "sha256" / first.package.digest)
    shutil.rmtree(output)

    assert taken(lambda: deliver(job, output, KIT)) == ["create", "register"]
    assert measure(output / "kit.zip").sha256 == first.package.digest


def test_a_package_that_was_checked_with_a_caveat_is_checked_again_once_there_is_none_and_then_no_more(
    job: PackagingJob, output: Path, hooks: dict[str, Hook]
) -> None:
    hooks["caveat"] = lambda _: Caveat(what="not built", reason="there is no builder", remedy="install one")
    (first,) = deliver(job, output, KIT)
    assert first.validation and first.score  # noqa: PT018
    assert first.caveat == first.validation.caveat == first.score.caveat == KIT.caveat()
    assert first.sentence == "kit.zip is made, and not built: there is no builder; install one"
    assert taken(lambda: deliver(job, output, KIT)) == ["register"]

    with_caveat = hooks.pop("caveat")
    assert taken(lambda: deliver(job, output, KIT)) == ["validate", "score", "register"]
    (checked,) = deliver(job, output, KIT)
    assert checked.caveat is None
    assert checked.package == first.package
    hooks["caveat"] = with_caveat
    assert taken(lambda: deliver(job, output, KIT)) == ["register"]
    (again,) = deliver(job, output, KIT)
    assert again.with_(beside={}) == checked.with_(beside={})  # what lies beside it says which run published it


def test_a_package_that_could_not_be_scored_as_it_was_validated_has_that_caveat(
    job: PackagingJob, output: Path, hooks: dict[str, Hook]
) -> None:
    caveat = Caveat(what="not built", reason="the builder has gone", remedy="start it again")

    def lose_builder(_: Path | None) -> None:
        hooks["caveat"] = lambda _: caveat

    hooks["score"] = lose_builder

    (delivery,) = deliver(job, output, KIT)

    assert delivery.validation
    assert delivery.validation.caveat is None
    assert delivery.caveat == caveat


def dated(year: int, package: Path | None) -> None:
    """Pack a package again, with another date, which makes other bytes."""
    assert package
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(package, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), content)


def test_a_package_with_other_bytes_than_before_is_validated_and_scored_again(
    job: PackagingJob, output: Path, storage: Path, hooks: dict[str, Hook]
) -> None:
    hooks["create"] = partial(dated, 2001)
    (first,) = deliver(job, output, KIT)
    assert first.package
    lose(storage / "blobs" / "sha256" / first.package.digest)
    hooks["create"] = partial(dated, 2002)

    assert taken(lambda: deliver(job, output, KIT)) == list(STEPS)
    assert measure(output / "kit.zip").sha256 != first.package.digest


@pytest.mark.parametrize("step", STEPS[:3])
def test_a_record_that_was_cut_while_it_was_written_is_made_again(
    job: PackagingJob, output: Path, storage: Path, step: Step
) -> None:
    deliver(job, output, KIT)
    (record,) = storage.glob(f"{RECORDS[step]}-*")
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])

    assert taken(lambda: deliver(job, output, KIT)) == [step, "register"]
    assert taken(lambda: deliver(job, output, KIT)) == ["register"]


@pytest.mark.parametrize("step", ["validate", "score"])
def test_a_package_whose_copy_is_changed_while_it_is_looked_at_is_refused_and_itself_unharmed(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], step: Step
) -> None:
    def change(package: Path | None) -> None:
        assert package
        package.chmod(0o644)
        dated(2001, package)

    hooks[step] = change

    (delivery,) = deliver(job, output, KIT)

    assert delivery.failure
    assert delivery.failure.step == step
    assert delivery.failure.reason == "kit.zip was changed since the package was made; run again"
    assert not output.exists()
    hooks.clear()
    assert taken(lambda: deliver(job, output, KIT)) == [*STEPS[STEPS.index(step) :]]
    assert (output / "kit.zip").exists()


def test_bytes_that_were_damaged_after_they_were_scored_are_never_given_to_be_registered(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], storage: Path
) -> None:
    given: list[str] = []
    hooks["score"] = lambda package: damage(storage / "blobs" / "sha256" / measure(package).sha256) if package else None
    hooks["register"] = lambda package: given.append(str(package))

    (delivery,) = deliver(job, output, KIT)

    assert delivery.failure
    assert delivery.failure.step == "register"
    assert "run again" in delivery.failure.reason
    assert not given
    hooks.pop("score")
    (mended,) = deliver(job, output, KIT)
    assert mended.registration


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: "https://kits.example/kit", "the packaging type Kit gave one text as where it is, and no list of them"),
        (lambda made: (made,), "Input should be a valid string"),
        (lambda made: made.write_bytes(b"another") and (), "kit.zip was changed since the package was made"),
    ],
    ids=["a text", "a path", "another package"],
)
def test_a_type_that_registers_in_another_way_than_it_should_is_told_so_and_stops_no_other(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], answer: Hook, reason: str
) -> None:
    hooks["register"] = answer

    failed, plain = deliver(job, output, KIT, PLAIN)

    assert failed.failure
    assert reason in failed.failure.reason
    assert plain.registration
    assert packages_in(output) == ["plain.zip"]


def test_the_logs_of_what_was_deployed_and_failed_are_kept(job: PackagingJob, output: Path, hooks: dict[str, Hook]) -> None:
    def refuse(_: Path | None) -> None:
        raise RegistrationFailed("the container crashed", logs={"inference server": "RuntimeError: no seeds"})

    hooks["register"] = refuse
    (delivery,) = deliver(job, output, KIT)
    assert delivery.failure
    assert delivery.failure.logs == {"inference server": "RuntimeError: no seeds"}


# What may pass, of each kind that a packaging type may raise.
PASSING: dict[str, Callable[[], BaseException]] = {
    "a packaging type says so": lambda: PackagingFailed("the index is being moved", is_transient=True),
    "the system": lambda: OSError(errno.EIO, "Input/output error"),
    "a lost connection": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "a library, because of a lost connection": lambda: caused_by(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
}
LASTING: dict[str, Callable[[], BaseException]] = {
    "a packaging type does not say so": lambda: RegistrationFailed("401 Unauthorized"),
    "a failed verification": lambda: VerificationFailed("the output 'y' differs by up to 0.3"),
    "bad input": lambda: InputError.at("", "there is no block of this name"),
    "a full disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "a library": lambda: ValueError("no such region"),
}


def caused_by(cause: Exception) -> Exception:
    error = RuntimeError("cannot fetch")
    error.__cause__ = cause
    return error


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let steps be tried again at once."""
    for step in STEPS:
        name = f"{step}_package"
        monkeypatch.setattr(module, name, getattr(module, name).with_options(retry_delay_seconds=[0, 0, 0]))


def failing_at_first(step: Step, outages: int, error: Callable[[], BaseException]) -> Hook:
    def answer(_: Path | None) -> None:
        if Kit.steps.count(step) <= outages:
            raise error()

    return answer


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("step", "kind"), [*zip(STEPS, PASSING, strict=True), *zip(STEPS, [*PASSING][::-1], strict=True)])
def test_a_step_whose_failure_passes_is_tried_again_by_itself_and_its_record_is_kept(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], step: Step, kind: str
) -> None:
    hooks[step] = failing_at_first(step, 1, PASSING[kind])

    (delivery,) = deliver(job, output, KIT)

    assert delivery.failure is None
    assert [(item, Kit.steps.count(item)) for item in STEPS] == [(item, 2 if item == step else 1) for item in STEPS]
    assert (output / "kit.zip").exists()
    assert taken(lambda: deliver(job, output, KIT)) == ["register"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("outages", "attempts"), [(3, 4), (9, 4)])
def test_a_step_is_tried_four_times_at_most(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], step: Step, outages: int, attempts: int
) -> None:
    hooks[step] = failing_at_first(step, outages, lambda: PackagingFailed("503 Service Unavailable", is_transient=True))

    (delivery,) = deliver(job, output, KIT)

    assert Kit.steps.count(step) == attempts
    assert (delivery.failure is None) == (outages < attempts) == (output / "kit.zip").exists()
    if delivery.failure:
        assert delivery.sentence == f"kit.zip {NOT_PASSED[step]}: 503 Service Unavailable"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("step", "kind"), [*zip(itertools.cycle(STEPS), LASTING, strict=False)])
def test_a_step_is_not_tried_again_for_what_does_not_pass(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], step: Step, kind: str
) -> None:
    hooks[step] = fail(LASTING[kind]())

    (delivery,) = deliver(job, output, KIT)

    assert Kit.steps == list(STEPS[: STEPS.index(step) + 1])
    assert delivery.failure
    assert delivery.failure.step == step


def test_what_a_step_gave_is_in_the_result_storage_before_the_next_one_begins(
    job: PackagingJob, output: Path, storage: Path, hooks: dict[str, Hook]
) -> None:
    found: dict[str, list[str]] = {}

    def look(step: Step) -> Hook:
        return lambda _: found.update({step: sorted(path.name.split("-")[0] for path in storage.glob("*-*"))})

    for step in STEPS:
        hooks[step] = look(step)
    deliver(job, output, KIT)

    assert found == {
        "create": [],
        "validate": ["package"],
        "score": ["package", "validation"],
        "register": ["package", "score", "validation"],
    }


@pytest.mark.parametrize("step", STEPS[:3])
def test_a_record_that_cannot_be_written_is_that_packages_failure_and_says_what_may_be_the_cause(
    job: PackagingJob, output: Path, storage: Path, hooks: dict[str, Hook], step: Step
) -> None:
    """A folder is in the place of the record, which stops root too."""
    deliver(job, output, KIT)
    (record,) = storage.glob(f"{RECORDS[step]}-*")
    record.unlink()
    record.mkdir()
    shutil.rmtree(output)

    failed, plain = deliver(job, output, KIT, PLAIN)

    assert failed.failure
    assert failed.failure.step == step
    assert "could not be written to the result storage; is the disk full, or read-only?" in failed.failure.reason
    assert plain.registration
    assert packages_in(output) == ["plain.zip"]
    record.rmdir()
    assert taken(lambda: deliver(job, output, KIT)) == [step, "register"]


def publish(job: PackagingJob, output: Path, deliveries: Sequence[Delivery]) -> Release:
    """Publish a release in a flow."""
    publishing = Publishing(output_dir=output, configuration=CONFIGURATION)

    @flow(name="publish", validate_parameters=False)
    def published() -> Release:
        release: Release = publish_release(job, deliveries, publishing)
        return release

    return published()


def publish_again(release: Release, output: Path, delivery: Delivery) -> None:
    """Publish a release, as it was read, with one more delivery, in a flow."""

    @flow(name="publish-again", validate_parameters=False)
    def published() -> None:
        tasks_publish.publish_again(release, [delivery], output)

    published()


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_of_two_that_register_packages_of_one_release_at_once_none_forgets_what_the_other_did(
    job: PackagingJob, output: Path
) -> None:
    kit, plain = deliver(job, output, KIT, PLAIN)
    release = publish(job, output, [])
    for delivery in (kit, plain):
        publish_again(release, output, delivery)
    assert read_release(output).deliveries == (kit, plain)

    publish(job, output, [kit])
    publish_again(release, output, plain)
    assert read_release(output).deliveries == (plain,)  # another run's release has nothing to do with this one


def test_a_package_is_there_with_its_provenance_its_run_record_and_its_signature_once_it_is_registered(
    job: PackagingJob, output: Path, tmp_path: Path
) -> None:
    private, public = write_keys(tmp_path)

    (delivery,) = deliver(job, output, KIT, signing=SigningConfig(key_file=private))

    assert sorted(content_of(output)) == sorted(["kit.zip", *(f"kit.zip{suffix}" for suffix in BESIDE)])
    verified = verify_beside(output / "kit.zip", [read_verifying_key(public, "")])
    assert verified
    assert verified.signed_by
    parameters = verified.statement.predicate["buildDefinition"]["externalParameters"]
    assert parameters == {"packaging": KIT.model_dump(mode="json"), "configuration": {"digest": {"sha256": CONFIGURATION}}}
    record = json.loads((output / "kit.zip.run.json").read_text())
    assert record["registration"]["places"] == ["https://kits.example/kit", str(output / "kit.zip")]
    assert record["created_at"] == verified.statement.predicate["runDetails"]["metadata"]["finishedOn"]
    assert record["flow_run"] == verified.statement.predicate["runDetails"]["metadata"]["invocationId"]
    assert {name: artifact.sha256 for name, artifact in delivery.beside.items()} == {
        path.name: measure(path).sha256 for path in output.iterdir() if path.name != "kit.zip"
    }


def test_without_the_key_to_sign_with_a_package_is_registered_nowhere(job: PackagingJob, output: Path, tmp_path: Path) -> None:
    (delivery,) = deliver(job, output, KIT, signing=SigningConfig(key_file=tmp_path / "lost.pem"))

    assert delivery.failure
    assert delivery.failure.step == "register"
    assert f"signing.key_file = {tmp_path / 'lost.pem'}: cannot be read" in delivery.failure.reason
    assert Kit.steps == ["create", "validate", "score"]
    assert not output.exists()


def test_what_another_run_replaced_is_put_back_with_all_that_lies_beside_it(
    job: PackagingJob, output: Path, hooks: dict[str, Hook], tmp_path: Path
) -> None:
    private, _ = write_keys(tmp_path)
    mine = deliver(job, output, KIT, PLAIN, signing=SigningConfig(key_file=private))
    expected = content_of(output)
    hooks["create"] = partial(dated, 2001)
    other = KIT.model_copy(update={"top_k": 1})
    deliver(job, output, other, PLAIN)
    assert all(content_of(output)[name] != expected[name] for name in ("kit.zip", "plain.zip.provenance.json"))

    publish(job, output, mine)

    found = content_of(output)
    assert {name: found[name] for name in expected} == expected
    assert sorted(found.keys() - expected.keys()) == [RELEASE_NAME, REPORT_NAME]


def test_a_signature_that_somebody_added_stays_when_the_release_is_published_again(
    job: PackagingJob, output: Path, tmp_path: Path
) -> None:
    deliveries = deliver(job, output, PLAIN)
    sign_package(output / "plain.zip", read_signing_key(write_keys(tmp_path)[0], ""))
    signed = content_of(output)

    publish(job, output, deliveries)

    assert content_of(output).items() >= signed.items()


def test_without_a_place_for_scratch_files_every_package_fails_by_itself(
    job: PackagingJob, output: Path, storage: Path
) -> None:
    shutil.rmtree(storage / "blobs")
    (storage / "blobs").write_bytes(b"in the way")

    deliveries = deliver(job, output, KIT, PLAIN)

    assert [delivery.failure.step for delivery in deliveries if delivery.failure] == ["create", "create"]
    assert all("Not a directory" in delivery.sentence for delivery in deliveries)


def test_without_a_place_to_publish_to_every_package_fails_in_its_last_step(job: PackagingJob, output: Path) -> None:
    output.write_bytes(b"in the way")

    deliveries = deliver(job, output, KIT, PLAIN)

    assert [delivery.failure.step for delivery in deliveries if delivery.failure] == ["register", "register"]
    assert all(f"the output folder {output} cannot be written: " in delivery.sentence for delivery in deliveries)
    output.unlink()
    assert taken(lambda: deliver(job, output, KIT)) == ["register"]
