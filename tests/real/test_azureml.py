"""A whole run that registers with Azure ML through a Prefect block, fails in part, and is completed from its release."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml

from packhouse.packaging.azureml.base import BLOCK_TYPE
from packhouse.packaging.inference_server.messages import read_answer, write_request
from tests.azure_workspaces import files, uploaded
from tests.fakes.azure import FakeAzure, why_unavailable
from tests.fakes.sdk import make_client
from tests.jobs import write_job
from tests.real.conftest import ROOT, Packhouse, Server

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable())),
]

SAVE = """
import sys
from blocks.azureml import AzureMLWorkspace
AzureMLWorkspace.model_validate_json(sys.stdin.read()).save(sys.argv[1], overwrite=True)
"""
EXAMPLE = ROOT / "examples" / "digits"
TYPES = ("Zipfile", "AzureMLModels", "AzureMLData")


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[FakeAzure]:
    """A subscription with one workspace."""
    with FakeAzure(tmp_path / "azure") as started:
        yield started


def save_block(packhouse: Packhouse, azure: FakeAzure, name: str) -> None:
    """Save the block of the workspace on the Prefect server."""
    principal = {"tenant_id": azure.tenant_id, "client_id": azure.client_id, "client_secret": azure.client_secret}
    block = {
        "subscription_id": azure.subscription_id,
        "resource_group": azure.resource_group,
        "workspace_name": azure.workspace,
        "auth": {"type": "service_principal", **principal},
        "polling_interval_s": 1,
    }
    subprocess.run(
        [sys.executable, "-c", SAVE, name], input=json.dumps(block).encode(), env=packhouse.environment, cwd=ROOT, check=True
    )


def secrets_in(azure: FakeAzure, *folders: Path) -> list[Path]:
    """Return the files that have a secret in clear."""
    planted = [secret.encode() for secret in azure.secrets]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(secret in path.read_bytes() for secret in planted)]


def test_a_run_registers_what_it_can_and_the_rest_from_its_release_and_nothing_secret_is_written(
    packhouse: Packhouse, server: Server, azure: FakeAzure, tmp_path: Path
) -> None:
    save_block(packhouse, azure, "default")
    packhouse.environment.update({name: value for name, value in azure.environment.items() if not name.startswith("AZURE_")})
    config = write_job(tmp_path / "job", packaging=[{"type": kind, "name": "points"} for kind in TYPES])
    folder = tmp_path / "job" / "packages"
    azure.fail("PUT", "/models/", status=403, code="AuthorizationFailed", message="no write action")
    release = packhouse.release(config, code=3)
    failures = {delivery["type"]: delivery["failure"] for delivery in release["deliveries"]}
    assert [kind for kind in TYPES if failures[kind]] == ["AzureMLModels"]
    assert "give the identity the role AzureML Data Scientist" in failures["AzureMLModels"]["reason"]
    assert not (folder / "points.azureml-models").exists()
    assert set(azure.data) == {"points_cpu-cpu_1", "points_cpu-cpu_2"}

    (delivery,) = json.loads(packhouse.run("register", folder, "--type", "azuremlmodels", "--json"))
    assert [Path(place).name for place in delivery["registration"]["places"]] == ["1", "1", "points.azureml-models"]
    for name, versions in azure.models.items():
        prefix = versions["1"]["modelUri"].partition("/paths/")[2] + "/"
        uploaded = {blob.removeprefix(prefix): azure.blob(blob) for blob in azure.blobs() if blob.startswith(prefix)}
        published = {path.name: path.read_bytes() for path in (folder / "points.azureml-models" / name).iterdir()}
        assert uploaded == published
        assert versions["1"]["tags"]["packhouse.flow_run"] != release["flow_run"]
    stored = json.loads((folder / "release.json").read_text())
    assert [item["type"] for item in stored["deliveries"] if item["registration"]] == [
        "Zipfile",
        "AzureMLData",
        "AzureMLModels",
    ]

    requests = len([request for request in azure.requests if request.method == "PUT"])
    packhouse.run("register", folder, "--type", "AzureMLModels")
    assert len([request for request in azure.requests if request.method == "PUT"]) == requests
    assert azure.violations == []
    assert secrets_in(azure, folder, packhouse.results.parent, server.home) == []


@pytest.mark.timeout(1500)
def test_the_example_is_registered_as_models_and_data_and_deployed_in_one_run(
    packhouse: Packhouse, server: Server, azure: FakeAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_block(packhouse, azure, "default")
    packhouse.environment.update({name: value for name, value in azure.environment.items() if not name.startswith("AZURE_")})
    subprocess.run([sys.executable, EXAMPLE / "make_candidates.py", tmp_path], check=True)
    document = yaml.safe_load((EXAMPLE / "packhouse.yaml").read_text())
    machines = {"endpoint_name": "digits", "deployment_name": "first", "instance_type": "Standard_DS3_v2"}
    deployment = {"type": "AzureMLDeployment", "name": "digits", "model_name": "digits", "deployment_config": machines}
    document["packaging"] = [*({"type": kind, "name": "digits"} for kind in TYPES[1:]), deployment]
    (tmp_path / "packhouse.yaml").write_text(yaml.safe_dump(document))

    release = packhouse.release(tmp_path / "packhouse.yaml")

    ranked = release["job"]["by_accelerator"]["cpu-cpu"]["ranked"]
    names = {f"digits_cpu-cpu_{item['rank']}" for item in ranked}
    folder = tmp_path / "packages"
    assert set(azure.models) == names | {"digits"}
    assert set(azure.data) == names
    for name in sorted(names):
        model, data = azure.models[name]["1"], azure.data[name]["1"]
        assert uploaded(azure, model["modelUri"]) == files(folder / "digits.azureml-models" / name)
        assert uploaded(azure, data["dataUri"]) == files(folder / "digits.azureml-data" / name)
        assert model["tags"]["packhouse.flow_run"] == release["flow_run"]
    assert uploaded(azure, azure.models["digits"]["1"]["modelUri"]) == files(folder / "digits.azureml-deployment" / "model")
    endpoint = azure.endpoints["digits"]
    assert endpoint.traffic == {"first": 100}
    assert endpoint.deployments["first"].tracked["tags"]["packhouse.rank"] == "1"
    with np.load(folder / "digits.azureml-deployment" / "model" / "golden_samples.npz") as golden:
        arrays = {key: golden[key] for key in golden.files}
    told, expected = predicted(azure, arrays, folder / "digits.azureml-deployment" / "model", tmp_path, monkeypatch)
    assert told.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(told[name], values, rtol=1e-6)
    assert azure.violations == []
    assert secrets_in(azure, folder, packhouse.results.parent, server.home) == []


def predicted(
    azure: FakeAzure, golden: dict[str, Any], model: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the endpoint says to its users of one golden sample, and what ONNX Runtime says of it here."""
    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    sample = golden["input_0"]
    names = [output.name for output in session.get_outputs() if output.type.startswith("tensor(")]
    expected = dict(zip(names, session.run(names, {value.name: sample}), strict=True))
    body, _ = write_request({value.name: sample}, names, as_bytes=False)
    (scratch / "request.json").write_bytes(body)
    for name, setting in azure.environment.items():
        monkeypatch.setenv(name, setting)
    # The deployment is named, because the SDK keeps that of its last call in a header that all calls of a process share.
    invoke = make_client(azure).online_endpoints.invoke
    answer = invoke("digits", deployment_name="first", request_file=str(scratch / "request.json"))
    return read_answer(answer.encode(), None), expected


