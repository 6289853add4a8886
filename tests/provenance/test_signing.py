"""Signatures beside packages: what was signed verifies, and every way in which a package can be another is refused."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packhouse.errors import InputError, VerificationFailed
from packhouse.provenance import dsse
from packhouse.provenance.signing import envelope_path, provenance_path, sign_package, verify_beside, verify_signature
from packhouse.provenance.statement import FILES_ONLY, PAYLOAD_TYPE, files_statement
from packhouse.provenance.subjects import digests_of
from tests.provenance.keys import KINDS, new_key
from tests.provenance.test_dsse import flipped
from tests.provenance.waiting import within_seconds

KEY, OTHER = new_key("ed25519"), new_key("p256")


def make_archive(folder: Path, content: bytes = b"archive") -> Path:
    """Write a package that is one file."""
    path = folder / "points.zip"
    path.write_bytes(content)
    return path


def make_folder(folder: Path) -> Path:
    """Write a package that is a folder."""
    path = folder / "best"
    (path / "deep").mkdir(parents=True)
    (path / "MLmodel").write_bytes(b"flavors")
    (path / "deep" / "weights.bin").write_bytes(b"weights")
    return path


def verify(package: Path, *keys: Any) -> Any:
    return verify_signature(package, envelope_path(package), [key.verifying_key for key in keys or (KEY,)])


@pytest.fixture(params=[make_archive, make_folder], ids=["file", "folder"])
def signed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A package that is signed."""
    package: Path = request.param(tmp_path)
    sign_package(package, KEY)
    return package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package of two files that is signed."""
    package = make_folder(tmp_path)
    sign_package(package, KEY)
    return package


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [make_archive, make_folder])
def test_a_signed_package_verifies_with_the_keys_public_half(kind: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    package, key = make(tmp_path), new_key(kind)
    place, statement = sign_package(package, key)
    assert place == envelope_path(package) == tmp_path / f"{package.name}.intoto.json"
    verified = verify(package, key)
    assert verified.signed_by == (key.verifying_key.keyid,)
    assert verified.statement == statement
    assert statement.predicate_type == FILES_ONLY
    assert statement.digests == digests_of(package)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(content=st.binary(min_size=1), bit=st.integers(min_value=0))
def test_a_package_verifies_as_it_was_and_not_with_one_bit_flipped(tmp_path: Path, content: bytes, bit: int) -> None:
    package = make_archive(tmp_path, content)
    sign_package(package, KEY)
    assert verify(package).signed_by
    package.write_bytes(flipped(content, bit))
    with pytest.raises(VerificationFailed, match=r"points\.zip is not what it was: its SHA-256 differs"):
        verify(package)


def change(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda package: (package / name).write_bytes(content)


def link_elsewhere(package: Path) -> None:
    (package / "MLmodel").rename(package.parent / "elsewhere")
    (package / "MLmodel").symlink_to(package.parent / "elsewhere")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (change("deep/weights.bin", b"weightz"), r"^best/deep/weights\.bin is not what it was"),
    "a byte more": (change("MLmodel", b"flavors\n"), "^best/MLmodel is not what it was"),
    "a missing file": (lambda package: (package / "MLmodel").unlink(), "^best/MLmodel is missing"),
    "a missing folder": (lambda package: shutil.rmtree(package / "deep"), r"^best/deep/weights\.bin is missing"),
    "an extra file": (change("deep/more", b"x"), "^best/deep/more is not in the statement that was signed"),
    "a renamed file": (
        lambda package: (package / "MLmodel").rename(package / "Model"),
        "^best/Model is called best/MLmodel in the statement",
    ),
    "a file in another case": (lambda package: (package / "MLmodel").rename(package / "mlmodel"), "is called best/MLmodel"),
    "two files that changed places": (
        lambda package: (change("MLmodel", b"weights")(package), change("deep/weights.bin", b"flavors")(package)),
        "^best/MLmodel is not what it was",
    ),
    "a link to the same bytes": (link_elsewhere, "^best/MLmodel is not a regular file"),
    "a linked folder": (lambda package: (package / "more").symlink_to(package / "deep"), "^best/more is not a regular file"),
    "a pipe": (lambda package: os.mkfifo(package / "pipe"), "^best/pipe is not a regular file"),
}


@pytest.mark.parametrize(("spoil", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_package_that_is_not_what_was_signed_is_refused(folder: Path, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(folder)
    with pytest.raises(VerificationFailed, match=reason):
        verify(folder)


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    package = make_archive(tmp_path)
    sign_package(package, KEY)
    other = package.rename(tmp_path / "other.zip")
    with pytest.raises(VerificationFailed, match=r"^other\.zip is called points\.zip in the statement that was signed"):
        verify_signature(other, envelope_path(package), [KEY.verifying_key])


def test_a_folder_under_another_name_is_refused(folder: Path) -> None:
    other = folder.rename(folder.with_name("other"))
    shutil.copy(envelope_path(folder), envelope_path(other))
    with pytest.raises(VerificationFailed, match=r"^other/MLmodel is called best/MLmodel in the statement that was signed"):
        verify(other)
    provenance_path(other).write_bytes(dsse.parse_envelope(envelope_path(folder).read_bytes(), "envelope").content)
    with pytest.raises(VerificationFailed, match=r"^other/MLmodel is called best/MLmodel in other\.provenance\.json"):
        verify_beside(other)
    with pytest.raises(VerificationFailed, match=r"^other/MLmodel is called best/MLmodel in other\.provenance\.json"):
        sign_package(other, KEY)


def test_the_envelope_of_another_package_is_refused(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    another = make_archive(tmp_path / "second", b"another")
    sign_package(another, KEY)
    shutil.copy(envelope_path(another), envelope_path(signed))
    with pytest.raises(VerificationFailed):
        verify(signed)


def test_a_package_without_an_envelope_is_refused_as_unsigned(signed: Path) -> None:
    envelope_path(signed).unlink()
    with pytest.raises(VerificationFailed, match=f"not signed: {signed.name}.intoto.json is missing"):
        verify(signed)


def test_a_package_that_is_signed_with_another_key_is_refused_and_the_key_is_named(signed: Path) -> None:
    with pytest.raises(VerificationFailed, match=f"no key that was given has signed.*{KEY.verifying_key.keyid[:12]}"):
        verify(signed, OTHER)


def test_one_trusted_key_among_those_given_is_enough(signed: Path) -> None:
    assert verify(signed, OTHER, KEY).signed_by == (KEY.verifying_key.keyid,)


def test_a_second_signature_is_added_and_either_key_verifies(signed: Path) -> None:
    sign_package(signed, OTHER)
    assert len(json.loads(envelope_path(signed).read_text())["signatures"]) == 2
    for key in (KEY, OTHER):
        assert verify(signed, key).signed_by == (key.verifying_key.keyid,)
    assert set(verify(signed, KEY, OTHER).signed_by) == {KEY.verifying_key.keyid, OTHER.verifying_key.keyid}


def test_signing_a_changed_package_drops_the_signatures_of_what_it_was(folder: Path) -> None:
    (folder / "MLmodel").write_bytes(b"changed")
    sign_package(folder, OTHER)
    assert verify(folder, OTHER).signed_by
    with pytest.raises(VerificationFailed, match="no key that was given"):
        verify(folder, KEY)


@pytest.mark.parametrize("share", range(0, 100, 7))
def test_a_truncated_envelope_is_refused_wherever_it_was_cut(signed: Path, share: int) -> None:
    place = envelope_path(signed)
    content = place.read_bytes()
    place.write_bytes(content[: len(content) * share // 100])
    with pytest.raises(VerificationFailed, match=f"{place.name} is no DSSE envelope"):
        verify(signed)


def test_an_envelope_with_another_payload_type_is_refused_though_it_is_signed(signed: Path) -> None:
    statement = files_statement(digests_of(signed)).to_json()
    envelope_path(signed).write_bytes(dsse.sign(statement, "text/plain", KEY).to_json())
    with pytest.raises(VerificationFailed, match="holds 'text/plain', not an in-toto statement"):
        verify(signed)


def test_a_payload_type_that_was_swapped_is_refused(signed: Path) -> None:
    statement = files_statement(digests_of(signed)).to_json()
    swapped = {**json.loads(dsse.sign(statement, "text/plain", KEY).to_json()), "payloadType": PAYLOAD_TYPE}
    envelope_path(signed).write_text(json.dumps(swapped))
    with pytest.raises(VerificationFailed, match="no key that was given has signed"):
        verify(signed)


V1 = "https://in-toto.io/Statement/v1"
STATEMENTS: dict[str, tuple[Any, str]] = {
    "no statement": ([], "is no in-toto statement"),
    "another version": ({"_type": f"{V1}.1", "subject": [{"name": "a", "digest": {}}]}, "is no in-toto statement: _type"),
    "no subjects": ({"_type": V1, "subject": []}, "is no in-toto statement: subject"),
    "a subject without SHA-256": ({"_type": V1, "subject": [{"name": "a", "digest": {"sha1": "b"}}]}, "a has no SHA-256"),
    "a subject twice": ({"_type": V1, "subject": [{"name": "a", "digest": {"sha256": "b"}}] * 2}, "a is listed twice"),
}


@pytest.mark.parametrize(("payload", "reason"), STATEMENTS.values(), ids=STATEMENTS)
def test_what_is_no_statement_about_files_is_refused_though_it_is_signed(signed: Path, payload: Any, reason: str) -> None:
    text = json.dumps({**payload, "predicateType": FILES_ONLY} if payload else payload).encode()
    envelope_path(signed).write_bytes(dsse.sign(text, PAYLOAD_TYPE, KEY).to_json())
    with pytest.raises(VerificationFailed, match=reason):
        verify(signed)


def test_provenance_beside_a_package_is_what_is_signed_byte_for_byte(tmp_path: Path) -> None:
    package = make_archive(tmp_path)
    text = files_statement(digests_of(package)).to_json().replace(b",", b",  ")
    provenance_path(package).write_bytes(text)
    place, _ = sign_package(package, KEY)
    assert base64.b64decode(json.loads(place.read_text())["payload"]) == text
    assert verify_beside(package, [KEY.verifying_key])


def test_provenance_of_other_files_is_not_signed(tmp_path: Path) -> None:
    package = make_archive(tmp_path)
    provenance_path(package).write_bytes(files_statement({package.name: "0" * 64}).to_json())
    with pytest.raises(VerificationFailed, match=r"its SHA-256 differs from that in points\.zip\.provenance\.json"):
        sign_package(package, KEY)
    assert not envelope_path(package).exists()


def test_provenance_that_is_not_what_was_signed_is_refused_with_a_key(signed: Path) -> None:
    statement = files_statement(digests_of(signed))
    forged = statement.model_copy(update={"predicate": {"by": "somebody else"}})
    provenance_path(signed).write_bytes(forged.to_json())
    with pytest.raises(VerificationFailed, match=r"provenance\.json is not what was signed"):
        verify_beside(signed, [KEY.verifying_key])
    assert verify_beside(signed)


def test_without_a_key_digests_in_the_provenance_are_compared(signed: Path) -> None:
    assert verify_beside(signed) is None
    provenance_path(signed).write_bytes(files_statement({**digests_of(signed), "more": "0" * 64}).to_json())
    with pytest.raises(VerificationFailed, match=r"^more is missing"):
        verify_beside(signed)


def test_a_package_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name a published package"):
        sign_package(tmp_path / "points.zip", KEY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("act", [lambda package: sign_package(package, KEY), verify], ids=["sign", "verify"])
def test_a_pipe_in_place_of_a_package_is_bad_input_and_not_waited_for(signed: Path, act: Callable[[Path], object]) -> None:
    shutil.rmtree(signed) if signed.is_dir() else signed.unlink()
    os.mkfifo(signed)
    with within_seconds(5), pytest.raises(InputError, match=r"cannot be read \(it is not a regular file\)"):
        act(signed)


LINKS_AND_PIPES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "it is not a regular file"),
    "a link to what never ends": (lambda path: path.symlink_to("/dev/zero"), "it is a link"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "it is a link"),
    "a folder": (Path.mkdir, "it is not a regular file"),
}


@pytest.mark.parametrize(("make", "reason"), LINKS_AND_PIPES.values(), ids=LINKS_AND_PIPES)
@pytest.mark.parametrize("beside", [envelope_path, provenance_path])
def test_what_lies_beside_a_package_and_is_no_file_is_bad_input(
    signed: Path, beside: Callable[[Path], Path], make: Callable[[Path], object], reason: str
) -> None:
    place = beside(signed)
    place.unlink(missing_ok=True)
    make(place)
    for act in (lambda: sign_package(signed, KEY), lambda: verify_beside(signed, [KEY.verifying_key])):
        with within_seconds(5), pytest.raises(InputError, match=rf"{place.name}: cannot be read \({reason}\)"):
            act()


def test_an_endless_envelope_is_not_read(signed: Path) -> None:
    with envelope_path(signed).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(VerificationFailed, match="is larger than"):
        verify(signed)
