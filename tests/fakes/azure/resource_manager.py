"""Azure Resource Manager for one workspace: who calls, is it the contract, does the workspace exist, and then the operation."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fakes.azure.contract import TOLERATED, Contract, Operation
from tests.fakes.azure.identity import Identity
from tests.fakes.azure.long_running import LongRunningOperations
from tests.fakes.azure.messages import Request, Response, ServiceError
from tests.fakes.azure.resources import Call, Handler

HOST = "management.azure.com"


@dataclass
class ResourceManager:
    """Answers requests by the handlers of the resources; keeps a list of everything that broke the contract."""

    subscription_id: str
    resource_group: str
    workspace: str
    identity: Identity
    long_running: LongRunningOperations
    handlers: Mapping[str, Handler]
    contract: Contract = field(default_factory=Contract)
    violations: list[str] = field(default_factory=list)
    # So that two clients that register at once never see each other's half.
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        try:
            return self._answer(request)
        except ServiceError as error:
            return error.response()

    def _answer(self, request: Request) -> Response:
        if not self.identity.knows(request.bearer):
            raise ServiceError(401, "ExpiredAuthenticationToken", "The access token is invalid or has expired.")
        if polled := self.long_running.answer(request):
            return polled
        if problems := self.contract.problems(request.method, request.path, request.query, request.body):
            self.violations += [f"{request}: {problem}" for problem in problems]
            raise ServiceError(400, "ValidationError", "; ".join(problems))
        operation = self.contract.find(request.method, request.path, request.query["api-version"])
        assert operation is not None
        names = operation.path_values(request.path) or {}
        self._check_scope(names)
        handler = self.handlers.get(operation.id)
        if handler is None:
            raise ServiceError(501, "NotImplemented", f"The fake does not answer {operation.id}.")
        with self._one_at_a_time:
            response = handler(Call(operation.id, names, request.query, request.body, request.path))
        self._check_answer(request, operation, response)
        return response

    def _check_scope(self, names: Mapping[str, str]) -> None:
        if names["subscriptionId"] != self.subscription_id:
            raise ServiceError(404, "SubscriptionNotFound", f"The subscription '{names['subscriptionId']}' could not be found.")
        if names["resourceGroupName"].lower() != self.resource_group.lower():
            raise ServiceError(
                404, "ResourceGroupNotFound", f"Resource group '{names['resourceGroupName']}' could not be found."
            )
        if names["workspaceName"].lower() != self.workspace.lower():
            message = f"The Resource 'Microsoft.MachineLearningServices/workspaces/{names['workspaceName']}' was not found."
            raise ServiceError(404, "ResourceNotFound", message)

    def _check_answer(self, request: Request, operation: Operation, response: Response) -> None:
        """Hold the fake itself to the contract as well."""
        for problem in operation.answer_problems(response.status, response.body):
            if (operation.id, problem) not in TOLERATED:
                self.violations.append(f"answer of the fake to {request}: {problem}")
