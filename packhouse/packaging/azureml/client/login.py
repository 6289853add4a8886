"""Logging in to a workspace."""

from collections.abc import Callable
from typing import Any

from azure.ai.ml import MLClient
from azure.identity import (
    AzureAuthorityHosts,
    CertificateCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

CREDENTIALS: dict[str, Callable[..., Any]] = {
    "default": DefaultAzureCredential,
    "service_principal": ClientSecretCredential,
    "certificate": CertificateCredential,
    "managed_identity": ManagedIdentityCredential,
    "workload_identity": WorkloadIdentityCredential,
}
AUTHORITIES = {
    "AzureCloud": AzureAuthorityHosts.AZURE_PUBLIC_CLOUD,
    "AzureChinaCloud": AzureAuthorityHosts.AZURE_CHINA,
    "AzureUSGovernment": AzureAuthorityHosts.AZURE_GOVERNMENT,
}


def client_of(scope: list[str], credential: dict[str, str | None], cloud: str, **transport: Any) -> MLClient:
    """Return a client that logs in when it is first used; `transport` has what Azure's HTTP pipeline is told."""
    given = {name: value for name, value in credential.items() if value is not None}
    make = CREDENTIALS[given.pop("type")]
    if make is not ManagedIdentityCredential:
        given["authority"] = AUTHORITIES[cloud]
    return MLClient(make(**given), *scope, cloud=cloud, enable_telemetry=False, **transport)