def test_a_block_that_is_not_there_is_named_and_the_package_can_be_registered_later(
    packhouse: Packhouse, tmp_path: Path
) -> None:
    packaging = {"type": "AzureMLModels", "name": "points", "workspace": "missing"}
    release = packhouse.release(write_job(tmp_path, packaging=packaging), code=3)
    assert f"there is no block '{BLOCK_TYPE}/missing'" in release["deliveries"][0]["failure"]["reason"]
    assert release["deliveries"][0]["package"]


def test_registering_what_a_release_has_not_is_refused_with_what_it_has(packhouse: Packhouse, tmp_path: Path) -> None:
    packhouse.release(write_job(tmp_path, packaging={"type": "AzureMLModels", "workspace": None}))
    packhouse.run("register", tmp_path / "packages", "--type", "AzureMLData", code=2)
    assert (tmp_path / "packages" / "OutputModels.azureml-models").is_dir()


def test_no_package_is_made_of_a_candidate_that_is_damaged_in_the_store_until_a_run_receives_it_anew(
    packhouse: Packhouse, tmp_path: Path
) -> None:
    config = write_job(tmp_path, packaging={"type": "Zipfile", "name": "first", "include_runtime_packages": False})
    release = packhouse.release(config)
    (model,) = release["job"]["candidates"][0]["files"].values()
    (blob,) = packhouse.results.rglob(model["sha256"])
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    other = {"type": "Zipfile", "name": "second", "include_runtime_packages": False}
    (tmp_path / "other").mkdir()
    elsewhere = write_job(tmp_path / "other", packaging=other)
    said = packhouse.run("register", tmp_path / "packages", "--type", "Zipfile", "--config", elsewhere, code=2)
    assert not (tmp_path / "packages" / "second.zip").exists(), said

    packhouse.release(config)
    packhouse.run("register", tmp_path / "packages", "--type", "Zipfile", "--config", elsewhere)
    assert (tmp_path / "packages" / "second.zip").is_file()
