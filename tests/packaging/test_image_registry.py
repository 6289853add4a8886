"""Which failures of a push may pass, by what builders say; the push itself is tested with a registry, in tests/real."""

import pytest

from packhouse.packaging.docker.image_registry import MAY_PASS

PASSING = [
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
    "unauthorized: authentication required",
    "denied: requested access to the resource is denied",
    "received unexpected HTTP status: 501 Not Implemented",
    "name unknown: the repository geoffrey/points does not exist",
    "manifest invalid: manifest has 500 layers",
]


@pytest.mark.parametrize("said", PASSING)
def test_trouble_of_the_network_or_the_registry_may_pass(said: str) -> None:
    assert MAY_PASS.search(said)


@pytest.mark.parametrize("said", LASTING)
def test_what_a_registry_refuses_does_not_pass(said: str) -> None:
    assert not MAY_PASS.search(said)
