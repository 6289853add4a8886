"""Batch endpoints: a default deployment, and jobs that are accepted and listed but not run."""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any

from tests.fakes.azure.endpoints import Deployment, Endpoint, Endpoints
from tests.fakes.azure.messages import Request, Response, ServiceError
from tests.fakes.azure.online import DEPLOYMENT_HEADER


class BatchEndpoints(Endpoints):
    """All batch endpoints of a workspace."""

    kind = "Batch"
    scoring_path = "/jobs"
    endpoint_defaults = {"defaults": {"deploymentName": None}}
    deployment_defaults = {"errorThreshold": -1, "outputFileName": "predictions.csv"}
    jobs: dict[str, dict[str, Any]]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.jobs = {}

    def check_endpoint(self, properties: Mapping[str, Any], deployments: Mapping[str, Deployment]) -> None:
        """The default is a deployment that exists."""
        default = (properties.get("defaults") or {}).get("deploymentName")
        if default and default not in deployments:
            raise ServiceError(400, "BadRequest", f"The default deployment {default} does not exist.")

    def check_unused(self, endpoint: Endpoint, deployment: Deployment) -> None:
        """Anything may go, as long as it is not the default."""
        if (endpoint.properties.get("defaults") or {}).get("deploymentName") == deployment.name:
            raise ServiceError(400, "BadRequest", f"Cannot delete the default deployment {deployment.name}.")

    def invoke(self, endpoint: Endpoint, request: Request) -> Response:
        """Accept a job."""
        default = (endpoint.properties.get("defaults") or {}).get("deploymentName")
        name = request.headers.get(DEPLOYMENT_HEADER) or default
        if name not in endpoint.deployments:
            return Response(404, {"error": {"code": "NotFound", "message": "Specified deployment could not be found"}})
        job = f"batchjob-{uuid.uuid4()}"
        sent = (request.body or {}).get("properties", {})
        now = dt.datetime.now(dt.UTC).isoformat()
        self.jobs[job] = {
            "id": f"{endpoint.path}/jobs/{job}",
            "name": job,
            "type": "Microsoft.MachineLearningServices/workspaces/batchEndpoints/jobs",
            "systemData": {"createdAt": now, "createdBy": "packhouse tests", "createdByType": "Application"},
            "properties": {**sent, "deploymentName": name, "status": "Preparing"},
        }
        return Response(201, self.jobs[job])
