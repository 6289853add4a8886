"""The fake Azure, driven by nothing but the unmodified SDK."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.azure import FakeAzure, why_unavailable

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable())),
    pytest.mark.filterwarnings("ignore"),
]

FILES = {"model.onnx": b"\x08\x07onnx" * 500, "inference_config.json": b"{}"}


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    """A fake that this process takes for Azure."""
    with FakeAzure(tmp_path_factory.mktemp("azure")) as azure, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
        for name, value in azure.environment.items():
            patch.setenv(name, value)
        logging.getLogger("azure").setLevel(logging.ERROR)
        yield azure
        assert azure.violations == []


@pytest.fixture(scope="module")
def client(azure: FakeAzure) -> Any:
    """The SDK's client, signed in as the service principal."""
    return make_client(azure)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder as it is registered as a model."""
    return write_folder(tmp_path / "model", FILES)


def make_client(azure: FakeAzure, workspace: str | None = None, **settings: Any) -> Any:
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()
    return MLClient(credential, azure.subscription_id, azure.resource_group, workspace or azure.workspace, **settings)


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def make_model(path: Path, name: str, version: str | None = "1", **others: Any) -> Any:
    from azure.ai.ml.entities import Model

    return Model(name=name, version=version, path=path, **others)


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
