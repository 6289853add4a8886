"""Keys for tests, made anew each time, and their files as openssl would write them."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from packhouse.provenance.keys import SigningKey

KINDS = ("ed25519", "p256")


def new_key(kind: str) -> SigningKey:
    """Return a fresh private key."""
    return SigningKey(Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(SECP256R1()))


def private_pem(key: SigningKey, password: str | None = None) -> bytes:
    """Return a private key in PEM, PKCS #8."""
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def write_keys(folder: Path, kind: str = "ed25519", password: str | None = None) -> tuple[Path, Path]:
    """Write a fresh private key and its public half, and return the paths of both."""
    key = new_key(kind)
    private, public = folder / f"{kind}.pem", folder / f"{kind}.pub.pem"
    private.write_bytes(private_pem(key, password))
    public.write_bytes(key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public
