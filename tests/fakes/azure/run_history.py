"""The workspace's data plane, as far as the SDK asks it about jobs: discovery, run history, addresses of outputs, lists.

Its contract is not published; what is answered is what the models of azure-ai-ml read.
"""

import re
from collections.abc import Callable
from typing import Any

from tests.fakes.azure.datastores import ARTIFACTS, Datastores
from tests.fakes.azure.endpoints import LOCATION
from tests.fakes.azure.identity import Identity
from tests.fakes.azure.jobs import Job, Jobs
from tests.fakes.azure.messages import Request, Response, ServiceError, not_found

HOST = f"{LOCATION}.api.azureml.ms"
LOG = "user_logs/std_log_0.txt"
SCORE = "score"
DETAILS = ("runId", "parentRunId", "tags", "properties", "error")


class RunHistory:
    """Answers for one workspace; `workspace` is the path of its resource."""

    def __init__(self, workspace: str, identity: Identity, jobs: Jobs, datastores: Datastores) -> None:
        self._identity = identity
        self._jobs = jobs.jobs
        self._datastores = datastores
        place = re.escape(workspace)
        routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("GET", f"/history/v1.0{place}/runs/(?P<run>[^/]+)", self._run),
            ("GET", f"/history/v1.0{place}/runs/(?P<run>[^/]+)/children", self._children),
            ("GET", f"/history/v1.0{place}/runs/(?P<run>[^/]+)/details", self._details),
            ("POST", f"/history/v1.0{place}/rundata", self._run_data),
            ("POST", f"/data/v1.0{place}/dataversion/batchGetResolvedUris", self._addresses),
            ("GET", f"/mferp/managementfrontend{place}/batchEndpoints/(?P<endpoint>[^/]+)/jobs", self._list),
            (
                "GET",
                f"/mferp/managementfrontend{place}/batchEndpoints/(?P<endpoint>[^/]+)/deployments/(?P<deployment>[^/]+)/jobs",
                self._list,
            ),
        )
        self._routes = [(method, re.compile(path, re.IGNORECASE), answer) for method, path, answer in routes]

    def answer(self, request: Request) -> Response:
        """Answer a request; all but discovery asks for a token."""
        if request.path == "/discovery":
            return Response(200, {"api": f"https://{HOST}", "history": f"https://{HOST}", "catalog": "", "experimentation": ""})
        if not self._identity.knows(request.bearer):
            return Response(401, {"error": {"code": "UserError", "message": "The token is invalid or has expired."}})
        try:
            for method, path, answer in self._routes:
                if method == request.method and (found := path.fullmatch(request.path)):
                    return Response(200, answer(request, **found.groupdict()))
            raise not_found(str(request))
        except ServiceError as error:
            return error.response()

    def _job(self, run: str) -> Job:
        for job in self._jobs.values():
            if run in {job.name, job.child}:
                return job
        raise not_found(f"Run {run}")

    def _run(self, _request: Request, run: str) -> dict[str, Any]:
        """Return a run: that of a job, or that of its only step, which is named as Azure names it."""
        job = self._job(run)
        is_step = run == job.child
        outputs = {SCORE: {"assetId": self._asset_id(job), "type": "uri_folder"}} if job.status == "Completed" else {}
        return {
            "runId": run,
            "parentRunId": job.name if is_step else None,
            "rootRunId": job.name,
            "displayName": "batchscoring" if is_step else job.name,
            "experimentId": job.endpoint,
            "status": job.status,
            "createdUtc": job.started,
            "tags": {} if is_step else job.tags,
            "properties": {},
            "outputs": outputs,
            **({"error": job.error.body()} if job.error else {}),
        }

    def _children(self, request: Request, run: str) -> dict[str, Any]:
        job = self._job(run)
        return {"value": [self._run(request, job.child)] if run == job.name else []}

    def _details(self, request: Request, run: str) -> dict[str, Any]:
        """Return how a run goes on, with the addresses of its logs once they are written."""
        job = self._job(run)
        status = job.look(f"details of {run}")
        logs = {LOG: self._datastores.signed(ARTIFACTS, f"ExperimentRun/dcid.{run}/{LOG}")} if job.has_ended else {}
        shown = self._run(request, run)
        kept: dict[str, Any] = {name: shown[name] for name in DETAILS if name in shown}
        return {**kept, "status": status, "logFiles": logs}

    def _run_data(self, request: Request) -> dict[str, Any]:
        return {"runMetadata": self._run(request, request.body["runId"])}

    def _addresses(self, request: Request) -> dict[str, Any]:
        addresses = {self._asset_id(job): job.result_uri for job in self._jobs.values()}
        return {"values": {name: {"uri": addresses[name], "type": "uri_folder"} for name in request.body["values"]}}

    def _list(self, _request: Request, endpoint: str, deployment: str | None = None) -> dict[str, Any]:
        found = [job for job in self._jobs.values() if job.endpoint == endpoint and deployment in {None, job.deployment}]
        return {"value": [job.answer() for job in found]}

    @staticmethod
    def _asset_id(job: Job) -> str:
        return f"azureml://locations/{LOCATION}/data/azureml_{job.child}_output_data_{SCORE}/versions/1"
