"""The block of an MLflow server: what Prefect asks of every block, and that it keeps its secrets."""

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import ValidationError

from blocks.mlflow import MLflowServer
from blocks.register import block_types
from packhouse.packaging.mlflow.model import BLOCK_TYPE
from packhouse.packaging.mlflow.registry import MLflowRegistry

SECRET = "planted-4711"
URI = "https://mlflow.example.com"


class TestMLflowServer(BlockStandardTestSuite):
    """Prefect's own checks."""

    @pytest.fixture
    def block(self) -> type[MLflowServer]:
        return MLflowServer

    @pytest.mark.skip(reason="fetches the logo from the internet")
    def test_has_a_valid_image(self, block: type[Block]) -> None: ...


def test_the_block_is_registered_under_the_type_that_configurations_name() -> None:
    assert MLflowServer in block_types()
    assert MLflowServer.get_block_type_slug() == BLOCK_TYPE


def test_client_has_everything_that_the_block_says() -> None:
    block = MLflowServer(
        tracking_uri=f"{URI}/", registry_uri="http://models", username="me", password=SECRET, timeout_s=7, ca_file="/ca.pem"
    )
    expected = MLflowRegistry(
        tracking_uri=URI, registry_uri="http://models", username="me", password=SECRET, timeout_s=7, ca_file="/ca.pem"
    )
    assert block.get_client() == expected


def test_variables_of_another_server_do_not_reach_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "other")
    monkeypatch.setenv("KEPT", "yes")
    environment = MLflowServer(tracking_uri=URI, insecure=True).get_client().environment
    assert (environment["MLFLOW_TRACKING_URI"], environment["MLFLOW_REGISTRY_URI"]) == (URI, URI)
    assert environment["MLFLOW_TRACKING_INSECURE_TLS"] == "true"
    assert environment["KEPT"] == "yes"
    assert "MLFLOW_TRACKING_TOKEN" not in environment


@pytest.mark.parametrize("given", [{"username": "me", "password": SECRET}, {"token": SECRET}])
def test_secrets_are_in_no_repr(given: dict[str, str]) -> None:
    block = MLflowServer(tracking_uri=URI, **given)
    client = block.get_client()
    assert SECRET in client.environment.values()
    assert SECRET not in f"{block!r} {block} {block.model_dump_json()} {client!r} {client}"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"tracking_uri": "sqlite:///mlflow.db"}, "write http://"),
        ({"tracking_uri": "https://"}, "write http://"),
        ({"tracking_uri": f"https://me:{SECRET}@mlflow"}, "use username and password"),
        ({"password": SECRET}, "belong together"),
        ({"username": "me"}, "belong together"),
        ({"username": "me", "password": SECRET, "token": SECRET}, "or token"),
        ({"token": SECRET, "insecure": True, "ca_file": "/ca.pem"}, "give one of them"),
        ({"timeout_s": 0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused_without_showing_secrets(given: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        MLflowServer.model_validate({"tracking_uri": URI, **given})
    assert SECRET not in str(caught.value)
