"""Online endpoints: traffic, keys and tokens, logs, and requests that reach the container of a deployment."""

import itertools
import time
from collections.abc import Mapping
from typing import Any

import requests

from tests.fakes.azure.endpoints import Deployment, Endpoint, Endpoints
from tests.fakes.azure.messages import Request, Response, ServiceError
from tests.fakes.azure.resources import Call, Handler

CONTAINER_TIMEOUT_S = 60
TOKEN_LIFETIME_S = 3600
DEPLOYMENT_HEADER = "azureml-model-deployment"
# What a container answers but 200 comes back as 424 (Microsoft's "Troubleshoot online endpoints"), and its status in a header.
MODEL_ERROR = "ms-azureml-model-error-"
# What reaches the container, and comes back; those of binary tensor data have to, or Triton could not be deployed.
THERE = {"content-type", "accept", "x-request-id", "inference-header-content-length"}
BACK = {"content-type", "inference-header-content-length"}


class OnlineEndpoints(Endpoints):
    """All online endpoints of a workspace."""

    kind = "Online"
    scoring_path = "/score"
    endpoint_defaults = {"traffic": {}}
    deployment_defaults = {"scaleSettings": {"scaleType": "Default"}}

    def operations(self) -> dict[str, Handler]:
        """The operations of all endpoints, and those that only online ones have."""
        own: dict[str, Handler] = {
            "OnlineEndpoints_GetToken": self._get_token,
            "OnlineDeployments_GetLogs": self._get_logs,
        }
        return {**super().operations(), **own}

    def check_endpoint(self, properties: Mapping[str, Any], deployments: Mapping[str, Deployment]) -> None:
        """Traffic goes to deployments that exist and is all or nothing."""
        traffic: Mapping[str, int] = properties.get("traffic") or {}
        for name in [*traffic, *(properties.get("mirrorTraffic") or {})]:
            if name not in deployments:
                raise ServiceError(400, "BadRequest", f"Traffic names the deployment {name}, which does not exist.")
        if sum(traffic.values()) not in {0, 100} or any(percent < 0 for percent in traffic.values()):
            raise ServiceError(400, "BadRequest", f"The traffic adds up to {sum(traffic.values())}, not to 0 or 100.")

    def check_unused(self, endpoint: Endpoint, deployment: Deployment) -> None:
        """A deployment with traffic stays."""
        if endpoint.traffic.get(deployment.name):
            raise ServiceError(400, "BadRequest", f"Cannot delete the deployment {deployment.name} with nonzero traffic.")

    def invoke(self, endpoint: Endpoint, request: Request) -> Response:
        """Hand a request to the container that is asked for, or that the traffic leads to."""
        if request.bearer not in endpoint.keys.values():
            return Response(401, {"error": {"code": "Unauthorized", "message": "The key or token is not this endpoint's."}})
        name = request.headers.get(DEPLOYMENT_HEADER) or self._by_traffic(endpoint)
        deployment = endpoint.deployments.get(name or "")
        if deployment is None:
            return Response(404, {"error": {"code": "NotFound", "message": "Specified deployment could not be found"}})
        if deployment.state != "Succeeded" or deployment.url is None:
            return Response(
                424, {"error": {"code": "ModelNotReady", "message": f"{deployment.name} has no running container."}}
            )
        headers = {key: value for key, value in request.headers.items() if key in THERE}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                request.method,
                f"{deployment.url}{request.target}",
                data=request.content,
                headers=headers,
                timeout=CONTAINER_TIMEOUT_S,
            )
        kept = {key: value for key, value in answer.headers.items() if key.lower() in BACK or key.startswith("x-ms-")}
        kept[DEPLOYMENT_HEADER] = deployment.name
        if answer.status_code == 200:
            return Response(200, headers=kept, content=answer.content)
        error = {MODEL_ERROR + "statuscode": str(answer.status_code), MODEL_ERROR + "reason": answer.reason}
        return Response(424, headers={**kept, **error}, content=answer.content)

    def _by_traffic(self, endpoint: Endpoint) -> str | None:
        """Follow the percentages exactly over every hundred requests, so that no test depends on chance."""
        turn = next(self._turns) % 100
        for name, percent in endpoint.traffic.items():
            turn -= percent
            if turn < 0:
                return name
        return None

    _turns = itertools.count()

    def _get_token(self, call: Call) -> Response:
        endpoint = self._endpoint(call)
        expires = int(time.time()) + TOKEN_LIFETIME_S
        token = {"accessToken": endpoint.keys["secondaryKey"], "tokenType": "Bearer"}
        return Response(200, {**token, "expiryTimeUtc": expires, "refreshAfterTimeUtc": expires - 300})

    def _get_logs(self, call: Call) -> Response:
        log = self._deployment(call).log(call.body.get("containerType") or "InferenceServer")
        lines = log.splitlines(keepends=True)
        return Response(200, {"content": "".join(lines[-(call.body.get("tail") or len(lines)) :])})
