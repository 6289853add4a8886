"""Endpoints as the workspace tells of them, changes of them, and which deployment and traffic are to come."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.failures import AzureFailed
from packhouse.packaging.azureml.versions import DIGEST_TAG, FLOW_RUN_TAG
from packhouse.packaging.azureml.workspace import AzureMLSession

Kind = Literal["online", "batch"]
SUCCEEDED, FAILED = "Succeeded", "Failed"
BROKEN = frozenset({FAILED, "Canceled"})
SETTLED = BROKEN | {SUCCEEDED}
WAIT = "changes.wait"
WAIT_S = 20.0  # for a change, before its progress is told
BUSY_TRIES, BUSY_S = 40, 30.0  # while another change goes on
MAX_NAME, SUFFIX = 32, 7
logger = logging.getLogger(__name__)


class StillGoingOn(RegistrationFailed):
    """A change takes longer than an operation may. It goes on in Azure ML, so nothing is undone."""


@dataclass(frozen=True)
class Deployment:
    """A deployment of an endpoint; where Packhouse made it, the digest of its content, and the run that made it."""

    name: str
    state: str
    digest: str | None
    flow_run: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """An endpoint: its state, its address, the percentage of requests that its deployments get, and those."""

    name: str
    id: str
    state: str
    address: str
    traffic: Mapping[str, int]
    deployments: tuple[Deployment, ...]

    def deployment(self, name: str) -> Deployment | None:
        """Return the deployment of a name."""
        return next((item for item in self.deployments if item.name == name), None)


def name_of_deployment(endpoint: Endpoint, wanted: str, digest: str) -> str:
    """Return the name under which a content is deployed already, or is to be: no deployment of other content is touched.

    Raises:
        RegistrationFailed: all names that it could have are taken.
    """
    if there := next((item for item in endpoint.deployments if item.digest == digest), None):
        return there.name
    taken = {item.name.lower() for item in endpoint.deployments}  # names in Azure do not differ by case
    for name in (wanted, f"{wanted[: MAX_NAME - SUFFIX - 1].rstrip('-')}-{digest[:SUFFIX]}"):
        if name.lower() not in taken:
            return name
    raise RegistrationFailed(f"{wanted} and {name} of the endpoint {endpoint.name} have other content; delete one of them")


def traffic_steps(now: Mapping[str, int], name: str, policy: Literal["all", "none"] | Sequence[int]) -> list[dict[str, int]]:
    """Return the traffic after each step until the deployment `name` has what the policy gives it; none where it has that.

    Percentages of others keep their proportions. Laws: each step adds up to 100, and gives `name` no less than the one before.
    """
    others = {other: percent for other, percent in now.items() if other != name and percent > 0}
    has = now.get(name, 0)
    wanted = [] if policy == "none" else [100] if policy == "all" or not others else list(policy)
    return [{name: percent, **_shared(others, 100 - percent)} for percent in wanted if percent > has]


def _shared(others: Mapping[str, int], rest: int) -> dict[str, int]:
    """Share a rest in the proportions of `others`, in whole percent."""
    total, given, shared = sum(others.values()), 0, {}
    for index, (name, percent) in enumerate(others.items()):
        is_last = index == len(others) - 1
        shared[name] = rest - given if is_last else rest * percent // total
        given += shared[name]
    return {name: percent for name, percent in shared.items() if percent}


@dataclass(frozen=True)
class RemoteEndpoint:
    """An endpoint to be asked for and changed. Sentences say in `what` what is being done, for who reads along."""

    session: AzureMLSession
    kind: Kind
    name: str

    def find(self) -> Endpoint | None:
        """Return the endpoint; None where it is not there. Raises RegistrationFailed."""
        told = self.session.ask(f"{self.kind}.find", endpoint=self.name)
        if told is None:
            return None
        made = (
            Deployment(item["name"], item["state"], item["tags"].get(DIGEST_TAG), item["tags"].get(FLOW_RUN_TAG))
            for item in told.pop("deployments")
        )
        return Endpoint(name=self.name, deployments=tuple(made), **told)

    def change(self, do: str, what: str, *, waits: bool = True, **arguments: Any) -> None:
        """Make a change and wait until it is done.

        If it `waits`, it waits for other changes too. What Azure canceled is done again, and where Azure lost the change, it
        goes by the state of what is changed.

        Raises:
            AzureFailed: Azure refused, or the change failed.
            RegistrationFailed: it takes longer than an operation may.
        """
        tried = waited = 0
        while True:
            try:
                number = self.session.ask(f"{self.kind}.{do}", endpoint=self.name, **arguments)
                return self._wait(number, what, arguments.get("name") or arguments.get("deployment"))
            except AzureFailed as error:
                if error.failure.is_busy and waits and waited < BUSY_TRIES:
                    waited += 1
                    self.wait_for_others()
                elif error.failure.asked == WAIT and tried < error.failure.retries:
                    tried += 1  # `ask` has tried again itself what was refused at once
                    self.session.sleep(error.failure.delay_s(tried))
                else:
                    raise

    def wait_for_others(self) -> None:
        """Give another change some time."""
        self.session.sleep(BUSY_S)

    def settle(self, what: str, deployment: str | None) -> None:
        """Wait until the endpoint, or a deployment of it, does not change any more, and is as it should be, or gone.

        Raises:
            RegistrationFailed: it failed, or takes longer than an operation may.
        """
        self._repeat(what, partial(self._is_settled, deployment))

    def _wait(self, number: int, what: str, deployment: str | None) -> None:
        try:
            self._repeat(what, lambda: self.session.ask_once(WAIT, change=number, seconds=WAIT_S), pause_s=0.0)
        except AzureFailed as error:
            if not error.failure.is_lost:
                raise
            logger.warning("%s: Azure does not tell how far it is (%s); going by its state", what, error.failure)
            self.settle(what, deployment)

    def _repeat(self, what: str, is_done: Callable[[], bool], pause_s: float = WAIT_S) -> None:
        started, limit_s = time.monotonic(), self.session.connection.timeout_s
        while not is_done():
            elapsed = time.monotonic() - started
            if elapsed > limit_s:
                raise StillGoingOn(
                    f"{what} is not done after {limit_s:g} s, and goes on in Azure ML → register again when it is done, or "
                    "raise timeout_s of the block"
                )
            logger.info("%s: %d s", what, elapsed)
            self.session.sleep(pause_s)

    def _is_settled(self, deployment: str | None) -> bool:
        """Whether what is changed is as it should be, or gone. Raises RegistrationFailed where it failed."""
        found = self.find()
        item = found.deployment(deployment) if found and deployment else found
        if item is None or item.state not in SETTLED:
            return item is None
        if item.state != SUCCEEDED:
            raise RegistrationFailed(f"{item.name} is in state {item.state}; see its log, and register again")
        return True
