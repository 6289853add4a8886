"""The child process that speaks to an MLflow server, with the variables of one server only in its environment.

MLflow reads address and credentials from the environment of its process, where those of packages that are registered at the
same time would meet; and what it takes of memory ends with it. One JSON request comes on standard input, and one answer goes to
what was standard output when it started. Nothing else of Packhouse is imported.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

DIGEST_TAG = "packhouse.digest"
MODEL_PATH = "model"  # of the package among the artifacts of its run
TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_CONFLICT", "ABORTED"}
TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
EXISTS, MISSING = "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"


class Registry:
    """A registered model of a server, and the runs that its versions come from."""

    def __init__(self, name: str, digest: str) -> None:
        self.client = MlflowClient()
        self.name, self.digest = name, digest

    def upload(self, folder: str, sizes: dict[str, int], copy_to: str | None = None) -> dict[str, Any]:
        """Put what is missing of the package into its run, and fetch all of it back unless it has a version and is complete.

        A run that was left without a version is gone on with. The answer is the run, and the path of the copy, if one was made.
        """
        version = self._version()
        run = version.run_id if version else self._unfinished_run() or self._new_run()
        there = self._sizes(run)
        missing = sorted(name for name, size in sizes.items() if there.get(name) != size)
        for name in missing:
            parent = str(PurePosixPath(MODEL_PATH, name).parent)
            self.client.log_artifact(run, str(Path(folder, name)), parent)
        is_needed = copy_to is not None and (missing or version is None)
        return {"run": run, "copy": self._fetched(run, copy_to) if is_needed else None}

    def discard(self, run: str) -> dict[str, Any]:
        """Delete a run whose artifacts turned out to be damaged."""
        self.client.delete_run(run)
        return {}

    def publish(
        self,
        run: str,
        *,
        metrics: dict[str, float],
        params: dict[str, str],
        tags: dict[str, str],
        alias: str | None,
    ) -> dict[str, Any]:
        """Make a version of a run whose artifacts are complete, if there is none, and let the alias name it."""
        version = self._version() or self._new_version(run, metrics, params, tags)
        if alias and self._aliased(alias) != version.version:
            self.client.set_registered_model_alias(self.name, alias, version.version)
        return {"version": version.version}

    def _fetched(self, run: str, copy_to: str | None) -> str:
        """Fetch a copy of what was just put there. Of whatever keeps it from that, MLflow says that there is nothing there."""
        try:
            return str(self.client.download_artifacts(run, MODEL_PATH, copy_to))
        except MlflowException as error:
            if error.error_code != MISSING:
                raise
            raise ConnectionError(f"the files of the run {run} cannot be fetched back ({error})") from error

    def _version(self) -> Any:
        """Return the oldest version of the package whose run is there; later ones were made by somebody at the same time."""
        found = self.client.search_model_versions(f"name = '{self.name}' and tags.`{DIGEST_TAG}` = '{self.digest}'")
        usable = [version for version in found if version.status == "READY" and self._is_there(version.run_id)]
        return min(usable, key=lambda version: int(version.version), default=None)

    def _is_there(self, run: str | None) -> bool:
        if not run:
            return False
        try:
            return bool(self.client.get_run(run).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != MISSING:
                raise
            return False

    def _new_version(self, run: str, metrics: dict[str, float], params: dict[str, str], tags: dict[str, str]) -> Any:
        now = int(time.time() * 1000)
        measured: dict[str, Any] = {
            "metrics": [Metric(key, value, now, 0) for key, value in metrics.items()],
            "params": [Param(key, value) for key, value in params.items()],
            "tags": [RunTag(key, value) for key, value in tags.items()],
        }
        try:
            self.client.log_batch(run, **measured)
        except MlflowException:  # the server's database refuses what somebody logs at the same moment, and no longer afterwards
            self.client.log_batch(run, **measured)
        self.client.set_terminated(run)
        with _there_already():
            self.client.create_registered_model(self.name)
        source = f"{self.client.get_run(run).info.artifact_uri}/{MODEL_PATH}"
        mine = self.client.create_model_version(self.name, source, run, tags={**tags, DIGEST_TAG: self.digest})
        first = self._version() or mine
        if first.version != mine.version:
            self.client.delete_model_version(self.name, mine.version)
        return first

    def _aliased(self, alias: str) -> str | None:
        version = self.client.get_registered_model(self.name).aliases.get(alias)
        return None if version is None else str(version)

    def _unfinished_run(self) -> str | None:
        tagged = f"tags.`{DIGEST_TAG}` = '{self.digest}'"
        oldest = ["attributes.start_time ASC"]
        runs = self.client.search_runs([self._experiment()], tagged, ViewType.ACTIVE_ONLY, max_results=1, order_by=oldest)
        return runs[0].info.run_id if runs else None

    def _new_run(self) -> str:
        run = self.client.create_run(self._experiment(), run_name=self.digest[:12], tags={DIGEST_TAG: self.digest})
        return str(run.info.run_id)

    def _experiment(self) -> str:
        """Return the experiment of the same name as the model."""
        with _there_already():
            if (experiment := self.client.get_experiment_by_name(self.name)) is None:
                return str(self.client.create_experiment(self.name))
            return str(experiment.experiment_id)
        return str(self.client.get_experiment_by_name(self.name).experiment_id)

    def _sizes(self, run: str, folder: str = MODEL_PATH) -> dict[str, int]:
        """Return the size of every artifact below the package's folder, by its name in the package."""
        sizes: dict[str, int] = {}
        for item in self.client.list_artifacts(run, folder):
            if item.is_dir:
                sizes |= self._sizes(run, item.path)
            else:
                sizes[str(PurePosixPath(item.path).relative_to(MODEL_PATH))] = item.file_size or 0
        return sizes


@contextlib.contextmanager
def _there_already() -> Iterator[None]:
    """Let pass that somebody else made the same thing first."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != EXISTS:
            raise


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; what the server refuses is an answer too, with its reason."""
    registry = Registry(request.pop("name"), request.pop("digest"))
    ask: Callable[..., dict[str, Any]] = getattr(registry, request.pop("do"))
    try:
        return {"ok": ask(**request)}
    except MlflowException as error:
        return _refusal(error, _status(error), is_transient=error.error_code in TRANSIENT)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        return _refusal(error, status, is_transient=status in TRANSIENT_STATUS)
    except (requests.RequestException, OSError) as error:
        return _refusal(error, 0, is_transient=True)


def _status(error: MlflowException) -> int:
    status: Any = error.get_http_status_code()  # type: ignore[no-untyped-call]
    return int(status)


def _refusal(error: Exception, status: int, *, is_transient: bool) -> dict[str, Any]:
    return {"refused": " ".join(str(error).split()), "status": status, "is_transient": is_transient}


def main() -> None:
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write(json.dumps(answer(json.load(sys.stdin))) + "\n")


if __name__ == "__main__":
    main()
