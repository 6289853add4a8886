"""The block of an Azure ML workspace: what Prefect asks of every block, and that it keeps its secrets."""

from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import ValidationError

from blocks.azureml import AzureMLWorkspace
from blocks.register import block_types
from packhouse.packaging.azureml.base import BLOCK_TYPE

SECRET = "planted-4711"
ID = "11111111-1111-1111-1111-111111111111"
WORKSPACE = {"subscription_id": ID, "resource_group": "models", "workspace_name": "production"}
PRINCIPAL = {"type": "service_principal", "tenant_id": ID, "client_id": ID, "client_secret": SECRET}
CERTIFICATE = {
    "type": "certificate",
    "tenant_id": ID,
    "client_id": ID,
    "certificate_path": "/keys/azure.pem",
    "password": SECRET,
}


def block(**settings: Any) -> AzureMLWorkspace:
    return AzureMLWorkspace.model_validate({**WORKSPACE, **settings})


class TestAzureMLWorkspace(BlockStandardTestSuite):
    """Prefect's own checks."""

    @pytest.fixture
    def block(self) -> type[AzureMLWorkspace]:
        return AzureMLWorkspace

    @pytest.mark.skip(reason="fetches the logo from the internet")
    def test_has_a_valid_image(self, block: type[Block]) -> None: ...


def test_the_block_is_registered_under_the_type_that_configurations_name() -> None:
    assert AzureMLWorkspace in block_types()
    assert AzureMLWorkspace.get_block_type_slug() == BLOCK_TYPE


def test_client_has_everything_that_the_block_says() -> None:
    client = block(auth=PRINCIPAL, cloud="AzureUSGovernment", timeout_s=7, read_timeout_s=8, retry_total=9).get_client()
    assert client.resource_id.split("/") == [
        "",
        *("subscriptions", ID, "resourceGroups", "models"),
        *("providers", "Microsoft.MachineLearningServices", "workspaces", "production"),
    ]
    assert client.credential == PRINCIPAL
    assert (client.cloud, client.timeout_s, client.read_timeout_s, client.retries) == ("AzureUSGovernment", 7, 8, 9)


@pytest.mark.parametrize(
    ("auth", "credential"),
    [
        ({"type": "default"}, {"type": "default"}),
        (CERTIFICATE, CERTIFICATE),
        ({"type": "managed_identity"}, {"type": "managed_identity", "client_id": None}),
        ({"type": "managed_identity", "client_id": ID}, {"type": "managed_identity", "client_id": ID}),
        (
            {"type": "workload_identity", "token_file_path": "/token"},
            {"type": "workload_identity", "tenant_id": None, "client_id": None, "token_file_path": "/token"},
        ),
    ],
)
def test_each_way_to_log_in_gives_the_arguments_of_its_credential(auth: dict[str, str], credential: dict[str, Any]) -> None:
    assert block(auth=auth).get_client().credential == credential


@pytest.mark.parametrize("auth", [PRINCIPAL, CERTIFICATE])
def test_secrets_are_in_no_repr(auth: dict[str, str]) -> None:
    made = block(auth=auth)
    client = made.get_client()
    assert client.secrets == (SECRET,)
    assert SECRET not in f"{made!r} {made} {made.model_dump_json()} {client!r} {client}"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"subscription_id": "production"}, "valid UUID"),
        ({"resource_group": "a/b"}, "should match pattern"),
        ({"workspace_name": "a"}, "should match pattern"),
        ({"cloud": "Azure"}, "AzureCloud"),
        ({"auth": {**PRINCIPAL, "client_secret": ""}}, "at least 1"),
        ({"auth": {**PRINCIPAL, "secret": SECRET}}, "auth.service_principal.secret"),
        ({"auth": {"type": "password", "client_secret": SECRET}}, "service_principal"),
        ({"timeout_s": 0}, "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused_without_showing_secrets(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        block(**{"auth": PRINCIPAL, **given})
    assert SECRET not in str(caught.value)
