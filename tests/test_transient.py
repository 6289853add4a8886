"""What may pass when it is tried again: errors by their kind, and what programs say, in words that they really said."""

import errno
import os
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import requests

from packhouse.artifacts import storing
from packhouse.errors import ArtifactError, InputError, PackagingFailed, RegistrationFailed
from packhouse.transient import is_said_to_pass, may_pass

PASSING = [
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...): [Errno 111] Connection refused'",
    "pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool(host='index', port=443): Read timed out.",
    "ERROR: Could not install packages due to an OSError: (Caused by ResponseError('too many 503 error responses'))",
    "pip._vendor.urllib3.exceptions.ProtocolError: ('Connection broken: IncompleteRead(512 bytes read, 99 more expected)')",
    "× Download failed because not enough bytes were received (512 bytes/1.0 kB)",
    "ERROR: HTTP error 503 while getting http://index/engine-1.0-py3-none-any.whl",
    "503 Server Error: Service Unavailable for url: http://index/engine-1.0-py3-none-any.whl",
    "error: Failed to fetch: `http://index/engine/`: HTTP status server error (502 Bad Gateway) for url (http://index/engine/)",
    "cause: error sending request for url (http://index/engine/): client error (Connect): dns error",
    "cause: request or response body error: end of file before message length reached",
    "denied: received unexpected HTTP status: 504 Gateway Time-out",
    "pinging container registry 127.0.0.1:9: dial tcp 127.0.0.1:9: connect: connection refused",
    'Get "https://registry/v2/": net/http: TLS handshake timeout',
    "toomanyrequests: You have reached your pull rate limit",
    "dial tcp 127.0.0.1:5000: connect: connection refused",
    "read tcp 10.0.0.2:41182->10.0.0.1:443: read: connection reset by peer",
    "write tcp 127.0.0.1:51278->127.0.0.1:41879: use of closed network connection",
    "write tcp 127.0.0.1:51278->127.0.0.1:41879: write: broken pipe",
    'Patch "https://registry.example.com/v2/a/blobs/uploads/1": EOF',
    "unexpected EOF",
    "received unexpected HTTP status: 503 Service Unavailable",
    "received unexpected HTTP status: 500 Internal Server Error",
    "unexpected status code 502",
    "toomanyrequests: Rate exceeded",
    "net/http: TLS handshake timeout",
]
LASTING = [
    "ERROR: No matching distribution found for engine==9.9",
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    "ERROR: HTTP error 404 while getting http://index/engine-1.0-py3-none-any.whl",
    "401 Client Error: Unauthorized for url: http://index/engine/",
    "unauthorized: authentication required",
    "error: No solution found when resolving dependencies: engine==1.503 is not available",
    "Connected to pydev debugger",
    "unauthorized: authentication required",
    "denied: requested access to the resource is denied",
    "received unexpected HTTP status: 501 Not Implemented",
    "name unknown: the repository geoffrey/points does not exist",
    "manifest invalid: manifest has 500 layers",
]


@pytest.mark.parametrize("output", PASSING)
def test_trouble_on_the_network_may_pass(output: str) -> None:
    assert is_said_to_pass(output)


@pytest.mark.parametrize("output", LASTING)
def test_what_a_server_refuses_or_has_not_does_not_pass(output: str) -> None:
    assert not is_said_to_pass(output)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.ENETUNREACH])
def test_errors_of_the_system_that_may_pass_are_told_from_others_by_their_number(number: int) -> None:
    assert may_pass(OSError(number, os.strerror(number)))
    for lasting in (errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EROFS, errno.EDQUOT):
        assert not may_pass(OSError(lasting, os.strerror(lasting)))


def test_a_name_that_cannot_be_looked_up_now_may_pass_and_one_that_is_not_there_does_not() -> None:
    assert may_pass(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    assert not may_pass(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))


@pytest.mark.parametrize("get", [httpx.get, requests.get, urllib.request.urlopen])
def test_an_error_of_a_library_may_pass_where_that_which_led_to_it_may(get: Callable[[str], Any]) -> None:
    with pytest.raises(Exception, match="refused") as refused:
        get("http://127.0.0.1:9/")
    assert may_pass(refused.value)


def test_an_error_that_says_what_it_is_is_not_taken_for_what_led_to_it() -> None:
    full, unlicensed = OSError(errno.ENOSPC, "No space left on device"), PackagingFailed("no licence")
    for error in (full, unlicensed):
        error.__context__ = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        assert not may_pass(error)
    assert not may_pass(ValueError("no such region"))


def test_errors_of_ours_say_so_themselves_and_by_default_that_they_do_not() -> None:
    assert may_pass(RegistrationFailed("503", is_transient=True))
    assert not may_pass(PackagingFailed("no licence"))
    assert not may_pass(InputError.at("signing", "is wrong"))


@pytest.mark.parametrize(("number", "is_transient"), [(errno.EIO, True), (errno.ENOSPC, False)])
def test_an_error_of_the_system_while_something_is_stored_keeps_what_it_is(number: int, is_transient: bool) -> None:
    with pytest.raises(ArtifactError) as caught, storing("it"):
        raise OSError(number, os.strerror(number))
    assert caught.value.is_transient == is_transient
