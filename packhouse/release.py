"""The release: everything that one run decided and made."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

import packhouse
from packhouse.artifacts import Artifact
from packhouse.errors import InputError
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.job import PackagingJob
from packhouse.provenance.config import SigningConfig
from packhouse.records import Record, digest_of
from packhouse.verification.score import Score
from packhouse.verification.validate import Validation

Step = Literal["create", "validate", "score", "register"]
NOT_PASSED: dict[Step, str] = {
    "create": "was not made",
    "validate": "was made, and does not do what it should, so it is not registered",
    "score": "was made, and does not score as its candidates did, so it is not registered",
    "register": "was made and validated, and could not be registered",
}
RELEASE_NAME = "release.json"
REPORT_NAME = "report.html"


class Package(Record):
    """A package that was made: its files by name relative to the output folder, in the artifact store."""

    type: str
    name: str
    files: dict[str, Artifact]

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files.values())

    @property
    def is_file(self) -> bool:
        """Whether it is one file, and no folder."""
        return list(self.files) == [self.name]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the file, or of the names and digests of all files where it is a folder."""
        if self.is_file:
            return self.files[self.name].sha256
        return digest_of({name: file.sha256 for name, file in self.files.items()})


class Registration(Record):
    """Where a package is now, by path or address. What lies there is the package of this digest."""

    digest: str
    places: tuple[str, ...]


class StepFailure(Record):
    """The step that a package did not pass, and why; `logs` are those of what was deployed, by their names."""

    step: Step
    reason: str
    logs: dict[str, str] = {}


class Delivery(Record):
    """What became of one configured packaging type: what each step gave, up to the one that failed.

    A package is registered only if it was created, validated and scored. `settings` are those of its packaging. `beside` is
    what was published with it, its provenance, signature and run record: files by name, in the artifact store.
    """

    type: str
    name: str
    settings: dict[str, Any] = {}
    package: Package | None = None
    validation: Validation | None = None
    score: Score | None = None
    registration: Registration | None = None
    beside: dict[str, Artifact] = {}
    failure: StepFailure | None = None

    def with_(self, **given: Any) -> "Delivery":
        """Return the delivery with what a step gave."""
        return self.model_copy(update=given)

    @property
    def caveat(self) -> Caveat | None:
        """What could not be checked of the package, when it was validated or when it was scored."""
        return next((step.caveat for step in (self.validation, self.score) if step and step.caveat), None)

    @property
    def sentence(self) -> str:
        """What happened, in one sentence."""
        if self.failure:
            return f"{self.name} {NOT_PASSED[self.failure.step]}: {self.failure.reason}"
        return f"{self.name} is made, and {self.caveat}" if self.caveat else f"{self.name} is made"


class Release(Record):
    """What one run decided and made. It is the flow's result, and `release.json` in the output folder.

    `configuration` is the SHA-256 (hex) of its configuration, and `signing` says where the key to sign with lies, so that
    packages can be registered later as they would have been by the run.
    """

    job: PackagingJob
    deliveries: tuple[Delivery, ...] = ()
    configuration: str
    signing: SigningConfig | None = None
    created_at: str
    flow_run: str | None = None

    def with_deliveries(self, deliveries: Sequence[Delivery]) -> "Release":
        """Return the release with deliveries added, in the place of those of the same name where there are any."""
        names = {delivery.name for delivery in deliveries}
        kept = tuple(delivery for delivery in self.deliveries if delivery.name not in names)
        return self.model_copy(update={"deliveries": (*kept, *deliveries)})

    @property
    def delivered(self) -> tuple[Delivery, ...]:
        """The deliveries that ended well."""
        return tuple(delivery for delivery in self.deliveries if delivery.registration)

    @property
    def packages(self) -> tuple[Package, ...]:
        """The packages that were registered."""
        return tuple(delivery.package for delivery in self.delivered if delivery.package)

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each package that is not registered."""
        return tuple(delivery.sentence for delivery in self.deliveries if delivery.failure)

    @property
    def is_complete(self) -> bool:
        """Whether something was ranked on every accelerator, and every package was registered."""
        return all(ranking.ranked for ranking in self.job.by_accelerator.values()) and not self.failures

    @property
    def verdict(self) -> str:
        """One sentence per cause of failure, or one that says what was made."""
        causes = [
            f"no candidate could be ranked on {spec}: {'; '.join(sorted({item.reason for item in ranking.unranked}))}"
            for spec, ranking in self.job.by_accelerator.items()
            if not ranking.ranked
        ]
        if causes := [*causes, *self.failures]:
            return ". ".join(causes)
        best = self.job.best
        named = [f"{item.name} ({item.caveat.what})" if item.caveat else item.name for item in self.delivered]
        made = ", ".join(named) or "no packages"
        return f"{self.job.candidate(best.candidate).name} ranks first ({best.accelerator}); made {made}"


class RunRecord(Record):
    """How a package came about, as far as it differs from run to run: all that has no part in the package and its digest."""

    package: str
    digest: str
    created_at: str
    flow_run: str | None
    host: str
    packhouse: str
    validation: Validation | None
    score: Score | None
    registration: Registration | None


def run_record(delivery: Delivery, created_at: str, flow_run: str | None) -> RunRecord:
    """Return the run record of a package that was registered at a time, in a flow run."""
    assert delivery.package
    return RunRecord(
        package=delivery.name,
        digest=delivery.package.digest,
        created_at=created_at,
        flow_run=flow_run,
        host=platform.node(),
        packhouse=packhouse.__version__,
        validation=delivery.validation,
        score=delivery.score,
        registration=delivery.registration,
    )


def read_release(path: Path) -> Release:
    """Return the release record in a file, or in an output folder. Raises InputError."""
    file = path / RELEASE_NAME if path.is_dir() else path
    try:
        return Release.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError.at(str(file), f"cannot be read ({error.strerror})", "name the output folder of a run") from error
    except ValidationError as error:
        raise InputError.at(str(file), "is no release record of this version", "name the release.json of a run") from error
