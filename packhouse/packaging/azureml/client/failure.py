"""What Azure refused, as data."""

from collections.abc import Iterator
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.identity import CredentialUnavailableError


def is_of_azure(error: BaseException) -> bool:
    """Whether Azure's SDK gave an exception, or hid one of its own in it."""
    return any(isinstance(cause, AzureError) for cause in _causes(error))


def failure(error: BaseException) -> dict[str, Any]:
    """Return exception, code, status and message of what Azure refused, taken from the first cause that Azure's SDK gave.

    That nobody answered when logging in is no fault of the credential, though the SDK says so.
    """
    causes = list(_causes(error))
    told = next((cause for cause in causes if isinstance(cause, AzureError)), error)
    status, code = None, None
    if isinstance(told, HttpResponseError):
        status = told.status_code
        code = getattr(told.error, "code", None) or getattr(told, "error_code", None)
    message = getattr(getattr(told, "error", None), "message", None) or getattr(told, "message", None) or str(told)
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
        "status": status,
        "message": " ".join(str(message).split()),
    }


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
