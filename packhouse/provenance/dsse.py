"""DSSE, the Dead Simple Signing Envelope: a payload, its type, and signatures over both.

Format and rules: https://github.com/secure-systems-lab/dsse, protocol 1.0.
"""

import base64
import binascii
from collections.abc import Sequence

from pydantic import Field, ValidationError

from packhouse.errors import VerificationFailed
from packhouse.provenance.keys import SigningKey, VerifyingKey
from packhouse.records import Record

URL_SAFE = str.maketrans("-_", "+/")


class Signature(Record, extra="ignore"):
    """A signature in base64. `keyid` is a hint that nothing relies on, as the protocol asks."""

    keyid: str = ""
    sig: str


class Envelope(Record, extra="ignore", populate_by_name=True):
    """A payload in base64 with its type and signatures. Unknown keys are ignored, as the protocol asks."""

    payload: str
    payload_type: str = Field(alias="payloadType")
    signatures: tuple[Signature, ...] = Field(min_length=1)

    @property
    def content(self) -> bytes:
        """The payload, decoded. Raises VerificationFailed."""
        return decoded(self.payload, "the payload of the envelope")

    def to_json(self) -> bytes:
        """Return the envelope as it is stored."""
        return self.model_dump_json(by_alias=True, indent=2).encode() + b"\n"


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, key: SigningKey) -> Envelope:
    """Return an envelope of `payload` with one signature."""
    signature = Signature(keyid=key.verifying_key.keyid, sig=_encoded(key.sign(pae(payload_type, payload))))
    return Envelope(payload=_encoded(payload), payload_type=payload_type, signatures=(signature,))


def with_signatures_of(envelope: Envelope, earlier: Envelope) -> Envelope:
    """Return `envelope` with the signatures of an earlier one of the same payload, but those by the same keys."""
    if (earlier.payload_type, earlier.content) != (envelope.payload_type, envelope.content):
        return envelope
    names = {signature.keyid for signature in envelope.signatures}
    kept = tuple(signature for signature in earlier.signatures if signature.keyid not in names)
    return envelope.model_copy(update={"signatures": (*kept, *envelope.signatures)})


def signers(envelope: Envelope, keys: Sequence[VerifyingKey]) -> tuple[str, ...]:
    """Return the names of those keys that have signed the envelope; each key is tried on each signature."""
    message = pae(envelope.payload_type, envelope.content)
    signatures = [decoded(signature.sig, "a signature in the envelope") for signature in envelope.signatures]
    return tuple(key.keyid for key in keys if any(key.has_signed(message, signature) for signature in signatures))


def parse_envelope(text: bytes, where: str) -> Envelope:
    """Return the envelope in a JSON text. Raises VerificationFailed where there is none."""
    try:
        return Envelope.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise VerificationFailed(f"{where} is no DSSE envelope: {first['msg']}") from error


def decoded(text: str, where: str) -> bytes:
    """Return what is in base64, standard or URL-safe. Raises VerificationFailed."""
    try:
        content = base64.b64decode(text.translate(URL_SAFE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationFailed(f"{where} is no base64") from error
    return content


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
