"""The bill of materials inside a package: valid by CycloneDX's own schema, true to the job, and the same each time."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from jsonschema import Draft7Validator
from rfc3986_validator import validate_rfc3986

from packhouse.evaluation.fingerprint import Fingerprint
from packhouse.evaluation.records import Evaluation
from packhouse.packaging import PackagingJob
from packhouse.packaging.contents import Content
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.mlflow.model import MLflowModel
from packhouse.packaging.zipfile import Zipfile
from packhouse.provenance.ml_bom import ML_BOM_NAME, ml_bom
from tests.classifiers import write_classifier
from tests.packaging.test_runtime_packages import make_index
from tests.packaging_jobs import CPU, EXACT, GPU, ONE, Packing, make_packing

Json = dict[str, Any]
FIRST = f"CandidateModels/{CPU}/BestCandidateModel_1/model.onnx"


def is_uri_reference(value: object) -> bool:
    """Whether a value may be where the schema has an address: ours are ASCII, and what knows more takes seconds to import."""
    return not isinstance(value, str) or bool(validate_rfc3986(value, rule="URI_reference"))


Draft7Validator.FORMAT_CHECKER.checks("iri-reference")(is_uri_reference)


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    """Three candidates on two accelerators; not to be changed."""
    return make_packing(tmp_path_factory.mktemp("packing"))


@pytest.fixture(scope="module")
def bom(packing: Packing) -> Json:
    return bom_in(packing.zip())


def bom_in(package: Path) -> Json:
    """Return the bill of materials in a package, which must be valid."""
    if package.is_dir():
        text = (package / ML_BOM_NAME).read_text()
    else:
        with zipfile.ZipFile(package) as archive:
            text = archive.read(ML_BOM_NAME).decode()
    return validated(text)


def validated(text: str) -> Json:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    found: Json = json.loads(text)
    references = [component["bom-ref"] for component in with_parts(found["components"])]
    assert len(references) == len(set(references))
    known = {*references, found["metadata"]["component"]["bom-ref"]}
    for dependency in found["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= known
    return found


def with_parts(components: list[Json]) -> list[Json]:
    return [item for component in components for item in (component, *with_parts(component.get("components", [])))]


def by_ref(bom: Json, kind: str) -> dict[str, Json]:
    return {component["bom-ref"]: component for component in bom["components"] if component["type"] == kind}


def changed_evaluation(job: PackagingJob, name: str, **changes: Any) -> PackagingJob:
    """Return the job with changes in what a candidate did on the CPU."""
    digest = next(candidate.digest for candidate in job.candidates if candidate.name == name)

    def change(item: Evaluation) -> Evaluation:
        return item.model_copy(update=changes) if (item.candidate, item.accelerator) == (digest, CPU) else item

    return job.model_copy(update={"evaluations": tuple(map(change, job.evaluations))})


def metrics_of(bom: Json, ref: str = FIRST) -> dict[str, Json]:
    card = by_ref(bom, "machine-learning-model")[ref]["modelCard"]
    return {
        metric["type"]: {key: metric[key] for key in metric if key != "type"}
        for metric in card["quantitativeAnalysis"]["performanceMetrics"]
    }


def bom_of(job: PackagingJob) -> Json:
    """Return the valid bill of materials of a package with only the best candidate's model in it."""
    candidate = job.candidate(job.best.candidate)
    item = PackagedCandidate.of(job, job.best, job.best, model_path=FIRST, settings_path="s.json", golden_path="g.npz")
    files = {FIRST: Content(candidate.files[candidate.entry], b"")}
    return validated(json.dumps(ml_bom("points.zip", job, [item], files)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"unknown": 1}, "'unknown' was unexpected"),
        ({"externalReferences": [{"type": "website", "url": "no address"}]}, "'no address' is not valid under any"),
        ({"metadata": {"timestamp": "2026-13-01T00:00:00Z"}}, "is not a 'date-time'"),
    ],
    ids=["key", "address", "time"],
)
def test_the_schema_refuses_what_is_wrong(bom: Json, changes: Json, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        validated(json.dumps({**bom, **changes}))


def test_every_packaged_candidate_is_a_model_with_the_digest_of_its_file(packing: Packing, bom: Json) -> None:
    package = packing.zip()
    models = by_ref(bom, "machine-learning-model")
    with zipfile.ZipFile(package) as archive:
        for item in json.loads(archive.read("manifest.json"))["candidates"]:
            component = models.pop(item["model_path"])
            sha256 = hashlib.sha256(archive.read(item["model_path"])).hexdigest()
            assert component["hashes"] == [{"alg": "SHA-256", "content": sha256}]
            assert (component["name"], component["version"]) == (item["name"], item["digest"])
    assert not models


def test_model_card_has_the_values_measured_on_that_accelerator(bom: Json) -> None:
    assert metrics_of(bom) == {
        "accuracy-accuracy_score": {"value": "0.97", "slice": CPU},
        "latency-p50": {"value": "3.0", "slice": CPU},
        "latency-max": {"value": "30.0", "slice": CPU},
    }
    assert metrics_of(bom, FIRST.replace(CPU, GPU))["latency-p50"] == {"value": "0.5", "slice": GPU}


def test_intervals_are_confidence_intervals_and_units_are_kept(packing: Packing) -> None:
    measured = packing.job.evaluation(packing.job.best).metrics
    interval = {"latency-p50": measured["latency-p50"].model_copy(update={"interval": (2.9, 3.25)})}
    bom = bom_of(changed_evaluation(packing.job, EXACT, metrics={**measured, **interval}))
    expected = {"lowerBound": "2.9", "upperBound": "3.25"}
    assert metrics_of(bom)["latency-p50"] == {"value": "3.0", "slice": CPU, "confidenceInterval": expected}
    assert {"name": "packhouse:unit:latency-p50", "value": "ms"} in by_ref(bom, "machine-learning-model")[FIRST]["properties"]


def test_a_value_of_too_few_samples_is_left_out(packing: Packing) -> None:
    measured = packing.job.evaluation(packing.job.best).metrics
    unsupported = measured["latency-max"].model_copy(update={"needed_n": 1000})
    bom = bom_of(changed_evaluation(packing.job, EXACT, metrics={**measured, "latency-max": unsupported}))
    assert metrics_of(bom).keys() == {"accuracy-accuracy_score", "latency-p50"}


def test_model_card_tells_signature_task_data_and_where_it_was_measured(packing: Packing, bom: Json) -> None:
    card = by_ref(bom, "machine-learning-model")[FIRST]["modelCard"]
    parameters = card["modelParameters"]
    assert parameters["task"] == "classification"
    assert [value["format"].partition(":")[0] for value in parameters["inputs"] + parameters["outputs"]] == ["x", "y"]
    (dataset,) = parameters["datasets"]
    assert by_ref(bom, "data")[dataset["ref"]]["hashes"][0]["content"] == packing.job.data.sha256
    assert packing.job.fingerprint.cpu_model in card["considerations"]["technicalLimitations"][0]


def test_times_that_were_disturbed_are_a_limitation(packing: Packing) -> None:
    def limitations(**changes: Any) -> list[str]:
        bom = bom_of(changed_evaluation(packing.job, EXACT, **changes))
        card = by_ref(bom, "machine-learning-model")[FIRST]["modelCard"]
        found: list[str] = card["considerations"]["technicalLimitations"]
        return found

    assert len(limitations()) == 1
    assert "disturbed" in limitations(is_stable=False)[1]


def test_models_depend_on_the_runtime_and_the_libraries_that_drive_its_provider(packing: Packing) -> None:
    fingerprint = packing.job.fingerprint
    assert isinstance(fingerprint, Fingerprint)
    plugin = fingerprint.model_copy(update={"libraries": {"onnxruntime-qnn": "2.7.0+local"}})
    bom = bom_of(changed_evaluation(packing.job, EXACT, fingerprint=plugin))
    expected = [f"pkg:pypi/{fingerprint.runtime}@{fingerprint.runtime_version}", "pkg:pypi/onnxruntime-qnn@2.7.0%2Blocal"]
    assert sorted(by_ref(bom, "library")) == sorted(expected)
    assert {"ref": FIRST, "dependsOn": sorted(expected)} in bom["dependencies"]


def test_wheels_in_the_package_are_libraries_with_their_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_index(tmp_path / "index", monkeypatch)
    packing = make_packing(tmp_path, ONE)
    measured = packing.job.fingerprint.model_copy(update={"runtime": "engine", "runtime_version": "1.0"})
    packing = Packing(packing.job.model_copy(update={"fingerprint": measured}), packing.workplace)
    package = packing.zip(include_runtime_packages=True)
    bom = bom_in(package)
    libraries = by_ref(bom, "library")
    assert libraries.keys() == {"pkg:pypi/engine@1.0", "pkg:pypi/numbers-lib@2.0"}
    with zipfile.ZipFile(package) as archive:
        for library in libraries.values():
            (path,) = (item["value"] for item in library["properties"])
            assert library["hashes"][0]["content"] == hashlib.sha256(archive.read(path)).hexdigest()
    assert {"ref": "pkg:pypi/engine@1.0", "dependsOn": ["pkg:pypi/numbers-lib@2.0"]} in bom["dependencies"]


def test_files_beside_a_model_are_its_parts(tmp_path: Path) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "model.onnx", external="weights.bin")
    packing = make_packing(tmp_path, {CPU: {"model": (0.9, 1.0)}})
    (part,) = by_ref(bom_in(packing.zip()), "machine-learning-model")[FIRST]["components"]
    assert part["name"] == FIRST.replace("model.onnx", "weights.bin")
    (candidate,) = packing.job.candidates
    assert part["hashes"][0]["content"] == candidate.files["weights.bin"].sha256


def test_mlflow_model_and_models_in_mlflow_format_have_theirs(packing: Packing) -> None:
    folder = by_ref(bom_in(packing.create(MLflowModel(name="best"))), "machine-learning-model")
    assert {ref: model["name"] for ref, model in folder.items()} == {"model.onnx": EXACT}
    archive = by_ref(bom_in(packing.create(Zipfile(include_runtime_packages=False, export_in_mlflow_format=True))), "library")
    assert archive


def test_serial_number_follows_the_content_and_nothing_else(packing: Packing, bom: Json) -> None:
    assert bom_in(packing.zip()) == bom
    other = bom_of(changed_evaluation(packing.job, EXACT, is_stable=False))
    assert other["serialNumber"] != bom_of(packing.job)["serialNumber"]


def test_nothing_tells_when_or_where_the_package_was_made(packing: Packing, bom: Json) -> None:
    text = json.dumps(bom)
    assert "timestamp" not in text
    assert str(packing.workplace.store.path(packing.job.data.sha256).parents[3]) not in text
