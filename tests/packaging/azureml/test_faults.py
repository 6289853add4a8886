"""Faults of Azure that registering can meet: what is tried again, what is said, what stays, and that a second run completes.

One client process serves all tests, as it serves all assets of a run; Azure's SDK repeats nothing in it, so that we do.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.registration import Asset, Kind, register_asset
from packhouse.packaging.azureml.versions import AUTO, DIGEST_TAG, AssetVersion, OnConflict
from packhouse.packaging.azureml.workspace import AzureMLConnection, AzureMLSession
from tests.azure_workspaces import connect
from tests.fakes.azure import FakeAzure, why_unavailable

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable()))]

KINDS = pytest.mark.parametrize("kind", ["models", "data"])
ALWAYS = 50
READ_TIMEOUT_S = 5.0
RBAC = r"AuthorizationFailed: .*→ give the identity the role AzureML Data Scientist"


@dataclass
class Workspace:
    """The fake, a client process that is connected to it, and how long was waited between attempts."""

    azure: FakeAzure
    connection: AzureMLConnection
    session: AzureMLSession
    waits: list[float]

    def register(self, asset: Asset, wanted: str = "1", on_conflict: OnConflict = "error") -> AssetVersion:
        """Register an asset, and forget what was waited before."""
        self.waits.clear()
        return register_asset(self.session, asset, wanted, on_conflict)

    def versions(self, asset: Asset) -> dict[str, str]:
        """Return the digests of the versions of an asset."""
        kept = {"models": self.azure.models, "data": self.azure.data}[asset.kind].get(asset.name, {})
        return {version: properties["tags"][DIGEST_TAG] for version, properties in kept.items()}

    def files(self, asset: Asset, version: str) -> dict[str, bytes]:
        """Return what was uploaded for a version."""
        kept = {"models": self.azure.models, "data": self.azure.data}[asset.kind][asset.name][version]
        prefix = kept["modelUri" if asset.kind == "models" else "dataUri"].partition("/paths/")[2].rstrip("/") + "/"
        return {name.removeprefix(prefix): self.azure.blob(name) for name in self.azure.blobs() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    """A subscription with one workspace, which this process and its children take for Azure."""
    with FakeAzure(tmp_path_factory.mktemp("azure")) as started, pytest.MonkeyPatch.context() as patch:
        # Where a machine of Azure has its identity, there is nobody.
        for name, value in {**started.environment, "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"}.items():
            patch.setenv(name, value)
        yield started


@pytest.fixture(scope="module")
def connected(azure: FakeAzure) -> Iterator[Workspace]:
    """The workspace with a client process."""
    waits: list[float] = []
    connection = connect(azure)
    with connection.session(sleep=waits.append) as session:
        yield Workspace(azure, connection, session, waits)


@pytest.fixture
def workspace(connected: Workspace) -> Iterator[Workspace]:
    """The workspace without faults of other tests; no request may break the contract."""
    connected.azure.violations.clear()
    yield connected
    connected.azure.faults.planned.clear()
    assert not connected.azure.violations


@pytest.fixture
def asset(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Asset]:
    """Make assets whose name is the test's; `content` makes their files and digests differ."""
    name = re.sub(r"\W+", "-", request.node.name)[-100:].strip("-_")

    def make(kind: Kind, content: str = "ripe") -> Asset:
        folder = tmp_path / content / name
        folder.mkdir(parents=True)
        for file in ("first.json", "model.onnx", "verify.py"):
            (folder / file).write_text(f"{file} {content} {name}")
        settings = {"form": "custom"} if kind == "models" else {}
        return Asset(kind, name, folder, f"digest-{content}", None, {}, settings)

    return make


def contents(asset: Asset) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in asset.folder.iterdir()}


