"""Endpoints and their deployments, as far as online and batch ones are alike: states, long-running changes, keys."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.fakes.azure.long_running import LongRunningOperations
from tests.fakes.azure.messages import Request, Response, ServiceError, not_found
from tests.fakes.azure.resources import Call, Handler, listed, resource

LOCATION = "westeurope"
SCORING_DOMAIN = f".{LOCATION}.inference.ml.azure.com"
TRACKED = ("location", "identity", "tags", "sku", "kind")
CHANGING = {"Creating", "Updating", "Deleting"}
Changing = TypeVar("Changing", "Endpoint", "Deployment")


@dataclass
class Deployment:
    """A deployment: what was sent, how far it got, what its containers wrote, and where it listens."""

    endpoint: str
    name: str
    path: str
    properties: dict[str, Any]
    tracked: dict[str, Any]
    state: str = "Creating"
    logs: dict[str, str] = field(default_factory=dict)
    server_log: Path | None = None
    url: str | None = None
    stop: Callable[[], None] = lambda: None

    def log(self, container: str) -> str:
        """Return what a container wrote until now."""
        if container == "InferenceServer" and self.server_log is not None:
            return self.server_log.read_text(encoding="utf-8", errors="replace")
        return self.logs.get(container, "")


@dataclass
class Endpoint:
    """An endpoint with its deployments."""

    name: str
    path: str
    properties: dict[str, Any]
    tracked: dict[str, Any]
    state: str = "Creating"
    deployments: dict[str, Deployment] = field(default_factory=dict)
    keys: dict[str, str] = field(
        default_factory=lambda: {"primaryKey": secrets.token_hex(16), "secondaryKey": secrets.token_hex(16)}
    )

    @property
    def traffic(self) -> dict[str, int]:
        """The percentage of requests that each deployment gets."""
        return self.properties.get("traffic") or {}

    @property
    def scoring_host(self) -> str:
        """The host name under which it is asked."""
        return f"{self.name}{SCORING_DOMAIN}"


class Endpoints(ABC):
    """All endpoints of one kind. `on_deploy` makes a deployment run, or raises what went wrong."""

    kind: str
    scoring_path: str
    # What the service fills in where a request leaves it out.
    endpoint_defaults: Mapping[str, Any]
    deployment_defaults: Mapping[str, Any]

    def __init__(self, long_running: LongRunningOperations, on_deploy: Callable[[Deployment], None]) -> None:
        self._long_running = long_running
        self._on_deploy = on_deploy
        self.on_endpoint: Callable[[Endpoint], None] = lambda _endpoint: None
        self.endpoints: dict[str, Endpoint] = {}
        self.keys: set[str] = set()

    def operations(self) -> dict[str, Handler]:
        """The operations that this kind answers."""
        return {
            f"{self.kind}Endpoints_CreateOrUpdate": self._put_endpoint,
            f"{self.kind}Endpoints_Get": lambda call: Response(200, self._endpoint_resource(self._endpoint(call))),
            f"{self.kind}Endpoints_List": lambda _call: listed(map(self._endpoint_resource, list(self.endpoints.values()))),
            f"{self.kind}Endpoints_Delete": self._delete_endpoint,
            f"{self.kind}Endpoints_ListKeys": lambda call: Response(200, dict(self._endpoint(call).keys)),
            f"{self.kind}Deployments_CreateOrUpdate": self._put_deployment,
            f"{self.kind}Deployments_Get": lambda call: Response(200, self._deployment_resource(self._deployment(call))),
            f"{self.kind}Deployments_List": self._list_deployments,
            f"{self.kind}Deployments_Delete": self._delete_deployment,
        }

    @abstractmethod
    def check_endpoint(self, properties: Mapping[str, Any], deployments: Mapping[str, Deployment]) -> None:
        """Refuse properties that do not fit the deployments there are."""

    @abstractmethod
    def check_unused(self, endpoint: Endpoint, deployment: Deployment) -> None:
        """Refuse to delete a deployment that is in use."""

    @abstractmethod
    def invoke(self, endpoint: Endpoint, request: Request) -> Response:
        """Answer a request to the scoring address."""

    def named_by(self, host: str) -> Endpoint | None:
        """Return the endpoint behind a scoring host."""
        return next((endpoint for endpoint in self.endpoints.values() if endpoint.scoring_host == host), None)

    def stop(self) -> None:
        """End all containers."""
        for endpoint in self.endpoints.values():
            for deployment in endpoint.deployments.values():
                deployment.stop()

    def _endpoint(self, call: Call) -> Endpoint:
        endpoint = self.endpoints.get(call.names["endpointName"])
        if endpoint is None:
            raise not_found(f"{self.kind} endpoint {call.names['endpointName']}")
        return endpoint

    def _deployment(self, call: Call) -> Deployment:
        deployment = self._endpoint(call).deployments.get(call.names["deploymentName"])
        if deployment is None:
            raise not_found(f"{self.kind} deployment {call.names['deploymentName']}")
        return deployment

    def _put_endpoint(self, call: Call) -> Response:
        name = call.names["endpointName"]
        properties, tracked = _split(call.body)
        existing = self.endpoints.get(name)
        if existing is not None:
            _check_idle(existing)
        self.check_endpoint(properties, existing.deployments if existing else {})
        endpoint = existing or Endpoint(name, call.path, {}, {})
        endpoint.properties, endpoint.tracked = _fill_in(self.endpoint_defaults, properties), tracked
        endpoint.state = "Updating" if existing else "Creating"
        self.endpoints[name] = endpoint
        self.keys |= set(endpoint.keys.values())
        answer = self._endpoint_resource(endpoint)
        headers = self._long_running.start(lambda: _settle(endpoint, self.on_endpoint))
        return Response(200 if existing else 201, answer, headers)

    def _put_deployment(self, call: Call) -> Response:
        endpoint, name = self._endpoint(call), call.names["deploymentName"]
        _check_idle(endpoint)
        if endpoint.state != "Succeeded":
            raise ServiceError(400, "BadRequest", f"The endpoint {endpoint.name} is in state {endpoint.state}.")
        existing = endpoint.deployments.get(name)
        if existing is not None:
            _check_idle(existing)
            existing.stop()
        properties, tracked = _split(call.body)
        state = "Updating" if existing else "Creating"
        deployment = Deployment(endpoint.name, name, call.path, _fill_in(self.deployment_defaults, properties), tracked, state)
        endpoint.deployments[name] = deployment
        answer = self._deployment_resource(deployment)
        headers = self._long_running.start(lambda: _settle(deployment, self._on_deploy))
        return Response(200 if existing else 201, answer, headers)

    def _list_deployments(self, call: Call) -> Response:
        return listed(map(self._deployment_resource, list(self._endpoint(call).deployments.values())))

    def _delete_endpoint(self, call: Call) -> Response:
        endpoint = self.endpoints.get(call.names["endpointName"])
        if endpoint is None:
            return Response(204)
        _check_idle(endpoint)
        endpoint.state = "Deleting"

        def delete() -> None:
            for deployment in endpoint.deployments.values():
                deployment.stop()
            del self.endpoints[endpoint.name]

        return Response(202, headers=self._long_running.start(delete))

    def _delete_deployment(self, call: Call) -> Response:
        endpoint = self._endpoint(call)
        deployment = endpoint.deployments.get(call.names["deploymentName"])
        if deployment is None:
            return Response(204)
        _check_idle(deployment)
        self.check_unused(endpoint, deployment)
        deployment.state = "Deleting"

        def delete() -> None:
            deployment.stop()
            del endpoint.deployments[deployment.name]

        return Response(202, headers=self._long_running.start(delete))

    def _endpoint_resource(self, endpoint: Endpoint) -> dict[str, Any]:
        base = f"https://{endpoint.scoring_host}"
        places = {"scoringUri": f"{base}{self.scoring_path}", "swaggerUri": f"{base}/swagger.json"}
        properties = {**endpoint.properties, **places, "provisioningState": endpoint.state}
        return resource(endpoint.path, properties, **endpoint.tracked)

    def _deployment_resource(self, deployment: Deployment) -> dict[str, Any]:
        return resource(deployment.path, {**deployment.properties, "provisioningState": deployment.state}, **deployment.tracked)


def _split(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return deepcopy(body["properties"]), {name: deepcopy(body[name]) for name in TRACKED if name in body}


def _fill_in(defaults: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {**defaults, **{name: value for name, value in properties.items() if value is not None}}


def _check_idle(item: Endpoint | Deployment) -> None:
    if item.state in CHANGING:
        raise ServiceError(409, "Conflict", f"{item.name} is being changed: its state is {item.state}.")


def _settle(item: Changing, work: Callable[[Changing], None]) -> None:
    try:
        work(item)
    except Exception:
        item.state = "Failed"
        raise
    item.state = "Succeeded"
