"""Sign published packages, and verify who has: a signed in-toto statement lies beside each package, as a DSSE envelope.

    digits.zip
    digits.zip.provenance.json   the statement, to be read
    digits.zip.intoto.json       the statement in an envelope, with its signatures

Laws: ``verify(sign(package))`` never fails with the key's public half; a package of which any byte, file or name is another is
refused, and so is a statement of which any byte is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path

from packhouse.errors import InputError, VerificationFailed
from packhouse.output import OutputFolder
from packhouse.provenance import dsse
from packhouse.provenance.config import ENVELOPE_SUFFIX, PROVENANCE_SUFFIX
from packhouse.provenance.keys import SigningKey, VerifyingKey
from packhouse.provenance.statement import PAYLOAD_TYPE, Statement, files_statement, parse_statement
from packhouse.provenance.subjects import digests_of, require_same
from packhouse.regular_files import read_regular

MAX_TEXT_BYTES = 64 << 20


@dataclass(frozen=True)
class Verified:
    """What was found out about a package: the statement that it agrees with, and the names of trusted keys that signed that."""

    statement: Statement
    payload: bytes
    signed_by: tuple[str, ...] = ()


def provenance_path(package: Path) -> Path:
    """Return where the provenance of a package lies."""
    return package.with_name(package.name + PROVENANCE_SUFFIX)


def envelope_path(package: Path) -> Path:
    """Return where the signed statement of a package lies."""
    return package.with_name(package.name + ENVELOPE_SUFFIX)


def sign_payload(statement: bytes, key: SigningKey) -> dsse.Envelope:
    """Return an envelope with a statement, byte for byte, and its signature."""
    return dsse.sign(statement, PAYLOAD_TYPE, key)


def sign_package(package: Path, key: SigningKey) -> tuple[Path, Statement]:
    """Sign the provenance beside a package, or without one a statement of its files only, and return where and what.

    Signatures by other keys stay where they are of the same statement.

    Raises:
        InputError: the package cannot be read, or the envelope not be written.
        VerificationFailed: the provenance beside the package is not that of these files.
    """
    files, beside, place = digests_of(package), provenance_path(package), envelope_path(package)
    payload = _read(beside) if lexists(beside) else files_statement(files).to_json()
    statement = parse_statement(payload, beside.name)
    require_same(statement.digests, files, beside.name)
    envelope = sign_payload(payload, key)
    try:
        if lexists(place):
            envelope = dsse.with_signatures_of(envelope, dsse.parse_envelope(_read(place), place.name))
        OutputFolder(place.parent).write(place.name, envelope.to_json())
    except OSError as error:
        raise InputError.at(str(place), f"cannot be written ({error.strerror})", "sign where you may write") from error
    return place, statement


def verify_signature(package: Path, envelope: Path, keys: Sequence[VerifyingKey]) -> Verified:
    """Check that one of the keys has signed a statement of exactly the files of a package.

    Raises:
        InputError: the package is not there, or cannot be read.
        VerificationFailed: it is not signed, not by one of these keys, or not what was signed; the message says which.
    """
    if not package.exists():
        raise InputError.at(str(package), "is not there", "name a published package")
    if not lexists(envelope):
        raise VerificationFailed(f"the package is not signed: {envelope.name} is missing")
    found = dsse.parse_envelope(_read(envelope), envelope.name)
    if found.payload_type != PAYLOAD_TYPE:
        raise VerificationFailed(f"{envelope.name} holds {found.payload_type!r}, not an in-toto statement")
    signed_by = dsse.signers(found, keys)
    if not signed_by:
        names = ", ".join(sorted(signature.keyid[:12] or "a nameless key" for signature in found.signatures))
        raise VerificationFailed(f"no key that was given has signed {envelope.name}; it says that it was signed by {names}")
    statement = parse_statement(found.content, envelope.name)
    require_same(statement.digests, digests_of(package), f"the statement that was signed ({envelope.name})")
    return Verified(statement, found.content, signed_by)


def verify_beside(package: Path, keys: Sequence[VerifyingKey] = ()) -> Verified | None:
    """Check a package against what lies beside it; None where that is no provenance and there are no keys to ask for one.

    Without keys, only the digests in the provenance are compared. Raises as `verify_signature` does.
    """
    beside = provenance_path(package)
    stated = _read(beside) if lexists(beside) else None
    if keys:
        verified = verify_signature(package, envelope_path(package), keys)
        if stated not in (None, verified.payload):
            raise VerificationFailed(f"{beside.name} is not what was signed; sign the package again, or remove that file")
        return verified
    if stated is None:
        return None
    statement = parse_statement(stated, beside.name)
    require_same(statement.digests, digests_of(package), beside.name)
    return Verified(statement, stated)


def _read(path: Path) -> bytes:
    try:
        text = read_regular(path, MAX_TEXT_BYTES)
    except OSError as error:
        raise InputError.at(str(path), f"cannot be read ({error.strerror})", "put a readable file there") from error
    if len(text) > MAX_TEXT_BYTES:
        raise VerificationFailed(f"{path.name} is larger than {MAX_TEXT_BYTES} bytes")
    return text
