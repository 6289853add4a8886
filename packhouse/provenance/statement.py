"""The in-toto statement beside a package: which files it has, and as SLSA provenance what they were made of and how.

Formats: https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1. What ours holds: docs/provenance.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, Secret, SecretBytes, SecretStr, ValidationError
from pydantic_core import to_jsonable_python

import packhouse
from packhouse.errors import VerificationFailed
from packhouse.packaging import Packaging, PackagingJob
from packhouse.provenance.config import WITHHELD
from packhouse.provenance.distributions import purl, runtime_of
from packhouse.provenance.subjects import Digests, digests_of_package
from packhouse.records import Record, canonical_json, digest_of
from packhouse.release import Package

PAYLOAD_TYPE = "application/vnd.in-toto+json"
SLSA_PROVENANCE = "https://slsa.dev/provenance/v1"
# Names, not addresses; docs/provenance.md says what they mean.
BUILD_TYPE = "urn:packhouse:build:v1"
BUILDER_ID = "urn:packhouse:builder:flow:v1"
FILES_ONLY = "urn:packhouse:files:v1"


class Subject(Record, extra="ignore"):
    """A file of the package and its digests by algorithm."""

    name: str
    digest: dict[str, str]


class Statement(Record, extra="ignore", populate_by_name=True):
    """An in-toto statement. Unknown keys are ignored, as in-toto asks."""

    statement_type: Literal["https://in-toto.io/Statement/v1"] = Field(default="https://in-toto.io/Statement/v1", alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1)
    predicate_type: str = Field(alias="predicateType")
    predicate: dict[str, Any] = {}

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file by name. Raises VerificationFailed where one has none, or is listed twice."""
        found: dict[str, str] = {}
        for subject in self.subject:
            if "sha256" not in subject.digest or subject.name in found:
                what = "is listed twice" if subject.name in found else "has no SHA-256"
                raise VerificationFailed(f"{subject.name} {what} in the statement")
            found[subject.name] = subject.digest["sha256"]
        return found

    def to_json(self) -> bytes:
        """Return the statement in canonical JSON: equal statements are equal bytes."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))


class Run(Record):
    """The flow run that published a package; times are RFC 3339."""

    flow_run: str | None = None
    started_on: str | None = None
    finished_on: str | None = None


def parse_statement(text: bytes, where: str) -> Statement:
    """Return the statement in a JSON text. Raises VerificationFailed where there is none."""
    try:
        return Statement.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise VerificationFailed(f"{where} is no in-toto statement: {place}: {first['msg']}") from error


def files_statement(files: Digests) -> Statement:
    """Return a statement that says nothing but which files a package has."""
    return Statement(subject=_subjects(files), predicate_type=FILES_ONLY)


def provenance(package: Package, packaging: Packaging, configuration: str, job: PackagingJob, run: Run) -> Statement:
    """Return the provenance of a package that was made as `packaging` says, for a job of the configuration with a digest.

    No secret is in it.
    """
    times = {"invocationId": run.flow_run, "startedOn": run.started_on, "finishedOn": run.finished_on}
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "packaging": without_secrets(packaging),
                "configuration": {"digest": {"sha256": configuration}},
            },
            "internalParameters": {"packhouse": packhouse.__version__},
            "resolvedDependencies": [*_candidates(job), _data(job), *_runtimes(job)],
        },
        "runDetails": {
            "builder": {"id": BUILDER_ID, "version": {"packhouse": packhouse.__version__}},
            "metadata": {name: value for name, value in times.items() if value is not None},
        },
    }
    return Statement(subject=_subjects(digests_of_package(package)), predicate_type=SLSA_PROVENANCE, predicate=predicate)


def configuration_digest(config: BaseModel) -> str:
    """Return the SHA-256 (hex) of a configuration, in which its secrets have no part."""
    return digest_of(without_secrets(config))


def without_secrets(value: Any) -> Any:
    """Return a configuration as plain JSON data, with asterisks for every secret in it.

    Goes through the fields and not through serialisers, of which a packaging type may have some that reveal its secrets.
    """
    if isinstance(value, SecretStr | SecretBytes | Secret):
        return WITHHELD
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return without_secrets({**fields, **(value.model_extra or {})})
    if isinstance(value, Mapping):
        return {str(key): without_secrets(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [without_secrets(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((without_secrets(item) for item in value), key=canonical_json)
    return to_jsonable_python(value)


def _subjects(files: Digests) -> tuple[Subject, ...]:
    return tuple(Subject(name=name, digest={"sha256": files[name]}) for name in sorted(files))


def _candidates(job: PackagingJob) -> Iterator[dict[str, Any]]:
    """Yield the files of all candidates: those that were not packaged had a part in the ranking too."""
    for candidate in sorted(job.candidates, key=lambda candidate: candidate.digest):
        for name, artifact in sorted(candidate.files.items()):
            yield {
                "name": f"{candidate.name}/{name}",
                "digest": {"sha256": artifact.sha256},
                "annotations": {"candidate": candidate.name, "candidateDigest": candidate.digest},
            }


def _data(job: PackagingJob) -> dict[str, Any]:
    return {"name": "evaluation data", "digest": {"sha256": job.data.sha256}}


def _runtimes(job: PackagingJob) -> Iterator[dict[str, Any]]:
    specs = sorted(accelerator.spec for accelerator in job.accelerators)
    runtimes = {spec: runtime_of(job, spec) for spec in specs}
    for distribution in sorted({item for runtime in runtimes.values() for item in runtime}):
        used_on = [spec for spec in specs if distribution in runtimes[spec]]
        yield {"name": distribution[0], "uri": purl(distribution), "annotations": {"accelerators": used_on}}