# What fails each time; what is said; the waits before it is tried again; whether Prefect may try it later.
FAULTS: dict[str, tuple[dict[str, Any], str, list[float], bool]] = {
    "request timed out": (
        {"method": "PUT", "path": "/versions/", "status": 408, "code": "RequestTimeout"},
        r"RequestTimeout: .*→ check the network, HTTPS_PROXY and the state of Azure, and register again",
        [2.0, 4.0],
        True,
    ),
    "too many requests": (
        {"method": "PUT", "path": "/versions/", "status": 429, "code": "TooManyRequests", "retry_after": 1},
        r"TooManyRequests: .*→ Azure limits requests; register again later",
        [10.0, 20.0],
        True,
    ),
    "internal error": (
        {"method": "PUT", "path": "/versions/", "status": 500},
        r"InternalServerError: .*→ check the network, .*the state of Azure",
        [2.0, 4.0],
        True,
    ),
    "bad gateway on the way to the store": (
        {"method": "GET", "path": "/datastores/", "status": 502, "code": "BadGateway"},
        r"BadGateway: .*→ check the network",
        [2.0, 4.0],
        True,
    ),
    "gateway timed out": (
        {"method": "GET", "path": "/versions$", "status": 504, "code": "GatewayTimeout"},
        r"GatewayTimeout: .*→ check the network",
        [2.0, 4.0],
        True,
    ),
    "connection dropped": (
        {"method": "PUT", "path": "/versions/", "drop_connection": True},
        r"Service\w+Error: .*→ check the network",
        [2.0, 4.0],
        True,
    ),
    "token revoked for good": (
        {"method": "PUT", "path": "/versions/", "status": 401, "code": "ExpiredAuthenticationToken"},
        r"ExpiredAuthenticationToken: .*→ the token expired, and a new one was refused; check the credential of the block",
        [0.0],
        False,
    ),
    "role to write missing": (
        {"method": "PUT", "path": "/versions/", "status": 403, "code": "AuthorizationFailed"},
        RBAC,
        [],
        False,
    ),
    "role to read missing": (
        {"method": "GET", "path": "/versions$", "status": 403, "code": "AuthorizationFailed"},
        RBAC,
        [],
        False,
    ),
    "role to see the store missing": (
        {"method": "GET", "path": "/datastores/", "status": 403, "code": "AuthorizationFailed"},
        RBAC,
        [],
        False,
    ),
    "role to read blobs missing": (
        {"method": "HEAD", "path": "blob.core", "status": 403, "code": "AuthorizationPermissionMismatch"},
        r"permission.*→ give the identity the role .*for the store Storage Blob Data Contributor",
        [],
        False,
    ),
    "role to write blobs missing": (
        {"method": "PUT", "path": "blob.core", "status": 403, "code": "AuthorizationPermissionMismatch"},
        r"AuthorizationPermissionMismatch: .*for the store Storage Blob Data Contributor",
        [],
        False,
    ),
    "upload of the first file refused": (
        {"method": "PUT", "path": r"blob.core.*/first\.json$", "status": 403, "code": "AuthenticationFailed"},
        r"AuthenticationFailed: ",
        [],
        False,
    ),
    "upload of a later file refused": (
        {"method": "PUT", "path": r"blob.core.*/verify\.py$", "status": 403, "code": "AuthenticationFailed"},
        r"AuthenticationFailed: ",
        [],
        False,
    ),
    "store missing": (
        {"method": "GET", "path": "/datastores/", "status": 404, "code": "NotFound", "message": "no such datastore"},
        r"NotFound: no such datastore → .*default datastore",
        [],
        False,
    ),
    "bad request": (
        {"method": "PUT", "path": "/versions/", "status": 400, "code": "BadArgument", "message": "no such form"},
        r"BadArgument: no such form",
        [],
        False,
    ),
}


@KINDS
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_said_with_its_remedy_leaves_no_version_and_a_second_run_completes(
    workspace: Workspace, asset: Callable[..., Asset], fault: str, kind: Kind
) -> None:
    failing, words, waits, is_transient = FAULTS[fault]
    made = asset(kind)
    workspace.azure.fail(**{"times": ALWAYS, **failing})
    with pytest.raises(RegistrationFailed, match=words) as caught:
        workspace.register(made)
    assert workspace.waits == waits
    assert caught.value.is_transient == is_transient
    assert not any(secret in str(caught.value) for secret in workspace.azure.secrets)
    assert workspace.versions(made) == {}

    workspace.azure.faults.planned.clear()
    assert workspace.register(made).version == "1"
    assert workspace.files(made, "1") == contents(made)


