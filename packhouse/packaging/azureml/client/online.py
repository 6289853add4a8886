"""Online endpoints: deployments, traffic, logs and requests."""

from pathlib import Path
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    CodeConfiguration,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    OnlineRequestSettings,
    ProbeSettings,
)
from azure.ai.ml.exceptions import MlException
from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.rest import HttpRequest

from packhouse.packaging.azureml.client.changes import Changes

DEPLOYMENT = "azureml-model-deployment"
JSON = {"Content-Type": "application/json"}
CONTAINERS = {"inference server": "inference-server", "storage initializer": "storage-initializer"}
# What is an object of the SDK, and not a plain value.
NESTED = {"request_settings": OnlineRequestSettings, "liveness_probe": ProbeSettings, "readiness_probe": ProbeSettings}
UNAUTHORIZED = 401


class OnlineEndpoints:
    """The managed online endpoints of a workspace."""

    def __init__(self, client: MLClient, changes: Changes) -> None:
        """Use a client that has logged in."""
        self._client, self._changes = client, changes
        self._asked: dict[str, tuple[str, str]] = {}
        # Without policies, for one of the default ones fails on every answer that is neither JSON nor XML.
        self._http: PipelineClient[Any, Any] = PipelineClient("", policies=[])

    def find(self, endpoint: str) -> dict[str, Any] | None:
        """Return what there is of an endpoint; None where it is not there."""
        try:
            found = self._client.online_endpoints.get(endpoint)
        except ResourceNotFoundError:  # not the workspace: that was there
            return None
        deployments = list(self._client.online_deployments.list(endpoint))
        return {
            "id": found.id,
            "state": found.provisioning_state,
            "address": found.scoring_uri,
            "traffic": {name: int(percent) for name, percent in (found.traffic or {}).items() if percent},
            "deployments": [
                {"name": item.name, "state": item.provisioning_state, "tags": dict(item.tags or {})} for item in deployments
            ],
        }

    def create(self, endpoint: str, tags: dict[str, str]) -> int:
        """Begin to make an endpoint that is asked with a key."""
        made = ManagedOnlineEndpoint(name=endpoint, auth_mode="key", tags=tags)
        return self._changes.begun(self._client.online_endpoints.begin_create_or_update(made))

    def repair(self, endpoint: str) -> int:
        """Begin to make an endpoint anew that failed, as it is."""
        found = self._client.online_endpoints.get(endpoint)
        return self._changes.begun(self._client.online_endpoints.begin_create_or_update(found))

    def route(self, endpoint: str, traffic: dict[str, int]) -> int:
        """Begin to send the percentages of requests to deployments."""
        found = self._client.online_endpoints.get(endpoint)
        found.traffic = traffic
        return self._changes.begun(self._client.online_endpoints.begin_create_or_update(found))

    def deploy(self, endpoint: str, code: dict[str, str] | None, **settings: Any) -> int:
        """Begin to make a deployment; or to make it anew, where it is there."""
        nested = {name: kind(**settings.pop(name)) for name, kind in NESTED.items() if settings.get(name)}
        made = ManagedOnlineDeployment(
            endpoint_name=endpoint, code_configuration=CodeConfiguration(**code) if code else None, **settings, **nested
        )
        return self._changes.begun(self._client.online_deployments.begin_create_or_update(made))

    def delete_deployment(self, endpoint: str, deployment: str) -> int:
        """Begin to delete a deployment."""
        return self._changes.begun(self._client.online_deployments.begin_delete(deployment, endpoint))

    def delete(self, endpoint: str) -> int:
        """Begin to delete an endpoint."""
        return self._changes.begun(self._client.online_endpoints.begin_delete(endpoint))

    def logs(self, endpoint: str, deployment: str, lines: int) -> dict[str, str]:
        """Return the last lines that the containers of a deployment wrote."""
        get = self._client.online_deployments.get_logs
        return {
            name: get(deployment, endpoint, lines=lines, container_type=container) or ""
            for name, container in CONTAINERS.items()
        }

    def invoke(self, endpoint: str, deployment: str, path: str) -> str:
        """Return what a deployment answers to a file of JSON, as any user of the SDK would ask it.

        The SDK cannot read errors that are not in Azure's own form, and tells no status then; so it is asked once more.
        """
        try:
            return str(self._client.online_endpoints.invoke(endpoint, request_file=path, deployment_name=deployment))
        except (AttributeError, MlException, TypeError):
            return str(self._answer(endpoint, deployment, Path(path).read_bytes(), JSON).text())

    def post(
        self, endpoint: str, deployment: str | None, path: str, answer_path: str, headers: dict[str, str]
    ) -> dict[str, str]:
        """Post the bytes of a file, write what is answered into another, and return the headers of the answer.

        Without a deployment, it is asked to which the traffic leads.
        """
        response = self._answer(endpoint, deployment, Path(path).read_bytes(), headers)
        Path(answer_path).write_bytes(response.content)
        return {name.lower(): value for name, value in response.headers.items()}

    def _answer(self, endpoint: str, deployment: str | None, content: bytes, headers: dict[str, str]) -> Any:
        """Return the answer to a request. Address and key are looked up once for many, which `invoke` does for each."""
        named = {**headers, **({DEPLOYMENT: deployment} if deployment else {})}
        address, key = self._asked.get(endpoint) or self._address(endpoint)
        response = self._send(address, key, named, content)
        if response.status_code == UNAUTHORIZED:  # tokens expire
            address, key = self._address(endpoint)
            response = self._send(address, key, named, content)
        if response.status_code >= 400:
            raise HttpResponseError(message=f"it answered {response.status_code}: {response.text()}", response=response)
        return response

    def _send(self, address: str, key: str, headers: dict[str, str], content: bytes) -> Any:
        request = HttpRequest("POST", address, headers={**headers, "Authorization": f"Bearer {key}"}, content=content)
        return self._http.send_request(request)

    def _address(self, endpoint: str) -> tuple[str, str]:
        address = self._client.online_endpoints.get(endpoint).scoring_uri
        keys = self._client.online_endpoints.get_keys(endpoint)
        self._asked[endpoint] = (str(address), str(getattr(keys, "primary_key", None) or getattr(keys, "access_token", "")))
        return self._asked[endpoint]
