"""Batch endpoints: deployments, the default one, and jobs."""

from typing import Any

from azure.ai.ml import Input, MLClient
from azure.ai.ml.entities import (
    BatchEndpoint,
    BatchRetrySettings,
    CodeConfiguration,
    ModelBatchDeployment,
    ModelBatchDeploymentSettings,
)
from azure.core.exceptions import ResourceNotFoundError

from packhouse.packaging.azureml.client.changes import Changes

OUTPUT = "score"  # the service's name of what a scoring script writes


class BatchEndpoints:
    """The batch endpoints of a workspace."""

    def __init__(self, client: MLClient, changes: Changes) -> None:
        """Use a client that has logged in."""
        self._client, self._changes = client, changes

    def find(self, endpoint: str) -> dict[str, Any] | None:
        """Return what there is of an endpoint; None where it is not there. Its default deployment has all its traffic."""
        try:
            found = self._client.batch_endpoints.get(endpoint)
        except ResourceNotFoundError:  # not the workspace: that was there
            return None
        default = getattr(found.defaults, "deployment_name", None) or (found.defaults or {}).get("deployment_name")
        deployments = list(self._client.batch_deployments.list(endpoint))
        return {
            "id": found.id,
            "state": found.provisioning_state,
            "address": found.scoring_uri,
            "traffic": {default: 100} if default else {},
            "deployments": [
                {"name": item.name, "state": item.provisioning_state, "tags": dict(item.tags or {})} for item in deployments
            ],
        }

    def create(self, endpoint: str, tags: dict[str, str]) -> int:
        """Begin to make an endpoint."""
        made = BatchEndpoint(name=endpoint, tags=tags)
        return self._changes.begun(self._client.batch_endpoints.begin_create_or_update(made))

    def repair(self, endpoint: str) -> int:
        """Begin to make an endpoint anew that failed, as it is."""
        found = self._client.batch_endpoints.get(endpoint)
        return self._changes.begun(self._client.batch_endpoints.begin_create_or_update(found))

    def route(self, endpoint: str, traffic: dict[str, int]) -> int:
        """Begin to make a deployment the default one: that which is to have all traffic; or none, where none has."""
        found = self._client.batch_endpoints.get(endpoint)
        found.defaults = {"deployment_name": next(iter(traffic), None)}
        return self._changes.begun(self._client.batch_endpoints.begin_create_or_update(found))

    def deploy(
        self,
        endpoint: str,
        code: dict[str, str],
        settings: dict[str, Any],
        retry_settings: dict[str, int] | None,
        **deployment: Any,
    ) -> int:
        """Begin to make a deployment; or to make it anew, where it is there."""
        made = ModelBatchDeployment(
            endpoint_name=endpoint,
            code_configuration=CodeConfiguration(**code),
            settings=ModelBatchDeploymentSettings(
                retry_settings=BatchRetrySettings(**retry_settings) if retry_settings else None, **settings
            ),
            **deployment,
        )
        return self._changes.begun(self._client.batch_deployments.begin_create_or_update(made))

    def delete_deployment(self, endpoint: str, deployment: str) -> int:
        """Begin to delete a deployment."""
        return self._changes.begun(self._client.batch_deployments.begin_delete(deployment, endpoint))

    def delete(self, endpoint: str) -> int:
        """Begin to delete an endpoint."""
        return self._changes.begun(self._client.batch_endpoints.begin_delete(endpoint))

    def invoke(self, endpoint: str, deployment: str, folder: str) -> str:
        """Upload a folder, start a job that scores its files, and return the job's name."""
        files = Input(type="uri_folder", path=folder)
        return str(self._client.batch_endpoints.invoke(endpoint, deployment_name=deployment, input=files).name)

    def status(self, job: str) -> str:
        """Return the state of a job, in the service's words."""
        status = self._client.jobs.get(job).status
        return str(getattr(status, "value", status))

    def fetch(self, job: str, folder: str) -> None:
        """Download what the scoring script of a job wrote."""
        self._client.jobs.download(job, download_path=folder, output_name=OUTPUT)

    def fetch_logs(self, job: str, folder: str) -> None:
        """Download the logs of a job."""
        self._client.jobs.download(job, download_path=folder)

    def cancel(self, job: str) -> None:
        """Stop a job."""
        self._client.jobs.begin_cancel(job).wait()
