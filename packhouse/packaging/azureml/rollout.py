"""A deployment rolled out: made without traffic, asked, and given traffic; or undone."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.batch_jobs import prepared_model, run_job
from packhouse.packaging.azureml.deployment_parts import DeploymentParts
from packhouse.packaging.azureml.deployment_settings import SmokeTest
from packhouse.packaging.azureml.endpoints import (
    BROKEN,
    BUSY_TRIES,
    SUCCEEDED,
    Endpoint,
    RemoteEndpoint,
    StillGoingOn,
    name_of_deployment,
    traffic_steps,
)
from packhouse.packaging.azureml.failures import AzureFailed
from packhouse.packaging.azureml.online_client import OnlineClient, online_model
from packhouse.packaging.azureml.smoke import require_an_answer, require_answers
from packhouse.packaging.azureml.undo import Undo
from packhouse.packaging.azureml.versions import FLOW_RUN_TAG, AssetVersion
from packhouse.packaging.azureml.workspace import AzureMLConnection, AzureMLSession
from packhouse.packaging.job import PackagingJob, Workplace

if TYPE_CHECKING:
    from packhouse.packaging.azureml.deployment import AzureMLDeployment

logger = logging.getLogger(__name__)


def roll_out(
    packaging: "AzureMLDeployment", package: Path, job: PackagingJob, workplace: Workplace, connection: AzureMLConnection
) -> tuple[str, ...]:
    """Deploy a package, and return the identities of deployment and model version, and the address of the endpoint.

    What is done already stays. What fails is undone as far as this made it, versions of assets apart, which Azure ML keeps.

    Raises:
        RegistrationFailed: with the logs of the deployment where it has some.
    """
    parts = DeploymentParts(packaging, package, workplace.flow_run)
    undo = Undo(connection, "online" if packaging.is_online else "batch", packaging.deployment_config.endpoint_name)
    with connection.session() as session:
        try:
            return Rollout(packaging, job, workplace, session, undo).deploy(parts)
        except StillGoingOn:
            raise
        except RegistrationFailed as error:
            raise undo.undone(error) from error
        except Exception as error:  # what was made costs money, whatever the reason
            raise undo.undone(RegistrationFailed(f"{type(error).__name__}: {error}")) from error


class Rollout:
    """One deployment on its way. `undo` is told what was made."""

    def __init__(
        self, packaging: "AzureMLDeployment", job: PackagingJob, workplace: Workplace, session: AzureMLSession, undo: Undo
    ) -> None:
        """Use a session."""
        self._packaging, self._job, self._workplace, self._session, self._undo = packaging, job, workplace, session, undo
        self._endpoint = RemoteEndpoint(session, undo.kind, undo.endpoint)

    def deploy(self, parts: DeploymentParts) -> tuple[str, ...]:
        """Do all of it. Raises RegistrationFailed."""
        parts.require_what_it_names(self._session)
        endpoint = self._usable_endpoint()
        model = parts.registered_model(self._session)
        name = self._deployed(parts, model)
        if self._packaging.smoke_test and not self._has_passed(endpoint, name):
            self._ask(parts, self._packaging.smoke_test, name)
        self._route(parts, name)
        return (f"{endpoint.id}/deployments/{name}", model.id, endpoint.address)

    def _usable_endpoint(self) -> Endpoint:
        """Return the endpoint, which is made where it is missing, or made anew where it failed and that is wanted."""
        endpoint, what = self._endpoint.find(), f"the {self._endpoint.kind} endpoint {self._endpoint.name}"
        if endpoint and endpoint.state not in BROKEN:
            return endpoint
        if endpoint is None:
            self._make_endpoint(what)
        elif self._packaging.failed_endpoint == "repair":
            self._endpoint.change("repair", f"repairing {what}")
        else:
            remedy = "set failed_endpoint to repair, to make it anew as it is, or delete it"
            raise RegistrationFailed(f"{what} is in the state {endpoint.state} → {remedy}")
        if (made := self._endpoint.find()) is None or made.state in BROKEN:
            raise RegistrationFailed(f"{what} is not there after it was made → register again")
        return made

    def _make_endpoint(self, what: str) -> None:
        """Make the endpoint, or wait for who is making it."""
        tags = {FLOW_RUN_TAG: self._workplace.flow_run} if self._workplace.flow_run else {}
        self._undo.made_endpoint = True
        try:
            self._endpoint.change("create", f"making {what}", waits=False, tags=tags)
        except AzureFailed as error:
            if not error.failure.is_busy:
                raise
            self._undo.made_endpoint = False
            if self._endpoint.find() is None:
                remedy = "its name is taken in this region of Azure; choose another endpoint_name"
                raise RegistrationFailed(f"{what} cannot be made ({error.failure.message}) → {remedy}") from error
            self._endpoint.settle(f"waiting for {what}", None)

    def _deployed(self, parts: DeploymentParts, model: AssetVersion) -> str:
        """Return the name of the deployment of this content, which is made where there is none.

        Others may deploy to the endpoint at the same time, and what is deployed under a name replaces what had it. So the name
        is chosen anew after every wait for others, and it counts only if the content is there when all is done. Azure may also
        be busy with what was begun here, where its answer got lost.
        """
        begun: set[str] = set()
        for _ in range(BUSY_TRIES):
            endpoint = self._found()
            name = name_of_deployment(endpoint, self._packaging.deployment_config.deployment_name, parts.digest)
            existing = endpoint.deployment(name)
            if existing and existing.state not in BROKEN:
                is_ours = name in begun and existing.flow_run == self._workplace.flow_run
                self._undo.deployment, self._undo.made_deployment = name, is_ours
                if existing.state == SUCCEEDED:
                    return name
                self._endpoint.settle(f"waiting for {name} of {endpoint.name}", name)
                continue
            if existing is None:
                begun.add(name)
            entity = parts.entity(self._session, model)
            self._undo.deployment, self._undo.made_deployment = name, existing is None
            try:
                self._endpoint.change("deploy", f"deploying {name} to {endpoint.name}", waits=False, name=name, **entity)
            except AzureFailed as error:
                if not error.failure.is_busy:
                    raise
                self._undo.deployment, self._undo.made_deployment = None, False
                self._endpoint.wait_for_others()
        reason = f"others keep changing the endpoint {self._endpoint.name} → register again later"
        raise RegistrationFailed(reason, is_transient=True)

    def _found(self) -> Endpoint:
        if endpoint := self._endpoint.find():
            return endpoint
        raise RegistrationFailed(f"somebody else deleted the endpoint {self._endpoint.name} → register again")

    def _has_passed(self, endpoint: Endpoint, name: str) -> bool:
        """Whether a deployment need not be asked: on the endpoint as it was found, it had what it only gets when it was."""
        existing, traffic = endpoint.deployment(name), self._packaging.traffic
        has_traffic = traffic != "none" and name in endpoint.traffic and not traffic_steps(endpoint.traffic, name, traffic)
        return existing is not None and existing.state == SUCCEEDED and has_traffic

    def _ask(self, parts: DeploymentParts, test: SmokeTest, name: str) -> None:
        """Ask the deployment, as smoke_test says. Raises RegistrationFailed where it does not answer as it should."""
        store = self._workplace.store
        logger.info("asking %s of %s", name, self._endpoint.name)
        with self._scratch() as scratch:
            run = partial(run_job, self._session, self._endpoint.name, name)
            if test.payload and self._packaging.is_online:
                (scratch / "request").write_bytes(parts.payload)
                path = str(scratch / "request")
                self._session.ask("online.invoke", endpoint=self._endpoint.name, deployment=name, path=path)
            elif test.payload:
                requests = scratch / "requests"
                requests.mkdir()
                (requests / test.payload.name).write_bytes(parts.payload)
                run(requests, scratch / "answers")
            elif self._packaging.is_online:
                client = OnlineClient(self._session, self._endpoint.name, name, scratch)
                require_answers(online_model(parts.packaged, self._job, client), self._job, store, scores=test.scores)
            else:
                model = prepared_model(parts.packaged, self._job, store, run, scratch, scores=test.scores)
                require_answers(model, self._job, store, scores=test.scores)

    def _route(self, parts: DeploymentParts, name: str) -> None:
        """Give the deployment its traffic step by step, and delete those that had it before, if they are not to be kept."""
        before = now = self._undo.before = self._traffic()
        for number, wanted in enumerate(traffic_steps(now, name, self._packaging.traffic)):
            if number:
                self._session.sleep(self._packaging.step_interval_s)
            self._require_traffic(now)
            self._undo.given.append(wanted)
            what = f"giving {name} {wanted[name]} % of the traffic of {self._endpoint.name}"
            self._endpoint.change("route", what, traffic=wanted)
            now = wanted
            try:
                self._ask_by_traffic(parts, has_all=now == {name: 100})
            except RegistrationFailed:
                self._require_traffic(now)  # or else others answered
                raise
        self._undo.forget()  # from here on, nothing is half done
        if self._packaging.old_deployments == "delete" and now == {name: 100}:
            for old in sorted(before.keys() - {name}):
                self._delete(old, f"deleting {old} of {self._endpoint.name}, which had traffic before")

    def _delete(self, old: str, what: str) -> None:
        """Delete a deployment without traffic. No later run knows that it had some, so it is said that it is left."""
        try:
            self._endpoint.change("delete_deployment", what, deployment=old)
        except StillGoingOn:
            raise
        except RegistrationFailed as error:
            left = f"{old} of {self._endpoint.name}, which has no traffic any more, could not be deleted ({error})"
            raise RegistrationFailed(f"{left} → delete it by hand") from error

    def _require_traffic(self, left: Mapping[str, int]) -> None:
        """Raise RegistrationFailed where the traffic is not as it was left."""
        if (found := self._traffic()) != left:
            changed = f"the traffic of {self._endpoint.name} from {dict(left)} to {dict(found)}"
            raise RegistrationFailed(f"somebody else changed {changed} → register again")

    def _traffic(self) -> Mapping[str, int]:
        return self._found().traffic

    def _ask_by_traffic(self, parts: DeploymentParts, *, has_all: bool) -> None:
        """Ask an online endpoint as its users do; any deployment with traffic may answer, so answers count if one has all."""
        test, store = self._packaging.smoke_test, self._workplace.store
        if test is None or test.payload or not self._packaging.is_online:
            return
        with self._scratch() as scratch:
            model = online_model(parts.packaged, self._job, OnlineClient(self._session, self._endpoint.name, None, scratch))
            if has_all:
                require_answers(model, self._job, store, scores=False)
            else:
                require_an_answer(model, self._job, store)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="smoke-", dir=self._workplace.scratch) as scratch:
            yield Path(scratch)
