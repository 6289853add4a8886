"""What is tried again when Azure refuses, and what it says to the person who has to act."""

from dataclasses import replace

import pytest

from packhouse.packaging.azureml.failures import AzureFailed, Failure

HTTP = "HttpResponseError"
# Kind, code, status, message; then how often it is tried again here, whether later helps, and words of the remedy.
TABLE = {
    "too many requests": (HTTP, "TooManyRequests", 429, "slow down", 2, True, "later"),
    "internal error": (HTTP, "InternalServerError", 500, "oops", 2, True, "state of Azure"),
    "unavailable": (HTTP, None, 503, "busy", 2, True, "state of Azure"),
    "connection dropped": ("ServiceRequestError", None, None, "reset", 2, True, "HTTPS_PROXY"),
    "no answer in time": ("ServiceResponseTimeoutError", None, None, "timed out", 2, True, "HTTPS_PROXY"),
    "expired token": ("ClientAuthenticationError", "ExpiredAuthenticationToken", 401, "expired", 1, False, "credential"),
    "token not accepted": ("ClientAuthenticationError", None, 401, "no", 1, False, "credential"),
    "wrong secret": (
        "ClientAuthenticationError",
        None,
        None,
        "AADSTS7000215: Invalid client secret",
        0,
        False,
        "client and secret",
    ),
    "no identity here": ("CredentialUnavailableError", None, None, "no managed identity", 0, False, "choose another auth"),
    "role missing": (HTTP, "AuthorizationFailed", 403, "not allowed", 0, False, "AzureML Data Scientist"),
    "workspace missing": ("ResourceNotFoundError", "ResourceNotFound", 404, "not found", 0, False, "workspace_name"),
    "upload that broke off": (
        "ResourceExistsError",
        "BlobAlreadyExists",
        409,
        "The specified blob already exists.",
        2,
        True,
        "again",
    ),
    "version taken": (HTTP, "UserError", 400, "Asset paths cannot be updated.", 0, False, "raise the version"),
    "version taken, in other words": ("ResourceExistsError", "Conflict", 409, "conflict", 0, False, "raise the version"),
    "store missing": ("ResourceNotFoundError", "NotFound", 404, "no datastore", 0, False, "workspaceblobstore"),
    "store not to be read": (
        "MlException",
        None,
        None,
        "You don't have permission to alter",
        0,
        False,
        "Blob Data Contributor",
    ),
    "certificate missing": ("FileNotFoundError", None, None, "no such file: azure.pem", 0, False, "check the files"),
    "certificate that is none": ("ValueError", None, None, "Failed to deserialize certificate", 0, False, "the password"),
    "workload identity not set up": ("ValueError", None, None, "WorkloadIdentityCredential", 0, False, "choose another auth"),
    "bad request": (HTTP, "BadArgument", 400, "instance type", 0, False, ""),
    "quota": (HTTP, "OutOfQuota", 400, "not enough quota", 0, False, ""),
}


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_failure_is_judged_by_code_and_status(case: tuple[str, str | None, int | None, str, int, bool, str]) -> None:
    kind, code, status, message, retries, is_transient, words = case
    error = AzureFailed("workspace w", Failure(kind, code, status, message))
    assert error.failure.retries == retries
    assert error.is_transient == is_transient
    assert message in str(error)
    assert words in str(error).partition("→")[2]


def test_what_explains_a_bad_request_decides_what_to_do() -> None:
    bad = Failure(HTTP, "BadRequest", 400, "The request is invalid.", "online.deploy")
    assert "check deployment_config" in str(bad)
    assert "more quota" in str(replace(bad, details=["InferencingClientCallFailed", "OutOfQuota"]))
    assert "may not read the secrets" in str(replace(bad, details=["SecretsInjectionError"]))


def test_a_model_that_fails_or_is_slow_is_no_fault_of_the_network() -> None:
    failed = Failure(HTTP, None, 424, "it answered 424: boom", "online.post", model_status=500)
    assert (failed.retries, failed.rule.is_transient) == (0, False)
    assert "the scoring script failed" in str(failed)
    slow = Failure(HTTP, None, 408, "it answered 408", "online.post")
    assert "request_timeout_ms" in str(slow)
    assert "HTTPS_PROXY" in str(replace(slow, asked="online.find"))


def test_one_exception_of_azure_has_three_meanings() -> None:
    taken, leftover = (Failure("ResourceExistsError", code, 409, "there") for code in ("Conflict", "BlobAlreadyExists"))
    assert taken.is_conflict
    assert not leftover.is_conflict


def test_waiting_doubles() -> None:
    failure = Failure(HTTP, None, 503, "busy")
    assert [failure.delay_s(tried) for tried in (1, 2, 3)] == [2.0, 4.0, 8.0]