def test_answer_that_is_late_is_waited_for_as_long_as_the_block_says(workspace: Workspace, asset: Callable[..., Asset]) -> None:
    made = asset("models")
    workspace.session.ask("connect", **replace(workspace.connection, read_timeout_s=READ_TIMEOUT_S).told())
    workspace.azure.fail("PUT", "/versions/", times=ALWAYS, delay_s=READ_TIMEOUT_S + 2, drop_connection=True)
    with pytest.raises(RegistrationFailed, match=r"Service\w+Error: .*→ check the network") as caught:
        workspace.register(made)
    assert (workspace.waits, caught.value.is_transient) == ([2.0, 4.0], True)

    workspace.azure.faults.planned.clear()
    workspace.session.ask("connect", **workspace.connection.told())
    assert workspace.register(made).version == "1"


# What fails once, or does not matter; the waits before it is tried again.
PASSES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "too many requests": (
        {"method": "PUT", "path": "/versions/", "status": 429, "code": "TooManyRequests", "retry_after": 1},
        [10.0],
    ),
    "service busy twice": ({"method": "GET", "path": "/versions$", "status": 503, "times": 2}, [2.0, 4.0]),
    "token expired": ({"method": "PUT", "path": "/versions/", "status": 401, "code": "ExpiredAuthenticationToken"}, [0.0]),
    "conflict though nobody has the version": (
        {"method": "PUT", "path": "/versions/", "status": 409, "code": "Conflict"},
        [],
    ),
    "keys of the store not given": (
        {"method": "POST", "path": "/listSecrets", "status": 403, "code": "AuthorizationFailed", "times": ALWAYS},
        [],
    ),
}


@KINDS
@pytest.mark.parametrize("fault", PASSES)
def test_fault_that_passes_is_waited_for_and_the_asset_registered_once(
    workspace: Workspace, asset: Callable[..., Asset], fault: str, kind: Kind
) -> None:
    failing, waits = PASSES[fault]
    made = asset(kind)
    workspace.azure.fail(**failing)
    assert workspace.register(made).version == "1"
    assert workspace.waits == waits
    assert workspace.versions(made) == {"1": made.digest}
    assert workspace.files(made, "1") == contents(made)


@KINDS
def test_upload_that_broke_off_at_its_first_file_is_taken_up_by_trying_again_at_once(
    workspace: Workspace, asset: Callable[..., Asset], kind: Kind
) -> None:
    made = asset(kind)
    workspace.azure.fail("PUT", r"blob.core.*/first\.json$", status=403, code="AuthenticationFailed")
    with pytest.raises(RegistrationFailed, match="AuthenticationFailed"):
        workspace.register(made)
    stays = [name for name in workspace.azure.blobs() if made.name in name]
    assert stays
    assert workspace.register(made).version == "1"
    assert workspace.waits == [1.0]
    assert set(stays) < {name for name in workspace.azure.blobs() if made.name in name}


class Overtaken(AzureMLSession):
    """A session that is overtaken between its look at the versions and its registration."""

    def __init__(self, session: AzureMLSession, meanwhile: Callable[[], object]) -> None:
        """Do `meanwhile` once, just before the first registration."""
        self._session, self._meanwhile = session, meanwhile

    def ask(self, do: str, **arguments: Any) -> Any:
        """Ask the workspace."""
        if do.startswith("assets.register"):
            meanwhile, self._meanwhile = self._meanwhile, lambda: None
            meanwhile()
        return self._session.ask(do, **arguments)


