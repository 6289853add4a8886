"""Keys in PEM, as openssl writes them: Ed25519, or ECDSA with the curve P-256 and SHA-256.

A key is named by the SHA-256 of its public half as SubjectPublicKeyInfo in DER, which anybody can compute from it.
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from packhouse.errors import InputError
from packhouse.regular_files import read_regular

PASSWORD_VARIABLE = "PACKHOUSE_KEY_PASSWORD"  # noqa: S105 - a name
MAX_KEY_BYTES = 64 << 10
MAKE_ONE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"
KINDS = "Ed25519 and ECDSA P-256 are"


@dataclass(frozen=True)
class VerifyingKey:
    """A public key."""

    public: Ed25519PublicKey | EllipticCurvePublicKey = field(repr=False)

    @property
    def keyid(self) -> str:
        """SHA-256 (hex) of the key as SubjectPublicKeyInfo in DER."""
        return hashlib.sha256(self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` was made of `message` with the private half of this key."""
        try:
            if isinstance(self.public, Ed25519PublicKey):
                self.public.verify(signature, message)
            else:
                self.public.verify(signature, message, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private key; its repr does not show it."""

    private: Ed25519PrivateKey | EllipticCurvePrivateKey = field(repr=False)

    @property
    def verifying_key(self) -> VerifyingKey:
        """The public half."""
        return VerifyingKey(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return a signature of `message`: 64 bytes with Ed25519, DER with ECDSA, where it differs each time."""
        if isinstance(self.private, Ed25519PrivateKey):
            return self.private.sign(message)
        return self.private.sign(message, ECDSA(SHA256()))


def read_signing_key(path: Path, where: str) -> SigningKey:
    """Return the private key in a file; `where` names it in errors. Raises InputError."""
    return parse_signing_key(_read(path, where), where)


def parse_signing_key(pem: bytes, where: str) -> SigningKey:
    """Return the private key in `pem`, decrypted with the password in `PASSWORD_VARIABLE` of the environment if it needs one.

    Raises:
        InputError: it is no such key, or cannot be decrypted; the message has nothing of it.
    """
    try:
        private = _decrypted(pem, where)
    except (ValueError, UnsupportedAlgorithm):
        encrypted = b"ENCRYPTED" in pem
        what = f"cannot be decrypted with {PASSWORD_VARIABLE}" if encrypted else "is no private key in PEM"
        # What cryptography says of a key that it cannot read is kept out, for it may quote it.
        raise InputError.at(where, what, "check the password" if encrypted else MAKE_ONE) from None
    if isinstance(private, Ed25519PrivateKey):
        return SigningKey(private)
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1):
        return SigningKey(private)
    raise InputError.at(where, f"is a key of a kind that is not supported; {KINDS}", MAKE_ONE)


def read_verifying_key(path: Path, where: str) -> VerifyingKey:
    """Return the public key in a file; `where` names it in errors. Raises InputError."""
    pem = _read(path, where)
    if b"PRIVATE KEY" in pem:
        remedy = "give its public half: openssl pkey -in key.pem -pubout -out key.pub.pem"
        raise InputError.at(where, "is a private key, which whoever verifies need not have", remedy)
    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        remedy = "make it with: openssl pkey -in key.pem -pubout -out key.pub.pem"
        raise InputError.at(where, "is no public key in PEM", remedy) from error
    if isinstance(public, Ed25519PublicKey):
        return VerifyingKey(public)
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return VerifyingKey(public)
    raise InputError.at(
        where, f"is a key of a kind that is not supported; {KINDS}", "use the key that the package was signed with"
    )


def _decrypted(pem: bytes, where: str) -> object:
    try:
        return load_pem_private_key(pem, None)
    except TypeError:  # it is encrypted
        password = os.environ.get(PASSWORD_VARIABLE)
        if not password:
            remedy = f"put its password into the environment variable {PASSWORD_VARIABLE}"
            raise InputError.at(where, "is encrypted, and there is no password", remedy) from None
        return load_pem_private_key(pem, password.encode())


def _read(path: Path, where: str) -> bytes:
    try:
        pem = read_regular(path, MAX_KEY_BYTES, follow_links=True)
    except OSError as error:
        raise InputError.at(where, f"cannot be read ({error.strerror})", "check the path") from error
    if len(pem) > MAX_KEY_BYTES:
        raise InputError.at(where, f"is larger than {MAX_KEY_BYTES} bytes, so it is no key", "check the path")
    return pem
