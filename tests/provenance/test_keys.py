"""Keys in PEM: the two kinds are read, encrypted or not, and all else is bad input whose message gives nothing away."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from packhouse.errors import InputError
from packhouse.provenance.keys import PASSWORD_VARIABLE, parse_signing_key, read_signing_key, read_verifying_key
from tests.provenance.keys import KINDS, new_key, private_pem, write_keys
from tests.provenance.waiting import within_seconds

OTHER_KINDS: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
    "RSA": rsa.generate_private_key(65537, 2048),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
}


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)


@pytest.mark.parametrize("kind", KINDS)
def test_private_and_public_half_belong_together(kind: str, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, kind)
    key, verifying = read_signing_key(private, "key"), read_verifying_key(public, "key")
    assert verifying.has_signed(b"message", key.sign(b"message"))
    assert not verifying.has_signed(b"another", key.sign(b"message"))
    assert key.verifying_key.keyid == verifying.keyid


@pytest.mark.parametrize("kind", KINDS)
def test_name_of_a_key_is_the_digest_of_its_der_form(kind: str, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path, kind)
    der = load_pem_public_key(public.read_bytes()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert read_verifying_key(public, "key").keyid == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_an_encrypted_key_is_read_with_the_password_in_the_environment(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_keys(tmp_path, kind, password="correct horse")
    monkeypatch.setenv(PASSWORD_VARIABLE, "correct horse")
    assert read_signing_key(private, "key").verifying_key.keyid == read_verifying_key(public, "key").keyid


@pytest.mark.parametrize("read", [read_signing_key, read_verifying_key])
def test_a_pipe_or_a_device_in_place_of_a_key_is_bad_input_and_not_waited_for(
    read: Callable[[Path, str], object], tmp_path: Path
) -> None:
    pipe = tmp_path / "key.pem"
    os.mkfifo(pipe)
    with within_seconds(5), pytest.raises(InputError, match=r"^key: cannot be read \(it is not a regular file\)"):
        read(pipe, "key")
    with pytest.raises(InputError, match=r"^key: cannot be read \(it is not a regular file\)"):
        read(Path("/dev/zero"), "key")


def test_a_key_may_be_a_link_as_mounted_secrets_are(tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path)
    (tmp_path / "link.pem").symlink_to(private)
    linked = read_signing_key(tmp_path / "link.pem", "key")
    assert linked.verifying_key.keyid == read_signing_key(private, "key").verifying_key.keyid


def test_a_password_that_is_not_needed_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "another key's")
    read_signing_key(write_keys(tmp_path)[0], "key")


@pytest.mark.parametrize(("password", "reason"), [(None, "there is no password"), ("wrong", "cannot be decrypted")])
def test_an_encrypted_key_without_its_password_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str | None, reason: str
) -> None:
    if password:
        monkeypatch.setenv(PASSWORD_VARIABLE, password)
    with pytest.raises(InputError, match=f"key: .*{reason}.*→"):
        read_signing_key(write_keys(tmp_path, password="correct horse")[0], "key")


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_private_key_is_bad_input_and_is_not_quoted(content: bytes) -> None:
    with pytest.raises(InputError, match=r"is no private key in PEM.*openssl genpkey") as caught:
        parse_signing_key(content, "key")
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_keys_of_other_kinds_are_bad_input(kind: str, tmp_path: Path) -> None:
    key = OTHER_KINDS[kind]
    with pytest.raises(InputError, match="kind that is not supported; Ed25519 and ECDSA P-256 are"):
        parse_signing_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "key")
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pub.pem").write_bytes(public)
    with pytest.raises(InputError, match="kind that is not supported"):
        read_verifying_key(tmp_path / "pub.pem", "key")


def test_the_wrong_half_is_bad_input_with_the_command_that_makes_the_right_one(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    with pytest.raises(InputError, match=r"is a private key.*openssl pkey -in"):
        read_verifying_key(private, "key")
    with pytest.raises(InputError, match="is no private key"):
        read_signing_key(public, "key")


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    for read in (read_signing_key, read_verifying_key):
        with pytest.raises(InputError, match="key: cannot be read"):
            read(tmp_path / "missing.pem", "key")
        with pytest.raises(InputError, match="key: cannot be read"):
            read(tmp_path, "key")


def test_a_key_does_not_show_in_its_repr() -> None:
    key = new_key("ed25519")
    assert repr(key) == "SigningKey()"
    assert private_pem(key).decode().splitlines()[1] not in repr(key) + str(vars(key))
