"""What Azure refuses, whether trying again helps, and what else does. Decided by code and status: its exceptions are ambiguous.

`ResourceExistsError`, for one, is raised where a version has other content, where an operation is running, and where a blob was
left by an upload that broke off.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packhouse.errors import RegistrationFailed

NO_ANSWER = frozenset(
    {
        "IncompleteReadError",
        "ServiceRequestError",
        "ServiceRequestTimeoutError",
        "ServiceResponseError",
        "ServiceResponseTimeoutError",
    }
)
BUSY = frozenset({408, 429, 500, 502, 503, 504})
EXPIRED = frozenset({"ExpiredAuthenticationToken", "TokenExpired", "InvalidAuthenticationToken"})
# A blob of an upload that broke off: the SDK fails on it once more, and then overwrites it.
LEFTOVER = "BlobAlreadyExists"
# What the block names; any other 404 is about something in the workspace.
NAMED_BY_BLOCK = frozenset({"ResourceNotFound", "ResourceGroupNotFound", "SubscriptionNotFound"})
# The SDK's own words, in an exception without code and status, for a store that may not be read.
NO_PERMISSION = "don't have permission"
# What is raised where a file that a credential names is not there, or not to be read.
NO_ACCESS = frozenset({"FileNotFoundError", "IsADirectoryError", "PermissionError"})
ENDPOINTS = ("online.", "batch.", "changes.")
# The service's words for a version whose content would change; its codes are as general as UserError.
TAKEN = ("already exists", "already registered", "cannot be changed", "cannot be updated", "can't be modified")


@dataclass(frozen=True)
class Rule:
    """How often trying again helps, after how long (doubled each time), and what helps besides."""

    retries: int
    delay_s: float
    remedy: str
    is_transient: bool = False


UNREACHABLE = Rule(2, 2.0, "check the network, HTTPS_PROXY and the state of Azure, and register again", is_transient=True)
THROTTLED = Rule(2, 10.0, "Azure limits requests; register again later", is_transient=True)
UNFINISHED_UPLOAD = Rule(2, 1.0, "an upload broke off earlier; register again", is_transient=True)
EXPIRY = Rule(1, 0.0, "the token expired, and a new one was refused; check the credential of the block")
LOG_IN = Rule(0, 0.0, "check tenant, client and secret, or the identity, in auth of the block")
NOT_ALLOWED = Rule(0, 0.0, "give the identity the role AzureML Data Scientist, and for the store Storage Blob Data Contributor")
MISSING = Rule(0, 0.0, "check subscription_id, resource_group and workspace_name of the block")
ABSENT = Rule(0, 0.0, "look in the workspace whether it is there; uploads need its default datastore, workspaceblobstore")
NO_FILE = Rule(0, 0.0, "check the files and the password in auth of the block; the files lie on the machine of the worker")
CONFLICT = Rule(0, 0.0, "versions never change in Azure ML; raise the version, or set it to auto")
NO_CREDENTIAL = Rule(
    0, 0.0, "choose another auth in the block, or set what this one looks for in the environment of the worker"
)
QUOTA = Rule(
    0, 0.0, "ask for more quota of this family, or choose another instance_type, fewer instances, or delete unused deployments"
)
IMAGE_BUILD = Rule(
    0,
    0.0,
    "the image cannot be built; check image and packages of the environment, and the build log in the workspace's storage",
)
CRASHED = Rule(0, 0.0, "the scoring script or its environment ended the container; its log says why")
MODEL_FAILED = Rule(0, 0.0, "the scoring script failed, refused it or is not ready; the log of the deployment says why")
SLOW_MODEL = Rule(
    2, 2.0, "the model takes longer than a request may; raise request_settings.request_timeout_ms in extra_config"
)
BAD_ARGUMENT = Rule(0, 0.0, "check deployment_config and model_package")
SECRETS = Rule(0, 0.0, "the endpoint's identity may not read the secrets that the variables name; give it the right to")
CANCELED = Rule(1, 60.0, "Azure canceled it; register again later", is_transient=True)
INTERNAL = Rule(1, 30.0, "Azure failed; register again later, or choose another region or instance_type", is_transient=True)
OTHER_CHANGE = Rule(0, 0.0, "somebody else changes it; register again when that is done", is_transient=True)
TIMED_OUT = Rule(
    0, 0.0, "it may go on; look at it in the workspace, register again when it is done, or raise timeout_s of the block"
)
GONE = Rule(0, 0.0, "somebody else deleted it; register again, and it is made anew", is_transient=True)
OTHER = Rule(0, 0.0, "")


@dataclass(frozen=True)
class Failure:
    """What went wrong, as Azure says it: exception, error code and HTTP status, where it has them; and what was asked.

    `details` are the codes of errors that explain it; `model_status` is what a model answered to a request that was passed on.
    """

    kind: str
    code: str | None
    status: int | None
    message: str
    asked: str = ""
    details: Sequence[str] = ()
    model_status: int | None = None

    def has_code(self, *codes: str) -> bool:
        """Whether one of these is its code, or that of a detail."""
        return not {self.code, *self.details}.isdisjoint(codes)

    @property
    def is_conflict(self) -> bool:
        """Whether the version is taken by other content, or by somebody who was faster."""
        if self.code == LEFTOVER or self.is_of_endpoint:
            return False
        return self.status == 409 or (self.status == 400 and any(words in self.message.lower() for words in TAKEN))

    @property
    def is_of_endpoint(self) -> bool:
        """Whether an endpoint was asked or changed, and no asset."""
        return self.asked.startswith(ENDPOINTS)

    @property
    def is_of_model(self) -> bool:
        """Whether a deployment was asked for an answer of its model."""
        return self.asked in ("online.invoke", "online.post")

    @property
    def is_busy(self) -> bool:
        """Whether another change of the endpoint or deployment is not done yet."""
        return self.is_of_endpoint and self.status == 409

    @property
    def is_lost(self) -> bool:
        """Whether a change may go on, and only the question how far it is was not answered."""
        return self.status == 404 or self.status in BUSY or (self.status is None and self.kind in NO_ANSWER)

    @property
    def rule(self) -> Rule:
        """What to do about it."""
        return next((rule for applies, rule in RULES if applies(self)), OTHER)

    @property
    def retries(self) -> int:
        """How often trying again at once helps."""
        return self.rule.retries

    def delay_s(self, tried: int) -> float:
        """Seconds to wait before trying for the time `tried`, counted from 1."""
        return self.rule.delay_s * 2.0 ** (tried - 1)

    def __str__(self) -> str:
        """Return one line: code, message, remedy."""
        what = f"{self.code or self.status or self.kind}: {self.message}"
        return f"{what} → {self.rule.remedy}" if self.rule.remedy else what


# The first that applies.
RULES: tuple[tuple[Callable[[Failure], bool], Rule], ...] = (
    (lambda failure: failure.code == LEFTOVER, UNFINISHED_UPLOAD),
    (lambda failure: failure.is_conflict, CONFLICT),
    (lambda failure: failure.is_busy, OTHER_CHANGE),
    (lambda failure: failure.status == 424, MODEL_FAILED),
    (lambda failure: failure.status == 408 and failure.is_of_model, SLOW_MODEL),
    (lambda failure: failure.has_code("OutOfQuota", "QuotaExceeded"), QUOTA),
    (lambda failure: failure.has_code("ImageBuildFailure"), IMAGE_BUILD),
    (lambda failure: failure.has_code("ResourceNotReady"), CRASHED),
    (lambda failure: failure.has_code("SecretsInjectionError"), SECRETS),
    (lambda failure: failure.code in {"BadArgument", "BadRequest"} and failure.is_of_endpoint, BAD_ARGUMENT),
    (lambda failure: failure.code == "OperationCanceled", CANCELED),
    (lambda failure: failure.code == "InternalServerError" and failure.is_of_endpoint, INTERNAL),
    (lambda failure: failure.kind == "TimeoutError", TIMED_OUT),
    (lambda failure: failure.kind == "CredentialUnavailableError", NO_CREDENTIAL),
    (lambda failure: failure.kind == "ValueError" and "WorkloadIdentityCredential" in failure.message, NO_CREDENTIAL),
    (lambda failure: failure.kind == "ValueError" and "certificate" in failure.message.lower(), NO_FILE),
    (lambda failure: failure.kind in NO_ACCESS, NO_FILE),
    (lambda failure: failure.code in EXPIRED or failure.status == 401, EXPIRY),
    (lambda failure: failure.kind == "ClientAuthenticationError", LOG_IN),
    (lambda failure: failure.status == 429, THROTTLED),
    (lambda failure: failure.status in BUSY, UNREACHABLE),
    (lambda failure: failure.status is None and failure.kind in NO_ANSWER, UNREACHABLE),
    (lambda failure: failure.status == 403 or NO_PERMISSION in failure.message, NOT_ALLOWED),
    (lambda failure: failure.status == 404 and failure.is_of_endpoint, GONE),
    (lambda failure: failure.code in NAMED_BY_BLOCK, MISSING),
    (lambda failure: failure.status == 404, ABSENT),
)


class AzureFailed(RegistrationFailed):
    """Azure refused, or could not be reached; `failure` says how."""

    def __init__(self, where: str, failure: Failure) -> None:
        """Make the message of place and failure."""
        self.failure = failure
        super().__init__(f"Azure ML, {where}: {failure}", is_transient=failure.rule.is_transient)
