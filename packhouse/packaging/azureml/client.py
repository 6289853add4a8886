"""The child process that speaks to one Azure ML workspace, and all that is known here of Azure's SDK.

It is a process of its own because the SDK takes seconds and 70 MB to import, sets the cloud in the environment, prints on
standard output, and can hang for ever, all of which ends with it. One JSON request comes per line of standard input, and one
answer per line goes to what was standard output when it started. Nothing else of Packhouse is imported.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.constants import AssetTypes, ListViewType
from azure.ai.ml.entities import Data, Model
from azure.ai.ml.exceptions import MlException
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.identity import (
    AzureAuthorityHosts,
    CertificateCredential,
    ClientSecretCredential,
    CredentialUnavailableError,
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
MODEL_TYPES = {"custom": AssetTypes.CUSTOM_MODEL, "mlflow": AssetTypes.MLFLOW_MODEL}


class Workspace:
    """A workspace that is there and lets us in."""

    def __init__(
        self, scope: list[str], credential: dict[str, str | None], cloud: str, polling_interval: int, **transport: Any
    ) -> None:
        """Log in and look whether the workspace is there; `transport` has what Azure's HTTP pipeline is told."""
        given = {name: value for name, value in credential.items() if value is not None}
        make = CREDENTIALS[given.pop("type")]
        if make is not ManagedIdentityCredential:
            given["authority"] = AUTHORITIES[cloud]
        self._client = MLClient(
            make(**given),
            *scope,
            cloud=cloud,
            enable_telemetry=False,
            polling_interval=polling_interval,
            **transport,
        )
        self.location = self._client.workspaces.get(scope[2]).location

    def versions(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Return version, tags and identity of every version of an asset, archived ones too; none where it is not there."""
        operations = getattr(self._client, kind)
        try:
            found = list(operations.list(name=name, list_view_type=ListViewType.ALL))
        except ResourceNotFoundError:  # not the workspace: that was there
            return []
        return [_described(asset) for asset in found]

    def register_model(self, form: str, **asset: Any) -> dict[str, Any]:
        """Upload a folder and make a version of a model of it; `form` is custom or mlflow."""
        return _described(self._client.models.create_or_update(Model(type=MODEL_TYPES[form], **asset)))

    def register_data(self, **asset: Any) -> dict[str, Any]:
        """Upload a folder and make a version of a data asset of it."""
        return _described(self._client.data.create_or_update(Data(type=AssetTypes.URI_FOLDER, **asset)))


def _described(asset: Any) -> dict[str, Any]:
    return {"id": asset.id, "version": str(asset.version), "tags": dict(asset.tags or {})}


def answer(request: dict[str, Any], workspace: Workspace | None) -> tuple[dict[str, Any], Workspace | None]:
    """Do what is asked; what Azure refuses is an answer too, with all that is needed to judge it."""
    do = request.pop("do")
    try:
        if do == "connect":
            workspace = Workspace(**request)
            return {"ok": {"location": workspace.location}}, workspace
        return {"ok": getattr(workspace, do)(**request)}, workspace
    except (AzureError, MlException, OSError, ValueError) as error:
        return {"failed": failure(error)}, workspace
    except Exception as error:
        if not any(isinstance(cause, AzureError) for cause in _causes(error)):  # the SDK hides some in plain exceptions
            raise
        return {"failed": failure(error)}, workspace


def failure(error: BaseException) -> dict[str, Any]:
    """Return exception, code, status and message of what Azure refused, taken from the first cause that Azure's SDK gave.

    That nobody answered when logging in is no fault of the credential, though the SDK says so.
    """
    causes = list(_causes(error))
    told = next((cause for cause in causes if isinstance(cause, AzureError)), error)
    status, code = None, None
    if isinstance(told, HttpResponseError):
        status = told.status_code
        code = getattr(told.error, "code", None) or getattr(told, "error_code", None)
    message = getattr(getattr(told, "error", None), "message", None) or getattr(told, "message", None) or str(told)
    kind: type[BaseException] = type(told)
    if isinstance(told, CredentialUnavailableError):
        kind = CredentialUnavailableError
    elif isinstance(told, ClientAuthenticationError) and any(
        isinstance(cause, OSError | ServiceRequestError) for cause in causes
    ):
        kind = ServiceRequestError
    return {
        "kind": kind.__name__,
        "code": None if code is None else str(getattr(code, "value", code)),
        "status": status,
        "message": " ".join(str(message).split()),
    }


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    logging.disable(logging.INFO)  # urllib3 would write the signatures of storage addresses
    workspace = None
    for line in sys.stdin:
        told, workspace = answer(json.loads(line), workspace)
        answers.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
