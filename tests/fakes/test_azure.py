"""The fake Azure, driven by nothing but the unmodified SDK."""

import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.fakes.azure import (
    FakeAzure,
    ServiceError,
    accept,
    container_crash,
    image_build_failure,
    out_of_quota,
    why_unavailable,
)
from tests.fakes.sdk import make_client, make_environment, make_model, tripling_model, write_folder

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable())),
    pytest.mark.filterwarnings("ignore"),
]

SCORE = """
import json, os, pathlib
import numpy, onnxruntime

def init():
    global session
    [path] = pathlib.Path(os.environ["AZUREML_MODEL_DIR"]).rglob("*.onnx")
    session = onnxruntime.InferenceSession(path)

def run(data):
    x = numpy.array(json.loads(data)["x"], dtype="float32")
    print("scored", x.shape)
    return {"y": session.run(None, {"x": x})[0].tolist()}
"""
FILES = {"model.onnx": b"\x08\x07onnx" * 500, "inference_config.json": b"{}"}


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder as it is registered as a model."""
    return write_folder(tmp_path / "model", FILES)


def test_registered_model_is_in_blob_storage_byte_for_byte(
    azure: FakeAzure, client: Any, model_folder: Path, tmp_path: Path
) -> None:
    registered = client.models.create_or_update(make_model(model_folder, "pears_cpu-cpu_1", tags={"rank": "1"}))
    properties = azure.models["pears_cpu-cpu_1"]["1"]
    assert properties["tags"] == {"rank": "1"}
    assert registered.path == properties["modelUri"]
    folder = azure.download(properties["modelUri"], tmp_path / "downloaded")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_second_registration_of_the_same_bytes_uploads_nothing(azure: FakeAzure, client: Any, model_folder: Path) -> None:
    client.models.create_or_update(make_model(model_folder, "apples"))
    before = azure.blobs()
    seen = len(azure.requests)
    client.models.create_or_update(make_model(model_folder, "apples", description="Sweet"))
    assert azure.blobs() == before
    assert not [request for request in azure.requests[seen:] if request.method == "PUT" and "blob" in request.host]
    assert azure.models["apples"]["1"]["description"] == "Sweet"


def test_version_keeps_its_content(azure: FakeAzure, client: Any, model_folder: Path, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    client.models.create_or_update(make_model(model_folder, "plums"))
    other = write_folder(tmp_path / "other", {"model.onnx": b"other"})
    with pytest.raises(HttpResponseError, match="Asset paths cannot be updated") as refused:
        client.models.create_or_update(make_model(other, "plums"))
    assert refused.value.status_code == 400


def test_model_without_a_version_gets_the_next_one(azure: FakeAzure, client: Any, model_folder: Path) -> None:
    first = client.models.create_or_update(make_model(model_folder, "cherries", None))
    second = client.models.create_or_update(make_model(model_folder, "cherries", None))
    assert (first.version, second.version) == ("1", "2")


def test_workspace_that_does_not_exist_is_told_from_a_missing_model(azure: FakeAzure, client: Any) -> None:
    from azure.core.exceptions import ResourceNotFoundError

    with pytest.raises(ResourceNotFoundError, match="Code: ResourceNotFound"):
        make_client(azure, "elsewhere").models.get("pears_cpu-cpu_1", "1")
    with pytest.raises(ResourceNotFoundError, match="Code: NotFound"):
        client.models.get("nothing", "1")


def test_data_folder_comes_back_with_the_long_address(
    azure: FakeAzure, client: Any, model_folder: Path, tmp_path: Path
) -> None:
    from azure.ai.ml.entities import Data

    registered = client.data.create_or_update(Data(name="orchard", version="1", path=str(model_folder), type="uri_folder"))
    workspace = f"subscriptions/{azure.subscription_id}/resourcegroups/{azure.resource_group}/workspaces/{azure.workspace}"
    assert registered.path.startswith(f"azureml://{workspace}/datastores/workspaceblobstore/paths/LocalUpload/")
    assert registered.path.endswith("/model/")
    folder = azure.download(azure.data["orchard"]["1"]["dataUri"], tmp_path / "downloaded")
    assert (folder / "model.onnx").read_bytes() == FILES["model.onnx"]


def test_archived_versions_are_kept_but_not_listed(azure: FakeAzure, client: Any, model_folder: Path) -> None:
    from azure.ai.ml.entities import Data

    client.models.create_or_update(make_model(model_folder, "windfalls"))
    client.data.create_or_update(Data(name="windfalls", version="1", path=str(model_folder), type="uri_folder"))
    for operations, kept in ((client.models, azure.models), (client.data, azure.data)):
        operations.archive("windfalls", "1")
        assert kept["windfalls"]["1"]["isArchived"]
        assert list(operations.list("windfalls")) == []
        operations.restore("windfalls", "1")
        assert [asset.version for asset in operations.list("windfalls")] == ["1"]


def test_version_of_an_environment_cannot_be_changed(azure: FakeAzure, client: Any) -> None:
    from azure.core.exceptions import ResourceExistsError

    client.environments.create_or_update(make_environment("frozen"))
    client.environments.create_or_update(make_environment("frozen"))
    with pytest.raises(ResourceExistsError, match="already registered and cannot be changed"):
        client.environments.create_or_update(make_environment("frozen", image="another/image"))
    assert list(azure.environments["frozen"]) == ["1"]


def test_build_context_is_uploaded(azure: FakeAzure, client: Any, tmp_path: Path) -> None:
    from azure.ai.ml.entities import BuildContext, Environment

    context = write_folder(tmp_path / "context", {"Dockerfile": b"FROM scratch"})
    client.environments.create_or_update(Environment(name="built", version="1", build=BuildContext(path=context)))
    folder = azure.download(azure.environments["built"]["1"]["build"]["contextUri"], tmp_path / "downloaded")
    assert (folder / "Dockerfile").read_bytes() == b"FROM scratch"


def test_deployment_returns_predictions_of_the_registered_model(azure: FakeAzure, client: Any, tmp_path: Path) -> None:
    make_endpoint(client, "pears")
    deployment = make_deployment(client, "pears", "blue", tmp_path)
    client.online_deployments.begin_create_or_update(deployment).result()
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"x": [[1.0, 2.0]]}))
    answer = client.online_endpoints.invoke("pears", request_file=str(request), deployment_name="blue")
    assert json.loads(answer) == {"y": [[3.0, 6.0]]}
    assert "scored (1, 2)" in client.online_deployments.get_logs("blue", "pears", lines=50)

    assert ask_by_traffic(client, "pears", request).status_code == 404
    set_traffic(client, "pears", {"blue": 100})
    assert azure.endpoints["pears"].traffic == {"blue": 100}
    assert ask_by_traffic(client, "pears", request).json() == {"y": [[3.0, 6.0]]}

    set_traffic(client, "pears", {"blue": 0})
    client.online_deployments.begin_delete(name="blue", endpoint_name="pears").result()
    assert azure.endpoints["pears"].deployments == {}
    client.online_endpoints.begin_delete("pears").result()
    assert "pears" not in azure.endpoints


def test_deployment_that_fails_tells_why_and_keeps_its_logs(azure: FakeAzure, client: Any, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    make_endpoint(client, "quince")
    failures = {
        "ImageBuildFailure": image_build_failure,
        "OutOfQuota": out_of_quota,
        "ResourceNotReady": container_crash("boom"),
    }
    deployment = make_deployment(client, "quince", "blue", tmp_path)
    for code, azure.on_deploy in failures.items():
        with pytest.raises(HttpResponseError, match=code):
            client.online_deployments.begin_create_or_update(deployment).result()
        assert azure.endpoints["quince"].deployments["blue"].state == "Failed"
    assert client.online_deployments.get_logs("blue", "quince", lines=50) == "boom"
    azure.on_deploy = azure.serve
    client.online_deployments.begin_create_or_update(deployment).result()
    assert azure.endpoints["quince"].deployments["blue"].state == "Succeeded"


def test_packaged_model_is_deployed_by_its_environment_alone(azure: FakeAzure, client: Any, tmp_path: Path) -> None:
    from azure.ai.ml.entities import (
        AzureMLOnlineInferencingServer,
        BaseEnvironment,
        CodeConfiguration,
        ManagedOnlineDeployment,
        ModelPackage,
    )

    deployment = make_deployment(client, "crab", "blue", tmp_path)
    model = client.models.get("tripling", "1")
    code = CodeConfiguration(code=deployment.code_configuration.code, scoring_script="score.py")
    package = ModelPackage(
        target_environment="packed",
        base_environment_source=BaseEnvironment(type="EnvironmentAsset", resource_id=deployment.environment),
        inferencing_server=AzureMLOnlineInferencingServer(code_configuration=code),
    )
    environment = client.models.package(model.name, model.version, package)
    assert azure.environments["packed"]["1"]["image"].startswith("packhouse.azurecr.io/")
    make_endpoint(client, "crab")
    alone = ManagedOnlineDeployment(name="blue", endpoint_name="crab", environment=environment.id, instance_count=1)
    client.online_deployments.begin_create_or_update(alone).result()
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"x": [[1.0, 2.0]]}))
    answer = client.online_endpoints.invoke("crab", request_file=str(request), deployment_name="blue")
    assert json.loads(answer) == {"y": [[3.0, 6.0]]}


def test_script_that_cannot_start_is_a_crash_with_its_traceback(azure: FakeAzure, client: Any, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    make_endpoint(client, "medlar")
    broken = make_deployment(
        client, "medlar", "blue", tmp_path, "def init():\n    raise RuntimeError('no seeds')\ndef run(x): pass\n"
    )
    with pytest.raises(HttpResponseError, match="User container has crashed"):
        client.online_deployments.begin_create_or_update(broken).result()
    assert "no seeds" in client.online_deployments.get_logs("blue", "medlar", lines=200)


def test_traffic_goes_to_deployments_that_exist_and_keeps_them(azure: FakeAzure, client: Any, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    make_endpoint(client, "fig")
    azure.on_deploy = accept
    client.online_deployments.begin_create_or_update(make_deployment(client, "fig", "blue", tmp_path)).result()
    azure.on_deploy = azure.serve
    for traffic, problem in (({"green": 100}, "does not exist"), ({"blue": 90}, "adds up to 90")):
        with pytest.raises(HttpResponseError, match=problem):
            set_traffic(client, "fig", traffic)
    set_traffic(client, "fig", {"blue": 100})
    with pytest.raises(HttpResponseError, match="nonzero traffic"):
        client.online_deployments.begin_delete(name="blue", endpoint_name="fig").result()


def test_endpoint_that_failed_takes_no_deployments_until_it_is_put_again(azure: FakeAzure, client: Any, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    def fail(_endpoint: Any) -> None:
        raise ServiceError(400, "InternalServerError", "Something went wrong.")

    azure.on_endpoint(fail)
    with pytest.raises(HttpResponseError, match="Something went wrong"):
        make_endpoint(client, "sloe")
    assert client.online_endpoints.get("sloe").provisioning_state == "Failed"
    deployment = make_deployment(client, "sloe", "blue", tmp_path)
    with pytest.raises(HttpResponseError, match="in state Failed"):
        client.online_deployments.begin_create_or_update(deployment)
    azure.on_endpoint(lambda _endpoint: None)
    make_endpoint(client, "sloe")
    assert client.online_endpoints.get("sloe").provisioning_state == "Succeeded"


def test_faults_are_met_and_then_over(azure: FakeAzure, client: Any, model_folder: Path) -> None:
    from azure.core.exceptions import HttpResponseError, ServiceRequestError

    client.models.create_or_update(make_model(model_folder, "grapes"))
    azure.fail("GET", "/models/grapes/versions/1$", status=429, code="TooManyRequests", times=2, retry_after=0.1)
    seen = len(azure.requests)
    assert client.models.get("grapes", "1").name == "grapes"
    assert [request.status for request in azure.requests[seen:]] == [429, 429, 200]

    azure.fail("GET", "/models/grapes/versions/1$", status=403, code="AuthorizationFailed", message="Not yours.")
    with pytest.raises(HttpResponseError, match="Not yours"):
        client.models.get("grapes", "1")

    azure.fail("GET", "/models/grapes/versions/1$", drop_connection=True, times=20)
    with pytest.raises(ServiceRequestError):
        make_client(azure, retry_total=1).models.get("grapes", "1")
    azure.faults.planned.clear()
    assert client.models.get("grapes", "1").name == "grapes"


def test_token_that_was_revoked_and_a_wrong_secret_are_refused(azure: FakeAzure, model_folder: Path) -> None:
    from azure.ai.ml import MLClient
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import ClientSecretCredential, ManagedIdentityCredential

    def client_with(credential: Any) -> Any:
        return MLClient(credential, azure.subscription_id, azure.resource_group, azure.workspace)

    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        client_with(ClientSecretCredential(azure.tenant_id, azure.client_id, "wrong")).workspaces.get(azure.workspace)
    client = client_with(ClientSecretCredential(azure.tenant_id, azure.client_id, azure.client_secret))
    assert client.workspaces.get(azure.workspace).name == azure.workspace
    azure.identity.expire(azure.requests[-1].bearer)
    with pytest.raises(ClientAuthenticationError, match="expired"):
        client.models.get("nothing", "1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in azure.managed_identity_environment.items():
            patch.setenv(name, value)
        assert client_with(ManagedIdentityCredential()).workspaces.get(azure.workspace).name == azure.workspace


def test_identity_based_datastore_takes_the_callers_token(azure: FakeAzure, client: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", {"model.onnx": b"reached without a signature"})
    azure.use_identity_for_blobs()
    seen = len(azure.requests)
    client.models.create_or_update(make_model(folder, "olives"))
    azure.use_signatures_for_blobs()
    asked = azure.requests[seen:]
    assert not [request for request in asked if "sig" in request.query or request.path.endswith("/listSecrets")]
    assert (azure.download(azure.models["olives"]["1"]["modelUri"], tmp_path / "out") / "model.onnx").read_bytes()


def test_request_that_breaks_the_contract_is_refused_and_recorded(azure: FakeAzure, client: Any, model_folder: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    before = list(azure.violations)
    with pytest.raises(HttpResponseError, match="does not match"):
        client.models.create_or_update(make_model(model_folder, "no spaces, please"))
    assert "path.name: 'no spaces, please' does not match" in azure.violations[-1]
    azure.violations[:] = before


def test_other_hosts_are_reached_as_without_the_fake(azure: FakeAzure) -> None:
    proxy = urlsplit(azure.environment["HTTPS_PROXY"])
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, socket.create_connection((proxy.hostname, proxy.port)) as caller:
        caller.sendall(f"CONNECT 127.0.0.1:{elsewhere.getsockname()[1]} HTTP/1.1\r\n\r\n".encode())
        other, _ = elsewhere.accept()
        with other:
            assert caller.recv(1024).startswith(b"HTTP/1.1 200")
            caller.sendall(b"hello")
            assert other.recv(1024) == b"hello"
            other.sendall(b"good day")
            assert caller.recv(1024) == b"good day"
    assert "127.0.0.1" in azure.tunnelled


def test_everything_secret_is_known(azure: FakeAzure, client: Any, model_folder: Path) -> None:
    make_endpoint(client, "rowan")
    key = client.online_endpoints.get_keys("rowan").primary_key
    shown = {request.bearer for request in azure.requests if "authorization" in request.headers}
    signatures = {request.query["sig"] for request in azure.requests if "sig" in request.query}
    assert {key, azure.client_secret} | shown <= azure.secrets
    assert signatures <= azure.secrets


def make_endpoint(client: Any, name: str) -> None:
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    client.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name=name, auth_mode="key")).result()


def ask_by_traffic(client: Any, name: str, request: Path) -> requests.Response:
    """Ask without naming a deployment, which the SDK cannot do once it has named one in this process."""
    uri, key = client.online_endpoints.get(name).scoring_uri, client.online_endpoints.get_keys(name).primary_key
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return requests.post(uri, data=request.read_bytes(), headers=headers, timeout=60)


def set_traffic(client: Any, endpoint_name: str, traffic: dict[str, int]) -> None:
    endpoint = client.online_endpoints.get(endpoint_name)
    endpoint.traffic = traffic
    client.online_endpoints.begin_create_or_update(endpoint).result()


def make_deployment(client: Any, endpoint: str, name: str, folder: Path, score: str = SCORE) -> Any:
    """A deployment of a model that triples its input."""
    from azure.ai.ml.entities import CodeConfiguration, ManagedOnlineDeployment

    tripling = write_folder(folder / "tripling", {"model.onnx": tripling_model()})
    model = client.models.create_or_update(make_model(tripling, "tripling"))
    environment = client.environments.create_or_update(make_environment("serving"))
    code = write_folder(folder / "code", {"score.py": score.encode()})
    return ManagedOnlineDeployment(
        name=name,
        endpoint_name=endpoint,
        model=model.id,
        environment=environment.id,
        code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
        instance_type="Standard_DS3_v2",
        instance_count=1,
    )
