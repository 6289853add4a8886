"""The provenance of a package: in-toto's shape, what was put in and how it was made, and never a secret."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, Secret, SecretBytes, SecretStr, field_serializer

import packhouse
from packhouse.artifacts import measure
from packhouse.config import PackhouseConfig
from packhouse.config.loading import parse_config
from packhouse.packaging import Packaging, PackagingJob, Workplace
from packhouse.packaging.zipfile import Zipfile
from packhouse.provenance.statement import Run, Statement, configuration_digest, parse_statement, provenance, without_secrets
from packhouse.provenance.subjects import digests_of, digests_of_package
from packhouse.records import Record, digest_of
from packhouse.release import Package
from tests.jobs import job
from tests.packaging_jobs import CPU, EXACT, GPU, Packing, make_packing

Json = dict[str, Any]
PLANTED = "hunter2-planted"
RUN = Run(flow_run="3f169608", started_on="2026-01-02T03:04:05+00:00", finished_on="2026-01-02T03:04:06+00:00")
ZIP = Zipfile(name="points", include_runtime_packages=False)


class Token(Record):
    """A setting below a setting."""

    value: SecretStr = SecretStr(PLANTED)


class Guarded(Packaging):
    """A packaging type with secrets of every kind, whose serialiser gives one of them away."""

    type: str = "Guarded"
    password: SecretStr = SecretStr(PLANTED)
    key: SecretBytes = SecretBytes(PLANTED.encode())
    number: Secret[str] = Secret(PLANTED)
    tokens: tuple[Token, ...] = (Token(),)
    named: dict[str, SecretStr] = {"token": SecretStr(PLANTED)}
    place: Path = Field(default=Path("here"))

    @field_serializer("password")
    def _reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()

    def plan(self) -> str:
        """Say nothing."""
        return ""

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Make nothing."""
        raise NotImplementedError


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    """Three candidates on two accelerators; not to be changed."""
    return make_packing(tmp_path_factory.mktemp("packing"))


@pytest.fixture(scope="module")
def config() -> PackhouseConfig:
    return parse_config(job())


@pytest.fixture(scope="module")
def package(packing: Packing) -> Path:
    return packing.create(ZIP)


def as_published(path: Path) -> Package:
    return Package(type="Zipfile", name=path.name, files={path.name: measure(path)})


@pytest.fixture(scope="module")
def statement(packing: Packing, config: PackhouseConfig, package: Path) -> Json:
    found: Json = json.loads(provenance(as_published(package), ZIP, configuration_digest(config), packing.job, RUN).to_json())
    return found


def test_statement_has_in_totos_shape_and_slsas_predicate(statement: Json) -> None:
    assert statement.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = statement["predicate"]["buildDefinition"]
    assert definition.keys() == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    for dependency in definition["resolvedDependencies"]:
        assert {"uri", "digest"} & dependency.keys()
        assert all(len(value) == 64 for value in dependency.get("digest", {}).values())


def test_subject_is_the_package_as_it_is_published(statement: Json, package: Path) -> None:
    assert statement["subject"] == [{"name": "points.zip", "digest": {"sha256": measure(package).sha256}}]


def test_subjects_of_a_folder_are_its_files_under_the_folders_own_name(tmp_path: Path) -> None:
    (tmp_path / "best" / "best").mkdir(parents=True)
    names = ["MLmodel", "best/MLmodel"]
    for name in names:
        (tmp_path / "best" / name).write_text(name)
    files = {f"best/{name}": measure(tmp_path / "best" / name) for name in names}
    published = digests_of_package(Package(type="MLflowModel", name="best", files=files))
    assert published == {name: artifact.sha256 for name, artifact in files.items()}
    assert published == digests_of(tmp_path / "best")


def test_external_parameters_are_the_packaging_and_the_digest_of_the_whole_configuration(
    statement: Json, config: PackhouseConfig
) -> None:
    parameters = statement["predicate"]["buildDefinition"]["externalParameters"]
    assert parameters["packaging"] == ZIP.model_dump(mode="json")
    assert parameters["configuration"]["digest"]["sha256"] == digest_of(config.model_dump(mode="json"))
    changed = config.model_copy(update={"baseline": "another"})
    assert configuration_digest(changed) != parameters["configuration"]["digest"]["sha256"]


def test_dependencies_are_all_candidates_the_data_and_the_runtimes(packing: Packing, statement: Json) -> None:
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    by_name = {dependency["name"]: dependency for dependency in dependencies}
    for candidate in packing.job.candidates:
        found = by_name.pop(f"{candidate.name}/{candidate.entry}")
        assert found["digest"]["sha256"] == candidate.files[candidate.entry].sha256
        assert found["annotations"] == {"candidate": candidate.name, "candidateDigest": candidate.digest}
    assert by_name.pop("evaluation data")["digest"]["sha256"] == packing.job.data.sha256
    runtime, version = packing.job.runtime_on(CPU)
    ((name, found),) = by_name.items()
    assert (name, found["uri"]) == (runtime, f"pkg:pypi/{runtime}@{version}")
    assert found["annotations"] == {"accelerators": [CPU, GPU]}


def test_run_and_builder_are_told_and_what_is_not_known_of_the_run_is_left_out(
    packing: Packing, config: PackhouseConfig, package: Path, statement: Json
) -> None:
    details = statement["predicate"]["runDetails"]
    times = {"startedOn": RUN.started_on, "finishedOn": RUN.finished_on}
    assert details["metadata"] == {"invocationId": RUN.flow_run, **times}
    assert details["builder"]["version"] == {"packhouse": packhouse.__version__}
    unknown = provenance(as_published(package), ZIP, configuration_digest(config), packing.job, Run())
    assert unknown.predicate["runDetails"]["metadata"] == {}


def test_no_secret_is_in_the_provenance_whatever_serialisers_reveal(packing: Packing, config: PackhouseConfig) -> None:
    guarded = Guarded()
    assert PLANTED in guarded.model_dump_json()
    package = Package(type="Guarded", name="guarded", files={"guarded": packing.job.data})
    secretive = config.model_copy(update={"packaging": (guarded,)})
    text = provenance(package, guarded, configuration_digest(secretive), packing.job, RUN).to_json().decode()
    assert PLANTED not in text
    parameters = json.loads(text)["predicate"]["buildDefinition"]["externalParameters"]
    hidden = "*" * 10
    assert parameters["packaging"] == {
        "type": "Guarded",
        "name": "OutputModels",
        "password": hidden,
        "key": hidden,
        "number": hidden,
        "tokens": [{"value": hidden}],
        "named": {"token": hidden},
        "place": "here",
    }


def test_a_secret_has_no_part_in_the_digest_of_the_configuration() -> None:
    """A digest of few possible secrets would tell which of them it is."""
    assert without_secrets(Guarded(password=SecretStr("another"))) == without_secrets(Guarded())


def test_equal_statements_are_equal_bytes_and_are_read_back(packing: Packing, config: PackhouseConfig, package: Path) -> None:
    first, second = (provenance(as_published(package), ZIP, configuration_digest(config), packing.job, RUN) for _ in range(2))
    assert first.to_json() == second.to_json()
    assert parse_statement(first.to_json(), "it") == first
    assert isinstance(first, Statement)


def test_names_and_values_that_are_not_secret_are_kept(packing: Packing, statement: Json) -> None:
    assert EXACT in json.dumps(statement)
    assert without_secrets({"a": frozenset({2, 1}), "b": (Path("x"), None, 1.5)}) == {"a": [1, 2], "b": ["x", None, 1.5]}
