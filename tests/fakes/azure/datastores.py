"""The datastores of assets and of what jobs write, whose blobs are in Azurite, and the uploads that code assets go through."""

import datetime as dt
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from tests.fakes.azure.azurite import Azurite
from tests.fakes.azure.messages import Response, ServiceError, not_found
from tests.fakes.azure.resources import Call, Handler, listed, resource

DEFAULT = "workspaceblobstore"
ARTIFACTS = "workspaceartifactstore"
IN_DATASTORE = re.compile(r"azureml://(?:[^?#]*/)?datastores/(?P<name>[^/]+)/paths/(?P<prefix>.*)")
MAX_HOURS = 24


class Datastores:
    """One storage account with the workspace's containers: the default one, and one for the logs of jobs."""

    def __init__(self, azurite: Azurite, trusted: Path) -> None:
        self._azurite = azurite
        self._service = BlobServiceClient(
            f"https://127.0.0.1:{azurite.port}/{azurite.account}", credential=azurite.key, connection_verify=str(trusted)
        )
        self.container = f"azureml-blobstore-{uuid.uuid4()}"
        self._containers = {DEFAULT: self.container, ARTIFACTS: "azureml"}
        for container in self._containers.values():
            self._service.create_container(container)
        self.signatures: set[str] = set()
        self.identity_based = False

    @property
    def host(self) -> str:
        """The storage account's host name."""
        return f"{self._azurite.account}.blob.core.windows.net"

    def operations(self) -> dict[str, Handler]:
        """The operations on datastores, and the one that opens an upload for code."""
        return {
            "Datastores_Get": self._get,
            "Datastores_List": self._list,
            "Datastores_ListSecrets": self._list_secrets,
            "CodeVersions_CreateOrGetStartPendingUpload": self._start_upload,
        }

    def names(self, container: str | None = None) -> list[str]:
        """Return the names of all blobs of a container; of the default datastore's where none is named."""
        return sorted(self._service.get_container_client(container or self.container).list_blob_names())

    def read(self, name: str, container: str | None = None) -> bytes:
        """Return a blob's bytes."""
        return self._service.get_blob_client(container or self.container, name).download_blob().readall()

    def write(self, datastore: str, name: str, content: bytes) -> None:
        """Write a blob of a datastore anew."""
        self._service.get_blob_client(self._containers[datastore], name).upload_blob(content, overwrite=True)

    def signed(self, datastore: str, name: str) -> str:
        """Return an address under which whoever has it can read a blob."""
        container = self._containers[datastore]
        return f"https://{self.host}/{container}/{name}?{self._sign(container, 1)}"

    def download(self, uri: str, folder: Path) -> Path:
        """Fetch what an asset's address means into `folder`, and return the file or folder that it names."""
        container, prefix = self._locate(uri)
        prefix = prefix.rstrip("/")
        found = [name for name in self.names(container) if not prefix or name == prefix or name.startswith(f"{prefix}/")]
        if not found:
            raise ServiceError(400, "BadArgument", f"There is nothing at {uri}.")
        parent = prefix.rpartition("/")[0]
        for name in found:
            path = folder / name.removeprefix(parent).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(name, container))
        return folder / prefix.rpartition("/")[2]

    def _locate(self, uri: str) -> tuple[str, str]:
        """Return container and prefix for ``azureml://.../paths/...`` and for ``https://account.blob.../container/...``."""
        if found := IN_DATASTORE.fullmatch(uri):
            return self._containers[found["name"]], found["prefix"]
        parts = urlsplit(uri)
        if parts.hostname != self.host:
            raise ServiceError(400, "UserError", f"The fake reaches nothing at {uri}.")
        container, _, prefix = parts.path.lstrip("/").partition("/")
        return container, prefix

    def _get(self, call: Call) -> Response:
        return Response(200, self._resource(call.path, self._known(call)))

    def _list(self, call: Call) -> Response:
        names = [DEFAULT] if call.query.get("isDefault") == "true" else list(self._containers)
        return listed([self._resource(f"{call.path}/{name}", name) for name in names])

    def _known(self, call: Call) -> str:
        if call.names["name"] not in self._containers:
            raise not_found(f"Datastore {call.names['name']}")
        return call.names["name"]

    def _resource(self, path: str, name: str) -> dict[str, Any]:
        credentials: dict[str, Any] = {"credentialsType": "None"}
        if not self.identity_based:
            credentials = {"credentialsType": "Sas", "secrets": {"secretsType": "Sas"}}
        properties = {
            "datastoreType": "AzureBlob",
            "isDefault": name == DEFAULT,
            "accountName": self._azurite.account,
            "containerName": self._containers[name],
            "endpoint": "core.windows.net",
            "protocol": "https",
            "credentials": credentials,
        }
        return resource(path, properties)

    def _list_secrets(self, call: Call) -> Response:
        hours = (call.body or {}).get("expireAfterHours", 1)
        return Response(200, {"secretsType": "Sas", "sasToken": self._sign(self._containers[self._known(call)], hours)})

    def _start_upload(self, _call: Call) -> Response:
        container = str(uuid.uuid4())
        self._service.create_container(container)
        uri = f"https://{self.host}/{container}"
        credential = {"credentialType": "SAS", "sasUri": f"{uri}?{self._sign(container, 1)}"}
        reference = {"blobUri": uri, "storageAccountArmId": "", "credential": credential}
        body = {"pendingUploadId": str(uuid.uuid4()), "pendingUploadType": "TemporaryBlobReference"}
        return Response(200, {**body, "blobReferenceForConsumption": reference})

    def _sign(self, container: str, hours: int) -> str:
        now = dt.datetime.now(dt.UTC)
        token: str = generate_container_sas(
            self._azurite.account,
            container,
            self._azurite.key,
            permission=ContainerSasPermissions(read=True, write=True, create=True, list=True, add=True),
            start=now - dt.timedelta(minutes=5),
            expiry=now + dt.timedelta(hours=min(hours, MAX_HOURS)),
            protocol="https",
        )
        signature = token.partition("sig=")[2]
        self.signatures |= {signature, unquote(signature)}
        return token
