"""Registering with a workspace: Azure's unmodified SDK against a server that checks every request, and that can fail."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.assets import AzureMLAssets
from packhouse.packaging.azureml.data import AzureMLData
from packhouse.packaging.azureml.models import AzureMLModels
from packhouse.packaging.azureml.versions import DIGEST_TAG
from packhouse.packaging.azureml.workspace import AzureMLConnection
from tests.azure_workspaces import connect, files, uploaded
from tests.fakes.azure import FakeAzure, why_unavailable
from tests.packaging_jobs import CPU, EXACT, NEAR, ONE, Grades, Packing, make_packing

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable()))]

OTHER: Grades = {CPU: {NEAR: (0.91, 2.0)}}
TWO: Grades = {CPU: {EXACT: (0.97, 3.0), NEAR: (0.91, 2.0)}}


@dataclass(frozen=True)
class Made:
    """A package, and everything that it is registered with."""

    packing: Packing
    packaging: AzureMLAssets
    folder: Path

    def register(self, connection: AzureMLConnection) -> tuple[str, ...]:
        """Register it through a block that gives this connection, and return where it is."""
        workplace = replace(self.packing.workplace, connect={"azureml-workspace/default": connection}.__getitem__)
        return tuple(self.packaging.register(self.folder, self.packing.job, replace(workplace, flow_run="run-1")))


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    """A subscription with one workspace."""
    with FakeAzure(tmp_path_factory.mktemp("azure")) as started:
        yield started


@pytest.fixture(scope="module")
def packings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packing]:
    """Jobs with one candidate, another one, and both."""
    jobs = {"one": ONE, "other": OTHER, "two": TWO}
    return {name: make_packing(tmp_path_factory.mktemp(name), grades) for name, grades in jobs.items()}


@pytest.fixture
def connection(azure: FakeAzure, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMLConnection]:
    """The workspace, whose requests are not repeated by the SDK; none of them may break the contract."""
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    azure.violations.clear()
    yield connect(azure)
    assert not azure.violations


def make(packing: Packing, name: str, kind: type[AzureMLModels] | type[AzureMLData] = AzureMLModels, **settings: Any) -> Made:
    """Make a package; each test gives it a name of its own."""
    packaging = kind(name=name, **settings)
    return Made(packing, packaging, packing.create(packaging))


def writes(azure: FakeAzure) -> list[str]:
    return [request.path for request in azure.requests if request.method == "PUT"]


def test_every_file_of_a_model_is_uploaded_byte_for_byte_and_found_by_its_tags(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    made = make(packings["two"], "whole", description="two classifiers")
    places = made.register(connection)
    assert places == tuple(f"{connection.resource_id}/models/whole_cpu-cpu_{rank}/versions/1" for rank in (1, 2))
    for rank in (1, 2):
        asset = azure.models[f"whole_cpu-cpu_{rank}"]["1"]
        assert uploaded(azure, asset["modelUri"]) == files(made.folder / f"whole_cpu-cpu_{rank}")
        assert asset["modelType"] == "custom_model"
        assert asset["description"] == "two classifiers"
    tags = azure.models["whole_cpu-cpu_1"]["1"]["tags"]
    assert {key: tags[f"packhouse.{key}"] for key in ("candidate", "accelerator", "rank", "flow_run")} == {
        "candidate": EXACT,
        "accelerator": CPU,
        "rank": "1",
        "flow_run": "run-1",
    }
    assert tags["accuracy-accuracy_score"] == "0.97"
    assert tags["packhouse.candidate_digest"] == packings["two"].candidate(EXACT).digest


def test_a_data_asset_is_a_folder_with_the_same_files(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    made = make(packings["one"], "folder", AzureMLData)
    assert made.register(connection) == (f"{connection.resource_id}/data/folder_cpu-cpu_1/versions/1",)
    asset = azure.data["folder_cpu-cpu_1"]["1"]
    assert asset["dataType"] == "uri_folder"
    assert uploaded(azure, asset["dataUri"]) == files(made.folder / "folder_cpu-cpu_1")


def test_a_model_in_mlflow_format_is_registered_as_one(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    make(packings["one"], "flow", export_in_mlflow_format=True).register(connection)
    asset = azure.models["flow_cpu-cpu_1"]["1"]
    assert asset["modelType"] == "mlflow_model"
    assert {"MLmodel", "model.onnx"} <= uploaded(azure, asset["modelUri"]).keys()


@pytest.mark.parametrize("kind", [AzureMLModels, AzureMLData])
@pytest.mark.parametrize("version", ["1", "auto"])
def test_registering_again_changes_nothing(
    azure: FakeAzure,
    connection: AzureMLConnection,
    packings: dict[str, Packing],
    kind: type[AzureMLModels] | type[AzureMLData],
    version: str,
) -> None:
    made = make(packings["one"], f"again-{version}", kind, version=version)
    places = made.register(connection)
    before = len(writes(azure))
    assert made.register(connection) == places
    assert len(writes(azure)) == before


def test_other_content_under_a_version_is_refused_with_both_digests_and_what_to_do(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    make(packings["one"], "taken").register(connection)
    kept = dict(azure.models["taken_cpu-cpu_1"]["1"])
    with pytest.raises(
        RegistrationFailed, match=r"taken_cpu-cpu_1.*has the content (\w{64}), and here it is .*→ raise the version"
    ) as caught:
        make(packings["other"], "taken").register(connection)
    assert kept["tags"][DIGEST_TAG] in str(caught.value)
    assert not caught.value.is_transient
    assert azure.models["taken_cpu-cpu_1"] == {"1": kept}
    make(packings["other"], "taken", on_conflict="next").register(connection)
    assert list(azure.models["taken_cpu-cpu_1"]) == ["1", "2"]


def test_two_runs_at_once_lose_neither(azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]) -> None:
    several = [make(packings[name], "race", version="auto") for name in ("one", "other", "one")]
    places: list[str] = []
    threads = [threading.Thread(target=lambda made=made: places.extend(made.register(connection))) for made in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 3
    assert sorted(azure.models["race_cpu-cpu_1"]) == ["1", "2"]
    assert len({version["tags"][DIGEST_TAG] for version in azure.models["race_cpu-cpu_1"].values()}) == 2


# What fails, how often, and with what: it is tried again, so the asset is registered all the same.
PASSES: dict[str, dict[str, Any]] = {
    "too many requests": {"method": "PUT", "path": "/models/", "status": 429, "code": "TooManyRequests"},
    "service busy": {"method": "GET", "path": "/versions", "status": 503, "times": 2},
    "connection dropped": {"method": "PUT", "path": "/models/", "drop_connection": True},
    "version taken by somebody who was faster": {"method": "PUT", "path": "/models/", "status": 409, "code": "Conflict"},
    "token expired": {"method": "GET", "path": "/versions", "status": 401, "code": "ExpiredAuthenticationToken"},
}


@pytest.mark.parametrize("fault", PASSES)
def test_what_passes_is_tried_again(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], fault: str
) -> None:
    made = make(packings["one"], fault.replace(" ", "-"))
    azure.fail(**PASSES[fault])
    (place,) = made.register(connection)
    assert place.endswith("/versions/1")


# What fails, and what is said; whether trying again may help; then a second run completes.
FAILS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "role missing": (
        {"method": "PUT", "path": "/models/", "status": 403, "code": "AuthorizationFailed"},
        "AuthorizationFailed.*AzureML Data Scientist",
        False,
    ),
    "out of service": (
        {"method": "GET", "path": "/versions", "status": 503, "code": "ServiceUnavailable", "times": 3},
        "ServiceUnavailable.*register again",
        True,
    ),
    "bad request": (
        {"method": "PUT", "path": "/models/", "status": 400, "code": "BadArgument", "message": "no such form"},
        "BadArgument: no such form",
        False,
    ),
    "token refused": (
        {"method": "GET", "path": "/versions", "status": 401, "code": "InvalidAuthenticationToken", "times": 4},
        "InvalidAuthenticationToken.*credential",
        False,
    ),
}


@pytest.mark.parametrize("fault", FAILS)
def test_what_does_not_pass_is_said_with_the_remedy_and_a_second_run_completes(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], fault: str
) -> None:
    name = fault.replace(" ", "-")
    made = make(packings["one"], name)
    failing, words, is_transient = FAILS[fault]
    azure.fail(**failing)
    with pytest.raises(RegistrationFailed, match=words) as caught:
        made.register(connection)
    azure.faults.planned.clear()
    assert caught.value.is_transient == is_transient
    assert not any(secret in str(caught.value) for secret in azure.secrets)
    assert f"{name}_cpu-cpu_1" not in azure.models
    made.register(connection)
    assert f"{name}_cpu-cpu_1" in azure.models


@pytest.mark.parametrize("file", ["configurations", "verify"])
def test_an_upload_that_broke_off_is_completed(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], file: str
) -> None:
    name = f"broken-{file}"
    made = make(packings["one"], name)
    azure.fail("PUT", rf"blob.*{file}\.", status=403, code="AuthorizationPermissionMismatch", times=1)
    with pytest.raises(RegistrationFailed, match="AuthorizationPermissionMismatch"):
        made.register(connection)
    assert f"{name}_cpu-cpu_1" not in azure.models
    made.register(connection)
    asset = azure.models[f"{name}_cpu-cpu_1"]["1"]
    assert uploaded(azure, asset["modelUri"]) == files(made.folder / f"{name}_cpu-cpu_1")


def test_what_was_registered_before_a_failure_is_told_and_gone_on_from(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    made = make(packings["two"], "half")
    azure.fail("PUT", "half_cpu-cpu_1/versions", status=403, code="AuthorizationFailed")
    with pytest.raises(RegistrationFailed, match=r"half_cpu-cpu_1: .*1 of 2 assets are registered, and stay"):
        made.register(connection)
    assert "half_cpu-cpu_2" in azure.models
    assert len(made.register(connection)) == 2


def test_a_store_without_keys_is_reached_with_the_identity(
    packings: dict[str, Packing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(packings["one"], "identity")
    with FakeAzure(tmp_path) as azure:
        azure.use_identity_for_blobs()
        for name, value in azure.environment.items():
            monkeypatch.setenv(name, value)
        made.register(connect(azure))
        asset = azure.models["identity_cpu-cpu_1"]["1"]
        assert uploaded(azure, asset["modelUri"]) == files(made.folder / "identity_cpu-cpu_1")
        assert not azure.violations


# What is wrong with the block or its surroundings, and what is said.
UNREACHABLE: dict[str, tuple[dict[str, Any], str]] = {
    "workspace missing": ({"workspace": "elsewhere"}, "workspace elsewhere: ResourceNotFound.*workspace_name of the block"),
    "operation too long": ({"timeout_s": 0.1}, "did not finish 'connect' within 0.1 s.*raise timeout_s"),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_a_workspace_that_cannot_be_reached_is_said_before_anything_is_sent(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], case: str
) -> None:
    changes, words = UNREACHABLE[case]
    before = len(writes(azure))
    with pytest.raises(RegistrationFailed, match=words):
        make(packings["one"], "nowhere").register(connect(azure, **changes))
    assert len(writes(azure)) == before


def test_a_wrong_secret_is_said_and_not_shown(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    wrong = "planted-4711"
    credential = {**connection.credential, "client_secret": wrong}
    with pytest.raises(RegistrationFailed, match=r"AADSTS7000215.*check tenant, client and secret") as caught:
        make(packings["one"], "nowhere").register(connect(azure, credential=credential, secrets=(wrong,)))
    assert wrong not in str(caught.value)
    assert not caught.value.is_transient


def test_without_a_way_out_the_network_is_to_be_checked(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(RegistrationFailed, match="check the network, HTTPS_PROXY") as caught:
        make(packings["one"], "nowhere").register(connection)
    assert caught.value.is_transient


def test_text_of_azure_is_shown_without_secrets() -> None:
    connection = AzureMLConnection("s", "g", "w", secrets=("planted-4711",))
    text = "https://x.blob/y?se=2026&sig=Ab%2Fc%3D&sp=r Bearer eyJ0.e30.x; AccountKey=abc==; planted-4711"
    assert connection.without_secrets(text) == "https://x.blob/y?se=2026&sig=***&sp=r Bearer ***; AccountKey=***; ***"


def test_an_empty_password_hides_nothing() -> None:
    assert AzureMLConnection("s", "g", "w", secrets=("",)).without_secrets("no such tenant") == "no such tenant"
