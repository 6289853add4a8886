"""A deployment before anything is asked of Azure: what is refused, what is in its package, and its script run here."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from packhouse.artifacts import measure
from packhouse.config import load_config
from packhouse.errors import InputError, PackagingFailed, VerificationFailed
from packhouse.packaging.azureml import opened
from packhouse.packaging.azureml.batch_model import BatchModel
from packhouse.packaging.azureml.deployment import AzureMLDeployment
from packhouse.packaging.azureml.environment import IMAGE
from packhouse.packaging.manifest import Manifest
from packhouse.plan import prepare
from packhouse.verification import verify_package
from packhouse.verification.payload import Payload
from packhouse.verification.score import score
from packhouse.verification.validate import validate
from tests.jobs import write_job
from tests.packaging_jobs import CPU, EXACT, GPU, Grades, Packing, make_packing

RIGHT: Grades = {CPU: {EXACT: (1.0, 3.0)}}
ONLINE = {"instance_type": "Standard_DS3_v2"}
BATCH = {"compute": "cpu-cluster"}
SERVER = {"type": "AzureMLBatch"}
KINDS = pytest.mark.parametrize("is_online", [True, False], ids=["online", "batch"])


def deployment(is_online: bool = True, **settings: Any) -> AzureMLDeployment:
    """Return the configuration of a deployment, online or batch."""
    machines = ONLINE if is_online else BATCH
    kind = {} if is_online else {"model_package": {"inferencing_server": SERVER}}
    return AzureMLDeployment(**{"deployment_config": machines, **kind, **settings})


def own_script(folder: Path, text: str = "def init(): ...\ndef run(data): return data\n") -> dict[str, Any]:
    """Write a scoring script, and return the server that has it."""
    (folder / "code").mkdir()
    (folder / "code" / "own.py").write_text(text)
    return {"code_folder": folder / "code", "scoring_script": "own.py"}


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    """A job with one candidate, whose grade is that which it has."""
    return make_packing(tmp_path_factory.mktemp("job"), RIGHT)


def test_an_olive_configuration_is_taken_as_it_is() -> None:
    written = {
        "type": "AzureMLDeployment",
        "model_description": "sorts points",
        "model_package": {
            "target_environment": "olive-target-environment",
            "inferencing_server": {"type": "AzureMLOnline", "code_folder": "code", "scoring_script": "score.py"},
            "base_environment_id": "azureml:olive-aml-packaging:1",
            "environment_variables": None,
        },
        "deployment_config": {"instance_type": "Standard_DS3_v2", "instance_count": "2", "extra_config": None},
    }
    made = AzureMLDeployment.model_validate(written)
    assert made.description == "sorts points"
    assert (made.model_name, made.model_version) == ("olive-deployment-model", "1")
    config = made.deployment_config
    assert (config.endpoint_name, config.deployment_name) == ("olive-default-endpoint", "olive-default-deployment")
    assert (config.instance_count, config.mini_batch_size) == (2, 10)
    assert AzureMLDeployment.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workspace": ""}, "is no Azure ML workspace"),
        ({"registry_name": "shared"}, "registry_name is not supported"),
        ({"model_name": "ü"}, "cannot be the name of a model"),
        ({"model_version": "1.2"}, "cannot be a version"),
        ({"traffic": []}, "rising percentages"),
        ({"traffic": [50, 10]}, "rising percentages"),
        ({"traffic": [0, 100]}, "rising percentages"),
        ({"traffic": [10, 50], "old_deployments": "delete"}, "let traffic end with that"),
        ({"traffic": "none", "old_deployments": "delete"}, "let traffic end with that"),
        ({"deployment_config": {**ONLINE, "endpoint_name": "x"}}, "3 to 32 letters"),
        ({"deployment_config": {**ONLINE, "deployment_name": "1st"}}, "begin with a letter"),
        ({"deployment_config": {**ONLINE, "deployment_name": "first-"}}, "do not end with a dash"),
        ({"deployment_config": {"instance_type": "Standard DS3"}}, "instance_type"),
        ({"deployment_config": {"instance_type": ""}}, "instance_type"),
        ({"deployment_config": {**ONLINE, "compute": "my cluster"}}, "compute"),
        ({"model_package": {"environment_variables": {"": "x"}}}, "cannot be the name of a variable"),
        ({"model_package": {"environment_variables": {"TWO WORDS": "x"}}}, "cannot be the name of a variable"),
        ({"model_package": {"target_environment_version": "a b"}}, "cannot be a version"),
        ({"step_interval_s": float("inf")}, "finite number"),
        ({"deployment_config": {**ONLINE, "instance_count": 0}}, "greater than or equal to 1"),
        ({"deployment_config": {**ONLINE, "extra_config": {"output_action": "append_row"}}}, "extra_config.output_action"),
        (
            {"deployment_config": {**ONLINE, "extra_config": {"request_settings": {"request_timeout_ms": 0}}}},
            "extra_config.request_settings.request_timeout_ms",
        ),
        ({"model_package": {"base_environment_id": "olive"}}, "azureml:<name>:<version>"),
        ({"model_package": {"target_environment": "a b"}}, "cannot be the name of an environment"),
        ({"model_package": {"inferencing_server": {"code_folder": "code"}}}, "go together"),
        ({"model_package": {"inferencing_server": {"code_folder": "c", "scoring_script": "../x.py"}}}, "no Python file"),
        ({"environment": {"image": "ubuntu"}}, "can be another image tomorrow"),
        ({"environment": {"build_context": "x", "image": "ubuntu:24.04"}}, "has its own Dockerfile"),
        (
            {"environment": {"conda_file": "c.yaml"}, "model_package": {"base_environment_id": "azureml:a:1"}},
            "leave out environment, or that",
        ),
        ({"smoke_test": {"payload": "x.json"}}, "for a scoring script of your own"),
        (
            {"strategy": "model_package", "model_package": {"target_environment_version": 2}},
            "only if its name has letters, digits and underscores",
        ),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_the_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        deployment(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"traffic": [10, 100]}, "has one default deployment, and no percentages"),
        ({"strategy": "model_package"}, "for online endpoints only"),
        ({"deployment_config": {**BATCH, "extra_config": {"liveness_probe": {}}}}, "liveness_probe"),
    ],
)
def test_what_a_batch_endpoint_has_not_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        deployment(is_online=False, **settings)


def test_a_batch_script_of_the_users_needs_a_file_to_score() -> None:
    server = {**SERVER, "code_folder": "code", "scoring_script": "own.py"}
    with pytest.raises(ValidationError, match=r"give smoke_test.payload"):
        deployment(is_online=False, model_package={"inferencing_server": server})
    assert deployment(is_online=False, model_package={"inferencing_server": server}, smoke_test=None)


@KINDS
def test_machines_are_asked_for_before_any_work(is_online: bool) -> None:
    (problem,) = deployment(is_online, deployment_config={}).problems()
    assert problem.where == f"deployment_config.{'instance_type' if is_online else 'compute'}"
    assert "is missing" in problem.what


def test_files_that_are_wrong_are_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text("dependencies: 3")
    (tmp_path / "payload.json").write_text("{")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.py").write_text("def init(): ...")
    (tmp_path / "code" / ".amlignore").touch()
    packaging = {
        "type": "AzureMLDeployment",
        "deployment_config": {},
        "model_package": {"inferencing_server": {"code_folder": "code", "scoring_script": "own.py"}},
        "environment": {"conda_file": "conda.yaml"},
        "smoke_test": {"payload": "payload.json"},
        "accelerator": "npu-x",
    }
    with pytest.raises(InputError) as refused:
        prepare(load_config(write_job(tmp_path, packaging=packaging)))
    found = {problem.where: problem.what for problem in refused.value.problems}
    assert "defines no run()" in found["packaging[0].model_package.inferencing_server.scoring_script"]
    assert ".amlignore" in found["packaging[0].model_package.inferencing_server.code_folder"]
    assert "no list of dependencies" in found["packaging[0].environment.conda_file"]
    assert found["packaging[0]"] == "names the accelerator 'npu-x', which is not there"
    assert "is missing" in found["packaging[0].deployment_config.instance_type"]
    assert "is no JSON" in found["packaging[0].smoke_test.payload"]


@pytest.mark.parametrize(
    "text",
    [
        "from mine import init, run",
        "import mine\ninit, run = mine.init, mine.run",
        "try:\n    def init(): ...\nfinally:\n    async def run(data): ...",
        "from mine import *",
    ],
)
def test_init_and_run_may_come_from_anywhere(tmp_path: Path, text: str) -> None:
    assert deployment(model_package={"inferencing_server": own_script(tmp_path, text)}).problems() == []


@pytest.mark.parametrize("text", ["def init(:", "\0"])
def test_a_script_that_is_no_python_is_refused(tmp_path: Path, text: str) -> None:
    made = deployment(model_package={"inferencing_server": own_script(tmp_path, text)})
    assert any("is no Python" in problem.what for problem in made.problems())


@KINDS
def test_a_package_has_model_code_and_environment_and_is_the_same_wherever_it_is_made(
    packing: Packing, is_online: bool, tmp_path: Path
) -> None:
    packaging = deployment(is_online)
    folder, again = packing.create(packaging), make_packing(tmp_path, RIGHT).create(packaging)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"model/model.onnx", "model/manifest.json", "code/score.py", "environment/conda.yaml", "deployment.json"} <= names
    assert (folder / "manifest.json").read_bytes() == (again / "manifest.json").read_bytes()
    assert verify_package(folder).files
    described = json.loads((folder / "deployment.json").read_text())
    assert described["environment"] == {"image": IMAGE, "files": "environment"}
    (pip,) = (item["pip"] for item in yaml.safe_load((folder / "environment/conda.yaml").read_text())["dependencies"][2:])
    runtime = "==".join(packing.job.runtime_on(CPU))
    assert runtime in pip
    assert any(item.startswith("azureml-inference-server-http==" if is_online else "azureml-core") for item in pip)


def test_the_users_own_files_are_in_it_and_change_it(packing: Packing, tmp_path: Path) -> None:
    server = own_script(tmp_path)
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM ubuntu:24.04\n")
    packaging = deployment(model_package={"inferencing_server": server}, environment={"build_context": tmp_path / "context"})
    assert packaging.problems() == []
    folder, before = packing.create(packaging), packaging.depends_on()
    assert (folder / "code" / "own.py").read_text().startswith("def init")
    assert (folder / "environment" / "Dockerfile").read_text() == "FROM ubuntu:24.04\n"
    (tmp_path / "code" / "own.py").write_text("def init(): ...\ndef run(data): return 1\n")
    assert packaging.depends_on() != before


def test_a_link_in_the_code_is_not_followed(packing: Packing, tmp_path: Path) -> None:
    packaging = deployment(model_package={"inferencing_server": own_script(tmp_path)})
    (tmp_path / "code" / "secret").symlink_to("/etc/passwd")
    with pytest.raises(PackagingFailed, match=r"secret cannot be packed: it is a link"):
        packing.create(packaging)


def test_the_best_of_a_chosen_accelerator_is_packed(tmp_path: Path) -> None:
    folder = make_packing(tmp_path).create(deployment(accelerator=GPU))
    assert json.loads((folder / "manifest.json").read_text())["candidates"][0]["accelerator"] == GPU
    with pytest.raises(PackagingFailed, match="nothing is ranked on the accelerator 'npu-x'; choose one of cpu-cpu, gpu-cuda"):
        make_packing(tmp_path / "other").create(deployment(accelerator="npu-x"))


def test_a_plan_says_what_is_asked_of_azure_and_warns_of_a_preview() -> None:
    plan = deployment(traffic=[10, 100]).plan()
    assert "the online endpoint olive-default-endpoint" in plan
    assert "may become another image" in plan
    assert "warning: models.package is a preview" in deployment(strategy="model_package").plan()
    calls = deployment(traffic=[10, 100], strategy="model_package").remote_calls()
    assert any(call.startswith("POST models/olive-deployment-model/versions/1/package") for call in calls)
    assert any("2 times" in call for call in calls)
    assert deployment(workspace=None).remote_calls() == ()


@pytest.mark.real
@KINDS
def test_the_generated_script_gives_what_was_evaluated(packing: Packing, is_online: bool) -> None:
    packaging = deployment(is_online)
    with packaging.open(packing.create(packaging), packing.job, packing.workplace) as opened:
        (validated,) = validate(opened, packing.job, packing.workplace.store).models
        scored = score(opened, packing.job, packing.workplace.store)
    assert validated.difference == 0
    assert "its scoring script" in validated.environment
    assert [metric.packaged for metric in scored.metrics] == [1.0]


@pytest.mark.real
def test_a_long_path_of_temporary_files_leaves_room_for_the_socket(
    packing: Packing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    packaging = deployment()
    with packaging.open(packing.create(packaging), packing.job, packing.workplace) as opened:
        assert not list(folder.iterdir())
        (validated,) = validate(opened, packing.job, packing.workplace.store).models
    assert validated.difference == 0


@pytest.mark.real
@KINDS
def test_a_batch_that_the_accelerator_fixes_is_kept_to(tmp_path: Path, is_online: bool) -> None:
    packing = make_packing(tmp_path, RIGHT, accelerators=[{"device": "cpu", "dimensions": {"n": 4}}])
    packaging = deployment(is_online)
    with packaging.open(packing.create(packaging), packing.job, packing.workplace) as opened:
        scored = score(opened, packing.job, packing.workplace.store)
    assert [metric.packaged for metric in scored.metrics] == [1.0]


def test_samples_that_json_cannot_hold_are_told_before_a_batch_job_runs(packing: Packing, tmp_path: Path) -> None:
    stored = Payload.of(packing.job, packing.workplace.store)
    with np.load(stored.path) as samples:
        arrays = {name: samples[name].copy() for name in samples.files}
    (key,) = stored.input_keys.values()
    arrays[key][0] = np.nan
    np.savez(tmp_path / "points.npz", **arrays)
    manifest = Manifest.model_validate_json((packing.create(deployment(is_online=False)) / "manifest.json").read_bytes())
    (candidate,) = packing.job.candidates
    model = BatchModel(manifest.candidates[0], "a job", candidate, lambda *_: pytest.fail("a job ran"), tmp_path)
    with pytest.raises(VerificationFailed, match=r"not finite.*→ deploy online"):
        model.prepare(replace(stored, path=tmp_path / "points.npz"), (1, 3))


@pytest.mark.real
def test_a_batch_script_that_does_not_end_is_stopped(packing: Packing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "BATCH_TIMEOUT_S", 0.01)
    packaging = deployment(is_online=False)
    with (
        packaging.open(packing.create(packaging), packing.job, packing.workplace) as package,
        pytest.raises(VerificationFailed, match=r"its scoring script did not end within 0\.01 s"),
    ):
        validate(package, packing.job, packing.workplace.store)


@pytest.mark.real
@KINDS
def test_a_generated_script_that_was_broken_is_not_let_through(packing: Packing, is_online: bool) -> None:
    packaging = deployment(is_online)
    folder = packing.create(packaging)
    script = folder / "code" / "score.py"
    script.write_text(script.read_text().replace("(serving,) =", "raise RuntimeError('no seeds')\n    (serving,) ="))
    manifest = folder / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"]["code/score.py"] = {"sha256": measure(script).sha256, "size_bytes": script.stat().st_size}
    manifest.write_text(json.dumps(document))
    opening = packaging.open(folder, packing.job, packing.workplace)
    with pytest.raises(VerificationFailed, match=r"its (scoring script|server).*RuntimeError: no seeds"), opening as opened:
        validate(opened, packing.job, packing.workplace.store)
