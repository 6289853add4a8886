"""What Azure refused, as data."""

from collections.abc import Iterator
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.identity import CredentialUnavailableError

# Azure answers 424 for whatever a model answers but 200, and tells in this header what that was.
MODEL_STATUS = "ms-azureml-model-error-statuscode"


def is_of_azure(error: BaseException) -> bool:
    """Whether Azure's SDK gave an exception, or hid one of its own in it."""
    return any(isinstance(cause, AzureError) for cause in _causes(error))


def failure(error: BaseException) -> dict[str, Any]:
    """Return exception, codes, statuses and message of what Azure refused, taken from the first cause that Azure's SDK gave.

    That nobody answered when logging in is no fault of the credential, though the SDK says so.
    """
    causes = list(_causes(error))
    told = next((cause for cause in causes if isinstance(cause, AzureError)), error)
    status, code, model_status = None, None, ""
    if isinstance(told, HttpResponseError):
        status = told.status_code
        model_status = getattr(told.response, "headers", {}).get(MODEL_STATUS, "")
        code = getattr(told.error, "code", None) or getattr(told, "error_code", None)
    message = getattr(getattr(told, "error", None), "message", None) or getattr(told, "message", None) or str(told)
    details = list(_details(getattr(told, "error", None)))
    said = [str(message), *(detail.message for detail in details if detail.message and detail.message not in str(message))]
    kind: type[BaseException] = type(told)
    if isinstance(told, CredentialUnavailableError):
        kind = CredentialUnavailableError
    elif isinstance(told, ClientAuthenticationError) and any(
        isinstance(cause, OSError | ServiceRequestError) for cause in causes
    ):
        kind = ServiceRequestError
    return {
        "kind": kind.__name__,
        "code": None if code is None else str(getattr(code, "value", code)),
        "details": [detail.code for detail in details if detail.code],
        "status": status,
        "model_status": int(model_status) if model_status.isdecimal() else None,
        "message": " ".join("; ".join(said).split()),
    }


def _details(error: Any) -> Iterator[Any]:
    """Yield the errors that explain one: often it says no more than that the request is bad."""
    for detail in getattr(error, "details", None) or ():
        yield detail
        yield from _details(detail)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