# What is wanted, and what comes of it where other content, or the same, took version 1 since the look at the versions.
OVERTAKEN: dict[str, tuple[str, OnConflict, str, str]] = {
    "auto": (AUTO, "error", "2", "1"),
    "error": ("1", "error", "has the content digest-unripe, and here it is digest-ripe", "1"),
    "reuse": ("1", "reuse", "no version has this content to reuse", "1"),
    "next": ("1", "next", "2", "1"),
}


@KINDS
@pytest.mark.parametrize("policy", OVERTAKEN)
def test_who_is_overtaken_looks_again_and_goes_by_the_policy(
    workspace: Workspace, asset: Callable[..., Asset], policy: str, kind: Kind
) -> None:
    wanted, on_conflict, expected, _ = OVERTAKEN[policy]
    ours, other = asset(kind), asset(kind, "unripe")
    session = Overtaken(workspace.session, lambda: workspace.register(other))
    if expected.isdecimal():
        assert register_asset(session, ours, wanted, on_conflict).version == expected
        assert workspace.versions(ours) == {"1": other.digest, "2": ours.digest}
    else:
        with pytest.raises(RegistrationFailed, match=expected) as caught:
            register_asset(session, ours, wanted, on_conflict)
        assert not caught.value.is_transient
        assert workspace.versions(ours) == {"1": other.digest}
    assert workspace.files(other, "1") == contents(other)


@KINDS
@pytest.mark.parametrize("policy", OVERTAKEN)
def test_who_is_overtaken_by_the_same_content_makes_no_second_version(
    workspace: Workspace, asset: Callable[..., Asset], policy: str, kind: Kind
) -> None:
    wanted, on_conflict, _, expected = OVERTAKEN[policy]
    ours = asset(kind)
    session = Overtaken(workspace.session, lambda: workspace.register(ours))
    assert register_asset(session, ours, wanted, on_conflict).version == expected
    assert workspace.versions(ours) == {"1": ours.digest}


PROGRAM = """
import json, sys
from pathlib import Path
from packhouse.packaging.azureml.registration import Asset, register_asset
from packhouse.packaging.azureml.workspace import AzureMLConnection

told = json.load(sys.stdin)
asset = Asset(**{**told["asset"], "folder": Path(told["asset"]["folder"])})
with AzureMLConnection(**told["connection"]).session() as session:
    print(register_asset(session, asset, "auto", "error").version)
"""


def test_two_runs_in_processes_of_their_own_get_a_version_each_and_the_same_again(
    workspace: Workspace, asset: Callable[..., Asset]
) -> None:
    several = [asset("models"), asset("models", "unripe")]
    connection = vars(workspace.connection)
    told = [json.dumps({"asset": {**vars(one), "folder": str(one.folder)}, "connection": connection}) for one in several]
    command = [sys.executable, "-c", PROGRAM]
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(subprocess.run, command, input=given, check=True, stdout=-1, text=True) for given in told]
        versions = [str(run.result().stdout).strip() for run in runs]
    assert sorted(versions) == ["1", "2"]
    assert workspace.versions(several[0]) == {version: one.digest for version, one in zip(versions, several, strict=True)}
    assert [workspace.register(one, AUTO).version for one in several] == versions


