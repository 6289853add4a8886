"""Batch endpoints of the fake Azure, driven by nothing but the unmodified SDK: jobs that really score what was uploaded."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.azure import FakeAzure, ServiceError, batch_driver, why_unavailable
from tests.fakes.azure.jobs import ENDED
from tests.fakes.sdk import (
    BATCH_CONDA,
    BATCH_PACKAGES,
    make_environment,
    make_model,
    tripling_model,
    write_folder,
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable())),
    pytest.mark.filterwarnings("ignore"),
]

SCORE = """
import json, os, pathlib, time
import numpy, onnxruntime

def init():
    global session
    [path] = pathlib.Path(os.environ["AZUREML_MODEL_DIR"]).rglob("*.onnx")
    session = onnxruntime.InferenceSession(path)
    print("started")

def run(mini_batch):
    print("files in this mini batch:", len(mini_batch))
    found = []
    for path in mini_batch:
        x = json.loads(pathlib.Path(path).read_text())
        if x == "bruised":
            raise ValueError("no use")
        if x == "slow":
            time.sleep(60)
        y = session.run(None, {"x": numpy.array([x], dtype="float32")})[0].tolist()
        found.append([os.path.basename(path), *y])
    return found
"""
# Scripts that cannot score, with what their logs have to say; the names are also those of their endpoints.
FAULTY = {
    "no-init": ("def init():\n    raise RuntimeError('no seeds')\ndef run(mini_batch):\n    return mini_batch\n", "no seeds"),
    "no-import": ("import pomology\ndef init():\n    pass\ndef run(mini_batch):\n    return mini_batch\n", "pomology"),
    "no-run": ("def init():\n    pass\ndef run(mini_batch):\n    raise RuntimeError('no juice')\n", "no juice"),
    "no-list": ("def init():\n    pass\ndef run(mini_batch):\n    return len(mini_batch)\n", "must return a list"),
}
LOG = "user_logs/std_log_0.txt"
JOB_TIMEOUT_S = 60
Deploy = Callable[..., str]


@pytest.fixture
def deploy(client: Any, tmp_path: Path) -> Deploy:
    """Make a batch endpoint with a default deployment of a model that triples its input; return the endpoint's name."""

    def make(
        endpoint: str,
        score: str = SCORE,
        environment: str = "scoring",
        packages: list[str] = BATCH_PACKAGES,
        **settings: Any,
    ) -> str:
        from azure.ai.ml.entities import BatchEndpoint, CodeConfiguration, ModelBatchDeployment, ModelBatchDeploymentSettings

        client.batch_endpoints.begin_create_or_update(BatchEndpoint(name=endpoint)).result()
        model = write_folder(tmp_path / "tripling", {"model.onnx": tripling_model()})
        code = write_folder(tmp_path / "code", {"score.py": score.encode()})
        conda = {**BATCH_CONDA, "dependencies": ["python=3.11", "pip", {"pip": packages}]}
        deployment = ModelBatchDeployment(
            name="nightly",
            endpoint_name=endpoint,
            model=client.models.create_or_update(make_model(model, "tripling-in-batches")).id,
            environment=client.environments.create_or_update(make_environment(environment, conda=conda)).id,
            code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
            compute="cpu-cluster",
            settings=ModelBatchDeploymentSettings(**{"mini_batch_size": 10, **settings}),
        )
        client.batch_deployments.begin_create_or_update(deployment).result()
        made = client.batch_endpoints.get(endpoint)
        made.defaults.deployment_name = "nightly"
        client.batch_endpoints.begin_create_or_update(made).result()
        return endpoint

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five files to score."""
    return write_folder(tmp_path / "harvest", {f"{name}.json": json.dumps([name, 2]).encode() for name in range(5)})


def invoke(client: Any, endpoint: str, path: Path | str, kind: str = "uri_folder", **others: Any) -> Any:
    """Start a job. The deployment is named, because the SDK keeps that of its last call in a header that all calls share."""
    from azure.ai.ml import Input

    return client.batch_endpoints.invoke(endpoint, deployment_name="nightly", input=Input(type=kind, path=str(path)), **others)


def wait(client: Any, job: Any) -> str:
    """Return the status in which a job ends."""
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while time.monotonic() < deadline:
        if (status := client.jobs.get(job.name).status) in ENDED:
            return str(getattr(status, "value", status))
        time.sleep(0.1)
    raise TimeoutError(job.name)


def predictions(client: Any, job: Any, folder: Path) -> list[str]:
    """Download what a job predicted."""
    client.jobs.download(job.name, output_name="score", download_path=folder)
    return (folder / "named-outputs" / "score" / "predictions.csv").read_text().splitlines()


def log(client: Any, job: Any, folder: Path) -> str:
    """Download the log of the step that scored."""
    [step] = client.jobs.list(parent_job_name=job.name)
    client.jobs.download(step.name, download_path=folder)
    return (folder / "artifacts" / LOG).read_text()


def test_job_scores_every_file_of_an_uploaded_folder_in_mini_batches(
    azure: FakeAzure, client: Any, deploy: Deploy, folder: Path, tmp_path: Path
) -> None:
    endpoint = deploy("quinces", mini_batch_size=2)
    job = invoke(client, endpoint, folder)
    assert wait(client, job) == "Completed"
    scored = [[f"{name}.json", [3.0 * name, 6.0]] for name in range(5)]
    assert predictions(client, job, tmp_path / "predicted") == [str(row) for row in scored]
    written = log(client, job, tmp_path / "log").splitlines()
    assert written == ["started", *(f"files in this mini batch: {count}" for count in (2, 2, 1))]
    assert [found.name for found in client.batch_endpoints.list_jobs(endpoint)] == [job.name]
    assert [found.name for found in client.batch_deployments.list_jobs(endpoint, name="nightly")] == [job.name]
    assert f"azureml/{job.name}/score/predictions.csv" in azure.blobs()


def test_job_is_streamed_to_its_end(client: Any, deploy: Deploy, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = invoke(client, deploy("peaches"), folder)
    client.jobs.stream(job.name)
    assert "files in this mini batch: 5" in capsys.readouterr().out


def test_job_takes_a_file_or_a_data_asset_and_writes_where_it_is_told(
    azure: FakeAzure, client: Any, deploy: Deploy, folder: Path, tmp_path: Path
) -> None:
    from azure.ai.ml import Output
    from azure.ai.ml.entities import Data

    endpoint = deploy("cherries")
    job = invoke(client, endpoint, folder / "3.json", "uri_file")
    assert wait(client, job) == "Completed"
    assert predictions(client, job, tmp_path / "of-a-file") == ["['3.json', [9.0, 6.0]]"]

    asset = client.data.create_or_update(Data(name="harvest", version="1", path=str(folder), type="uri_folder"))
    place = "azureml://datastores/workspaceblobstore/paths/told/scores.txt"
    job = invoke(client, endpoint, asset.id, outputs={"score": Output(type="uri_file", path=place)})
    assert wait(client, job) == "Completed"
    assert azure.blob("told/scores.txt").decode().count("json") == 5


def test_summary_only_keeps_what_the_script_itself_wrote(azure: FakeAzure, client: Any, deploy: Deploy, folder: Path) -> None:
    score = """
