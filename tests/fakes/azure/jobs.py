"""Jobs of a workspace: each runs in a thread, ends as Completed, Failed or Canceled, and is shown by the Resource Manager."""

import datetime as dt
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.azure.long_running import LongRunningOperations
from tests.fakes.azure.messages import Response, ServiceError, not_found
from tests.fakes.azure.resources import Call, Handler, resource

ENDED = {"Completed", "Failed", "Canceled"}


@dataclass
class Job:
    """A batch job, which Azure shows as a pipeline of one step, `child`. `settings` are the deployment's and its own.

    `output_uri` is the folder of its output; `result_uri` is what its output is said to be, which may be a file in it.
    """

    name: str
    endpoint: str
    deployment: str
    path: str
    sent: Mapping[str, Any]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    output_uri: str
    result_uri: str
    status: str = "Preparing"
    error: ServiceError | None = None
    child: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat())
    is_cancelled: bool = False
    stop: Callable[[], None] = lambda: None
    thread: threading.Thread | None = None
    _looks: Counter[str] = field(default_factory=Counter)

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which the SDK knows what its output is."""
        deployed = {"azureml.endpointname": self.endpoint, "azureml.deploymentname": self.deployment}
        return {"azureml.batchrun": "true", "azureml.jobtype": "azureml.pipelinejob", **deployed}

    @property
    def has_ended(self) -> bool:
        """Whether the status is the last one."""
        return self.status in ENDED

    def cancel(self) -> None:
        """Have the job end before its time."""
        self.is_cancelled = True
        self.stop()

    def look(self, place: str) -> str:
        """Return the status as it is seen at a place, where who looks first always sees the job going on."""
        self._looks[place] += 1
        return "Running" if self._looks[place] == 1 and self.has_ended else self.status

    def answer(self) -> dict[str, Any]:
        """Return the job as the endpoint tells it."""
        return {
            "id": self.path,
            "name": self.name,
            "type": "Microsoft.MachineLearningServices/workspaces/batchEndpoints/jobs",
            "systemData": {"createdAt": self.started, "createdBy": "packhouse tests", "createdByType": "Application"},
            "properties": {**self.sent, "deploymentName": self.deployment, "status": self.status},
        }


class Jobs:
    """All jobs of a workspace, by name. `work` runs one and raises what went wrong."""

    def __init__(self, long_running: LongRunningOperations, work: Callable[[Job], None]) -> None:
        self._long_running = long_running
        self._work = work
        self.jobs: dict[str, Job] = {}

    def operations(self) -> dict[str, Handler]:
        """The operations that the Resource Manager answers."""
        return {"Jobs_Get": self._get, "Jobs_Cancel": self._cancel}

    def start(self, job: Job) -> None:
        """Run a job; a name is taken once."""
        if job.name in self.jobs:
            raise ServiceError(409, "Conflict", f"There is a job {job.name}.")
        self.jobs[job.name] = job
        job.thread = threading.Thread(target=self._run, args=[job], daemon=True)
        job.thread.start()

    def stop(self, timeout_s: float) -> None:
        """End all jobs."""
        for job in self.jobs.values():
            job.cancel()
            if job.thread is not None:
                job.thread.join(timeout_s)

    def _run(self, job: Job) -> None:
        job.status = "Running"
        try:
            self._work(job)
        except ServiceError as error:
            job.error = error
            job.status = "Canceled" if error.code == "Canceled" else "Failed"
        except Exception as error:
            job.error = ServiceError(500, "InternalServerError", f"The fake failed: {error!r}")
            job.status = "Failed"
            raise
        else:
            job.status = "Completed"

    def _find(self, call: Call) -> Job:
        job = self.jobs.get(call.names["id"])
        if job is None:
            raise not_found(f"Job {call.names['id']}")
        return job

    def _get(self, call: Call) -> Response:
        if any(job.child == call.names["id"] for job in self.jobs.values()):
            step = resource(call.path, {})
            del step["properties"]
            return Response(200, step)
        job = self._find(call)
        properties = {
            "jobType": "Pipeline",
            "status": job.look("resource manager"),
            "experimentName": job.endpoint,
            "displayName": job.name,
            "tags": job.tags,
            "properties": {},
            "services": {"Studio": {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{job.name}"}},
        }
        return Response(200, resource(call.path, properties))

    def _cancel(self, call: Call) -> Response:
        job = self._find(call)

        def cancel() -> None:
            job.cancel()
            if job.thread is not None:
                job.thread.join()

        return Response(202, headers=self._long_running.start(cancel))
