"""Batch endpoints: a default deployment, and jobs that score files with the code, model and environment of a deployment."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.azure.datastores import DEFAULT as DATASTORE
from tests.fakes.azure.endpoints import Deployment, Endpoint, Endpoints
from tests.fakes.azure.identity import Identity
from tests.fakes.azure.jobs import Job, Jobs
from tests.fakes.azure.long_running import LongRunningOperations
from tests.fakes.azure.messages import Request, Response, ServiceError
from tests.fakes.azure.online import DEPLOYMENT_HEADER
from tests.fakes.azure.schema import Schema, Validator

RETRY_DEFAULTS = {"maxRetries": 3, "timeout": "PT30S"}
# Settings of a deployment that a job may have otherwise.
OVERRIDABLE = ("miniBatchSize", "errorThreshold", "outputFileName", "retrySettings")
DATA: Schema = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": {
            name: {"type": "string"} for name in ("jobInputType", "jobOutputType", "uri", "mode", "value", "description")
        },
    },
}
# What is sent to the scoring address of a batch endpoint. Not published; these are the members that azure-ai-ml can send.
INVOCATION: Mapping[str, Schema] = {
    "Invocation": {
        "type": "object",
        "required": ["properties"],
        "properties": {"properties": {"$ref": "#/definitions/BatchJob"}},
    },
    "BatchJob": {
        "type": "object",
        "required": ["inputData"],
        "properties": {
            "inputData": DATA,
            "outputData": DATA,
            "name": {"type": "string"},
            "miniBatchSize": {"type": "integer", "minimum": 1},
            "errorThreshold": {"type": "integer", "minimum": -1},
            "outputFileName": {"type": "string"},
            "retrySettings": {
                "type": "object",
                "properties": {"maxRetries": {"type": "integer"}, "timeout": {"type": "string", "format": "duration"}},
            },
            "properties": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}


class BatchEndpoints(Endpoints):
    """All batch endpoints of a workspace; `workspace` leads to it in long addresses of blobs."""

    kind = "Batch"
    scoring_path = "/jobs"
    endpoint_defaults = {"defaults": {"deploymentName": None}}
    deployment_defaults = {
        "errorThreshold": -1,
        "miniBatchSize": 10,
        "maxConcurrencyPerInstance": 1,
        "outputAction": "AppendRow",
        "outputFileName": "predictions.csv",
        "retrySettings": RETRY_DEFAULTS,
    }

    def __init__(
        self,
        long_running: LongRunningOperations,
        on_deploy: Callable[[Deployment], None],
        workspace: str,
        identity: Identity,
        jobs: Jobs,
        violations: list[str],
    ) -> None:
        super().__init__(long_running, on_deploy)
        self._workspace = workspace
        self._identity = identity
        self._jobs = jobs
        self._violations = violations

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
        """Start a job on the deployment that is asked for, or on the default."""
        try:
            return self._start(endpoint, request)
        except ServiceError as error:
            return error.response()

    def _start(self, endpoint: Endpoint, request: Request) -> Response:
        if not self._identity.knows(request.bearer):
            raise ServiceError(401, "Unauthorized", "Batch endpoints are asked with a token of Microsoft Entra ID.")
        if problems := list(Validator(INVOCATION).problems(request.body, {"$ref": "#/definitions/Invocation"})):
            self._violations += [f"{request}: {problem}" for problem in problems]
            raise ServiceError(400, "ValidationError", "; ".join(problems))
        default = (endpoint.properties.get("defaults") or {}).get("deploymentName")
        deployment = endpoint.deployments.get(request.headers.get(DEPLOYMENT_HEADER) or default or "")
        if deployment is None:
            raise ServiceError(404, "NotFound", "Specified deployment could not be found")
        if deployment.state != "Succeeded":
            raise ServiceError(400, "BadRequest", f"The deployment {deployment.name} is in state {deployment.state}.")
        job = self._job(endpoint, deployment, request.body["properties"])
        self._jobs.start(job)
        return Response(201, job.answer())

    def _job(self, endpoint: Endpoint, deployment: Deployment, sent: Mapping[str, Any]) -> Job:
        name = sent.get("name") or f"batchjob-{uuid.uuid4()}"
        settings = {**deployment.properties, **{key: sent[key] for key in OVERRIDABLE if key in sent}}
        settings["retrySettings"] = {**RETRY_DEFAULTS, **settings["retrySettings"]}
        folder = f"azureml://{self._workspace}/datastores/{DATASTORE}/paths/azureml/{name}/score/"
        result = folder
        for output in (sent.get("outputData") or {}).values():
            folder = result = output["uri"]
            if output["jobOutputType"] == "UriFile":
                folder, _, settings["outputFileName"] = result.rpartition("/")
        return Job(
            name=name,
            endpoint=endpoint.name,
            deployment=deployment.name,
            path=f"{endpoint.path}/jobs/{name}",
            sent=sent,
            settings=settings,
            inputs=sent["inputData"],
            output_uri=folder,
            result_uri=result,
        )
