"""The envelope: what is signed is the specification's encoding, and only its own keys, type and payload verify."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from packhouse.errors import VerificationFailed
from packhouse.provenance.dsse import Envelope, pae, parse_envelope, sign, signers, with_signatures_of
from packhouse.provenance.keys import SigningKey
from tests.provenance.keys import KINDS, new_key

KIND = "application/vnd.in-toto+json"
ED25519, P256 = (new_key(kind) for kind in KINDS)
any_key = st.sampled_from([ED25519, P256])


def parsed(envelope: Envelope, **changes: Any) -> Envelope:
    """Return an envelope as it is read from its file, with changes in that."""
    return parse_envelope(json.dumps({**json.loads(envelope.to_json()), **changes}).encode(), "the envelope")


def signed_by(envelope: Envelope, key: SigningKey) -> bool:
    return signers(envelope, [key.verifying_key]) == (key.verifying_key.keyid,)


def flipped(content: bytes, bit: int) -> bytes:
    """Return the bytes with one bit the other way."""
    changed = bytearray(content)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


def test_encoding_is_that_of_the_specifications_example() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected


def test_encoding_counts_bytes_and_not_letters() -> None:
    assert pae("tüpe", "wörld".encode()) == b"DSSEv1 5 t\xc3\xbcpe 6 w\xc3\xb6rld"


@pytest.mark.parametrize("key", [ED25519, P256], ids=KINDS)
def test_signature_verifies_with_nothing_but_the_bare_primitives(key: SigningKey) -> None:
    document = json.loads(sign(b'{"a": 1}', KIND, key).to_json())
    assert document.keys() == {"payload", "payloadType", "signatures"}
    payload = base64.b64decode(document["payload"], validate=True)
    assert (payload, document["payloadType"]) == (b'{"a": 1}', KIND)
    (signature,) = document["signatures"]
    message = b"DSSEv1 28 application/vnd.in-toto+json 8 " + payload
    public = key.private.public_key()
    if isinstance(public, Ed25519PublicKey):
        public.verify(base64.b64decode(signature["sig"]), message)
    else:
        public.verify(base64.b64decode(signature["sig"]), message, ECDSA(SHA256()))


@given(st.binary(), st.text(max_size=20), any_key)
def test_what_was_signed_verifies_after_it_was_stored(payload: bytes, kind: str, key: SigningKey) -> None:
    read = parsed(sign(payload, kind, key))
    assert signed_by(read, key)
    assert (read.content, read.payload_type) == (payload, kind)


@given(st.binary(min_size=1), st.integers(min_value=0), any_key)
def test_a_payload_with_one_bit_flipped_does_not_verify(payload: bytes, bit: int, key: SigningKey) -> None:
    changed = base64.b64encode(flipped(payload, bit)).decode()
    assert not signed_by(parsed(sign(payload, KIND, key), payload=changed), key)


@given(st.integers(min_value=0), any_key)
def test_a_signature_with_one_bit_flipped_does_not_verify(bit: int, key: SigningKey) -> None:
    envelope = sign(b"payload", KIND, key)
    changed = flipped(base64.b64decode(envelope.signatures[0].sig), bit)
    signatures = [{"keyid": key.verifying_key.keyid, "sig": base64.b64encode(changed).decode()}]
    assert not signed_by(parsed(envelope, signatures=signatures), key)


@pytest.mark.parametrize("key", [ED25519, P256], ids=KINDS)
def test_another_payload_type_does_not_verify(key: SigningKey) -> None:
    assert not signed_by(parsed(sign(b"payload", KIND, key), payloadType="text/plain"), key)


@pytest.mark.parametrize(("key", "other"), [(ED25519, P256), (P256, ED25519), (ED25519, new_key("ed25519"))])
def test_another_key_does_not_verify_even_under_the_name_of_the_first(key: SigningKey, other: SigningKey) -> None:
    envelope = sign(b"payload", KIND, other)
    named = [{"keyid": key.verifying_key.keyid, "sig": envelope.signatures[0].sig}]
    assert not signed_by(parsed(envelope, signatures=named), key)


def test_name_of_the_key_is_a_hint_that_may_be_missing_or_wrong() -> None:
    envelope = sign(b"payload", KIND, P256)
    for name in ({}, {"keyid": "somebody"}):
        assert signed_by(parsed(envelope, signatures=[{"sig": envelope.signatures[0].sig, **name}]), P256)


def test_url_safe_base64_is_read_too() -> None:
    envelope = sign(b"\xfb\xff\xfe", KIND, ED25519)
    assert "+" in envelope.payload
    assert signed_by(parsed(envelope, payload=envelope.payload.replace("+", "-").replace("/", "_")), ED25519)


def test_two_signatures_are_told_apart_and_a_second_one_by_the_same_key_replaces_the_first() -> None:
    both = with_signatures_of(sign(b"payload", KIND, P256), sign(b"payload", KIND, ED25519))
    assert signed_by(both, P256)
    assert signed_by(both, ED25519)
    assert len(both.signatures) == 2
    assert len(with_signatures_of(sign(b"payload", KIND, P256), both).signatures) == 2


def test_signatures_of_another_payload_are_dropped() -> None:
    envelope = sign(b"payload", KIND, P256)
    assert with_signatures_of(envelope, sign(b"another", KIND, ED25519)) == envelope


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'{"payload": "", "payloadType": ""}', b'{"payload": 1}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_envelope_is_refused(text: bytes) -> None:
    with pytest.raises(VerificationFailed, match="the envelope is no DSSE envelope"):
        parse_envelope(text, "the envelope")


@pytest.mark.parametrize("changes", [{"payload": "a"}, {"payload": "a b="}, {"payload": "ä"}, {"signatures": [{"sig": "!"}]}])
def test_what_is_no_base64_is_refused(changes: Any) -> None:
    with pytest.raises(VerificationFailed, match="is no base64"):
        signers(parsed(sign(b"payload", KIND, P256), **changes), [P256.verifying_key])


def test_an_envelope_without_signatures_is_refused() -> None:
    with pytest.raises(VerificationFailed, match="is no DSSE envelope"):
        parsed(sign(b"payload", KIND, P256), signatures=[])
