"""The workspace of the fake Azure as the product connects to it, and what was uploaded to it."""

from pathlib import Path
from typing import Any

from packhouse.packaging.azureml.workspace import AzureMLConnection
from tests.fakes.azure import FakeAzure


def connect(azure: FakeAzure, **changes: Any) -> AzureMLConnection:
    """Return the workspace with its service principal; the SDK repeats nothing, so that we do."""
    principal = {"tenant_id": azure.tenant_id, "client_id": azure.client_id, "client_secret": azure.client_secret}
    settings = {
        "subscription_id": azure.subscription_id,
        "resource_group": azure.resource_group,
        "workspace": azure.workspace,
        "credential": {"type": "service_principal", **principal},
        "secrets": (azure.client_secret,),
        "retries": 0,
    }
    return AzureMLConnection(**{**settings, **changes})


def uploaded(azure: FakeAzure, uri: str) -> dict[str, bytes]:
    """Return the files at an asset's address."""
    prefix = uri.rstrip("/").partition("/paths/")[2] + "/"
    return {name.removeprefix(prefix): azure.blob(name) for name in azure.blobs() if name.startswith(prefix)}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
