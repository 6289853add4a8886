"""Undoing a deployment that failed: only what was made for it, and the traffic as it was."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.endpoints import Kind, RemoteEndpoint
from packhouse.packaging.azureml.server_log import LOG_LINES, last_words
from packhouse.packaging.azureml.workspace import AzureMLConnection, AzureMLSession

SERVER_LOG = "inference server"


@dataclass
class Undo:
    """What was made: endpoint and deployment; the traffic as it was `before`, and all that was `given` in its place.

    A deployment that was there already is named too, for its logs, and is not deleted.
    """

    connection: AzureMLConnection
    kind: Kind
    endpoint: str
    made_endpoint: bool = False
    deployment: str | None = None
    made_deployment: bool = False
    before: Mapping[str, int] = field(default_factory=dict)
    given: list[Mapping[str, int]] = field(default_factory=list)

    def forget(self) -> None:
        """Take it that all is well: nothing is to be undone."""
        self.made_endpoint, self.made_deployment, self.deployment = False, False, None
        self.given.clear()

    def undone(self, error: RegistrationFailed) -> RegistrationFailed:
        """Undo it, and return the error with the logs of the deployment, and with what could not be undone.

        It takes a session of its own, for the other may have ended with the error.
        """
        if not (self.made_endpoint or self.deployment):
            return error
        logs, said = dict(error.logs), [str(error)]
        try:
            with self.connection.session() as session:
                logs |= self._logs(session)
                self._undo(RemoteEndpoint(session, self.kind, self.endpoint))
        except RegistrationFailed as second:
            said.append(f"and what was made could not be undone ({second}) → delete it by hand, or register again")
        if words := last_words(logs.get(SERVER_LOG, "")):
            said.append(f"the log of {self.deployment} ends: {words}")
        return RegistrationFailed("; ".join(said), is_transient=error.is_transient, logs=logs)

    def _logs(self, session: AzureMLSession) -> dict[str, str]:
        if self.kind != "online" or not self.deployment:
            return {}
        try:
            told = session.ask("online.logs", endpoint=self.endpoint, deployment=self.deployment, lines=LOG_LINES)
        except RegistrationFailed:  # there may be no deployment yet; that has been said
            return {}
        return {name: self.connection.without_secrets(text) for name, text in told.items() if text}

    def _undo(self, remote: RemoteEndpoint) -> None:
        found = remote.find()
        if found is None:
            return
        if self.made_endpoint and {item.name for item in found.deployments} <= {self.deployment}:
            remote.change("delete", f"deleting the endpoint {self.endpoint}, which was made for it")
            return
        if found.traffic in self.given:  # or else it is as it was, or somebody else has changed it since
            remote.change("route", f"putting the traffic of {self.endpoint} back", traffic=dict(self.before))
        if self.made_deployment and self.deployment and found.deployment(self.deployment):
            remote.change("delete_deployment", f"deleting {self.deployment} of {self.endpoint}", deployment=self.deployment)