import os, pathlib
def init():
    pass
def run(mini_batch):
    pathlib.Path(os.environ["AZUREML_BI_OUTPUT_PATH"], "count.txt").write_text(os.environ["UNIT"] + str(len(mini_batch)))
    return mini_batch
"""
    endpoint = deploy("damsons", score, output_action="summary_only", environment_variables={"UNIT": "crates "})
    job = invoke(client, endpoint, folder)
    assert wait(client, job) == "Completed"
    written = {name: azure.blob(name) for name in azure.blobs() if job.name in name}
    assert written == {f"azureml/{job.name}/score/count.txt": b"crates 5"}


def test_mini_batch_that_fails_is_retried_and_ends_the_job_beyond_the_threshold(
    client: Any, deploy: Deploy, folder: Path, tmp_path: Path
) -> None:
    from azure.ai.ml.entities import BatchRetrySettings
    from azure.ai.ml.exceptions import JobException

    (folder / "1.json").write_text('"bruised"')
    retry = BatchRetrySettings(max_retries=2, timeout=30)
    endpoint = deploy("figs", mini_batch_size=1, retry_settings=retry, error_threshold=0)
    job = invoke(client, endpoint, folder)
    with pytest.raises(JobException, match=r"1 items failed.*error threshold 0.*ValueError: no use"):
        client.jobs.stream(job.name)
    assert wait(client, job) == "Failed"
    written = log(client, job, tmp_path / "log")
    assert written.count("Traceback") == 3
    assert written.count("files in this mini batch: 1") == 4

    job = invoke(client, endpoint, folder, params_override=[{"error_threshold": 1}])
    assert wait(client, job) == "Completed"
    assert len(predictions(client, job, tmp_path / "predicted")) == 4


def test_mini_batch_that_takes_too_long_is_given_up_and_the_others_are_scored(
    client: Any, deploy: Deploy, folder: Path, tmp_path: Path
) -> None:
    from azure.ai.ml.entities import BatchRetrySettings

    (folder / "0.json").write_text('"slow"')
    endpoint = deploy("medlars", mini_batch_size=1, retry_settings=BatchRetrySettings(max_retries=0, timeout=2))
    job = invoke(client, endpoint, folder)
    assert wait(client, job) == "Completed"
    assert len(predictions(client, job, tmp_path / "predicted")) == 4


@pytest.mark.parametrize("endpoint", FAULTY)
def test_script_that_fails_makes_the_job_fail_with_its_traceback_in_the_log(
    endpoint: str, client: Any, deploy: Deploy, folder: Path, tmp_path: Path
) -> None:
    score, reason = FAULTY[endpoint]
    job = invoke(client, deploy(endpoint, score), folder)
    assert wait(client, job) == "Failed"
    written = log(client, job, tmp_path / "log")
    assert "Traceback" in written
    assert reason in written


def test_environment_without_what_azure_needs_in_it_fails_the_job(
    client: Any, deploy: Deploy, folder: Path, tmp_path: Path
) -> None:
    job = invoke(client, deploy("bare", environment="bare", packages=["onnxruntime", "numpy"]), folder)
    assert wait(client, job) == "Failed"
    assert "need azureml-core in the conda file" in log(client, job, tmp_path / "log")


def test_job_that_is_cancelled_ends(client: Any, deploy: Deploy, folder: Path) -> None:
    (folder / "0.json").write_text('"slow"')
    job = invoke(client, deploy("rowans"), folder)
    client.jobs.begin_cancel(job.name).result()
    assert wait(client, job) == "Canceled"


def test_busy_scoring_address_is_asked_again_and_starts_one_job(
    azure: FakeAzure, client: Any, deploy: Deploy, folder: Path
) -> None:
    endpoint = deploy("plums")
    azure.fail("POST", f"{endpoint}.*/jobs$", status=503, code="ServiceUnavailable", times=2, retry_after=0.1)
    job = invoke(client, endpoint, folder)
    assert [found.name for found in client.batch_endpoints.list_jobs(endpoint)] == [job.name]
    assert wait(client, job) == "Completed"


def test_name_of_a_job_is_taken_once_and_a_deployment_has_to_be_there(
    azure: FakeAzure, client: Any, deploy: Deploy, folder: Path
) -> None:
    from azure.ai.ml.exceptions import ValidationException
    from azure.core.exceptions import HttpResponseError

    endpoint = deploy("sloes")
    job = invoke(client, endpoint, folder, job_name="first")
    assert (job.name, wait(client, job)) == ("first", "Completed")
    with pytest.raises(HttpResponseError, match="There is a job first"):
        invoke(client, endpoint, folder, job_name="first")
    with pytest.raises(HttpResponseError, match="Cannot delete the default deployment"):
        client.batch_deployments.begin_delete("nightly", endpoint).result()
    client.batch_endpoints.begin_delete(endpoint).result()
    assert endpoint not in azure.batch_endpoints
    client.batch_endpoints.begin_create_or_update(_empty(endpoint)).result()
    with pytest.raises(ValidationException, match="nightly not found"):
        invoke(client, endpoint, folder)


def test_batch_deployment_that_fails_says_why_and_can_be_made_again(azure: FakeAzure, client: Any, deploy: Deploy) -> None:
    from azure.core.exceptions import HttpResponseError

    def fail(_deployment: Any) -> None:
        raise ServiceError(400, "BadArgument", "The compute cpu-cluster does not exist.")

    azure.on_batch_deploy = fail
    with pytest.raises(HttpResponseError, match="cpu-cluster does not exist"):
        deploy("apricots")
    assert azure.batch_endpoints["apricots"].deployments["nightly"].state == "Failed"
    azure.on_batch_deploy = azure.score.check


def test_rows_of_a_data_frame_are_written_with_spaces_between_its_cells() -> None:
    pandas: Any = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"file": ["a.json", "b.json"], "score": [0.5, 1.0]})
    assert batch_driver.rows(frame) == ["a.json 0.5", "b.json 1.0"]


def _empty(name: str) -> Any:
    from azure.ai.ml.entities import BatchEndpoint

    return BatchEndpoint(name=name)