# What is wrong with the block, and what is said before anything is sent to the workspace.
BLOCKS: dict[str, tuple[dict[str, Any], str]] = {
    "subscription missing": (
        {"subscription_id": "11111111-1111-1111-1111-111111111111"},
        r"SubscriptionNotFound: .*→ check subscription_id, resource_group and workspace_name of the block",
    ),
    "resource group missing": ({"resource_group": "elsewhere"}, r"ResourceGroupNotFound: .*→ check subscription_id"),
    "workspace missing": ({"workspace": "elsewhere"}, r"ResourceNotFound: .*→ check subscription_id"),
    "application unknown": (
        {"credential": {"type": "service_principal", "client_id": "nobody", "client_secret": "planted-4711"}},
        r"AADSTS700016: .*→ check tenant, client and secret",
    ),
    "secret wrong": (
        {"credential": {"type": "service_principal", "client_secret": "planted-4711"}},
        r"AADSTS7000215: .*→ check tenant, client and secret",
    ),
    "certificate missing": (
        {"credential": {"type": "certificate", "certificate_path": "/nowhere/azure.pem"}},
        r"/nowhere/azure.pem.*→ check the files and the password in auth of the block",
    ),
    "certificate that is none": (
        {"credential": {"type": "certificate", "certificate_path": __file__}},
        r"→ check the files and the password in auth of the block",
    ),
    "no managed identity here": (
        {"credential": {"type": "managed_identity"}},
        r"→ choose another auth in the block",
    ),
    "no workload identity here": (
        {"credential": {"type": "workload_identity"}},
        r"→ choose another auth in the block, or set what this one looks for",
    ),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_block_that_does_not_fit_is_said_with_what_to_check(workspace: Workspace, case: str) -> None:
    changes, words = BLOCKS[case]
    if "credential" in changes:
        known = {"tenant_id": workspace.azure.tenant_id, "client_id": workspace.azure.client_id}
        is_identity = changes["credential"]["type"].endswith("identity")
        changes = {"credential": {**({} if is_identity else known), **changes["credential"]}}
    wrong = replace(workspace.connection, **changes)
    before = len([request for request in workspace.azure.requests if request.method == "PUT"])
    with pytest.raises(RegistrationFailed, match=words) as caught:
        workspace.session.ask("connect", **wrong.told())
    assert not caught.value.is_transient
    assert "planted-4711" not in str(caught.value)
    assert len([request for request in workspace.azure.requests if request.method == "PUT"]) == before


# Faults of the login and of the first look at the workspace; words; waits; whether later helps.
FIRST: dict[str, tuple[dict[str, Any], str, list[float], bool]] = {
    "role to see the workspace missing": (
        {"method": "GET", "path": "/workspaces/orchard$", "status": 403, "code": "AuthorizationFailed"},
        RBAC,
        [],
        False,
    ),
    "service out of order": (
        {"method": "GET", "path": "/workspaces/orchard$", "status": 503, "code": "ServiceUnavailable"},
        "ServiceUnavailable: .*→ check the network",
        [2.0, 4.0],
        True,
    ),
}


@pytest.mark.parametrize("case", FIRST)
def test_workspace_that_cannot_be_looked_at_is_said_with_what_to_do(workspace: Workspace, case: str) -> None:
    failing, words, waits, is_transient = FIRST[case]
    workspace.waits.clear()
    workspace.azure.fail(**{"times": ALWAYS, **failing})
    with pytest.raises(RegistrationFailed, match=words) as caught:
        workspace.session.ask("connect", **workspace.connection.told())
    assert (workspace.waits, caught.value.is_transient) == (waits, is_transient)
    workspace.azure.faults.planned.clear()
    assert workspace.session.ask("connect", **workspace.connection.told())["location"] == "westeurope"


# What the SDK would wait for: an upload that is never answered, and a server that asks it to come again in an hour.
ENDLESS: dict[str, dict[str, Any]] = {
    "upload never answered": {"method": "PUT", "path": "blob.core", "delay_s": 10.0, "drop_connection": True},
    "retry after an hour": {"method": "PUT", "path": "/versions/", "status": 503, "retry_after": 3600},
}


@pytest.mark.parametrize("case", ENDLESS)
def test_operation_without_end_is_stopped_and_a_second_run_completes(
    workspace: Workspace, asset: Callable[..., Asset], case: str
) -> None:
    made = asset("models")
    with connect(workspace.azure, retries=3).session() as session:
        session.connection = replace(session.connection, timeout_s=2.0)
        workspace.azure.fail(**{"times": ALWAYS, **ENDLESS[case]})
        with pytest.raises(RegistrationFailed, match=r"did not finish 'register model' within 2 s.*raise timeout_s") as caught:
            register_asset(session, made, "1", "error")
    assert caught.value.is_transient
    workspace.azure.faults.planned.clear()
    assert workspace.register(made).version == "1"
    assert workspace.files(made, "1") == contents(made)
