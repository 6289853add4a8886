"""The deployment in prefect.yaml: deployed to a server, run by a worker, started through the API."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from packhouse.verification import verify_package
from tests.jobs import job, write_job
from tests.real.conftest import ROOT, Server
from tests.real.test_runs import wait_until

pytestmark = pytest.mark.real
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture(scope="module")
def deployment(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the server says of the deployment `manual`, with a worker that runs it."""
    folder = tmp_path_factory.mktemp("deployment")
    environment = {
        **os.environ,
        "PREFECT_API_URL": server.url,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PACKHOUSE_HOME": str(ROOT),
    }

    def prefect(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "prefect", "--no-prompt", *arguments]

    for arguments in (["work-pool", "create", "packhouse", "--type", "process"], ["deploy", "--all"]):
        subprocess.run(prefect(*arguments), env=environment, cwd=ROOT, check=True, capture_output=True)
    with (folder / "worker.log").open("w") as log:
        command = prefect("worker", "start", "--pool", "packhouse")
        worker = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        response = httpx.get(f"{server.url}/deployments/name/package-models/manual", timeout=60)
        response.raise_for_status()
        yield response.json()
    finally:
        worker.terminate()
        try:
            worker.wait(20)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def test_a_run_started_through_the_api_makes_two_types_of_package_and_shows_them(
    deployment: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    write_job(tmp_path)
    config = job(
        candidates={"type": "folder", "path": str(tmp_path / "candidates")},
        data={"path": str(tmp_path / "points.npz"), "labels": "label"},
        packaging=[
            {"type": "Zipfile", "name": "points", "include_runtime_packages": False},
            {"type": "MLflowModel", "name": "points-mlflow"},
        ],
        output_dir=str(tmp_path / "packages"),
    )
    run = server.post(f"deployments/{deployment['id']}/create_flow_run", {"parameters": {"config": config}})["id"]

    def state() -> Any:
        return httpx.get(f"{server.url}/flow_runs/{run}", timeout=60).json()["state"]

    wait_until(lambda: state()["type"] in TERMINAL)
    assert state()["type"] == "COMPLETED", state()["message"]
    assert len(verify_package(tmp_path / "packages" / "points.zip").models) == 2
    assert (tmp_path / "packages" / "points-mlflow" / "MLmodel").is_file()
    shown = server.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    assert {"ranking", "ranking-cpu-cpu", "decisions", "package-points-zip", "package-points-mlflow", "report"} <= {
        artifact["key"] for artifact in shown
    }


def test_the_form_of_the_deployment_can_show_every_union_and_default(deployment: dict[str, Any]) -> None:
    schema = deployment["parameter_openapi_schema"]
    assert "oneOf" not in str(schema)
    fields = schema["definitions"]["PackhouseConfig"]["properties"]
    assert fields["packaging"]["default"] == []
    assert {tuple(item) for item in fields["packaging"]["items"]["anyOf"]} == {("$ref",)}


def test_the_api_refuses_a_configuration_with_an_unknown_key(deployment: dict[str, Any], server: Server) -> None:
    body = {"parameters": {"config": job(packageing=[])}}
    response = httpx.post(f"{server.url}/deployments/{deployment['id']}/create_flow_run", json=body, timeout=60)
    assert response.status_code == httpx.codes.CONFLICT
    assert "packageing" in response.text
