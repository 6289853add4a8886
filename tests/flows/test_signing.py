"""``packhouse sign`` and ``packhouse verify --key``: what they print, refuse, and exit with."""

import json
from pathlib import Path

import pytest

from flows.cli import ExitCode
from packhouse.provenance.keys import PASSWORD_VARIABLE, read_verifying_key
from packhouse.provenance.signing import envelope_path, provenance_path
from packhouse.provenance.statement import SLSA_PROVENANCE, files_statement
from packhouse.provenance.subjects import digests_of
from tests.flows.test_cli import call
from tests.packaging_jobs import ONE, make_packing
from tests.provenance.keys import KINDS, write_keys


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a real package."""
    return make_packing(tmp_path_factory.mktemp("packing"), ONE).zip().read_bytes()


@pytest.fixture
def package(made: bytes, tmp_path: Path) -> Path:
    """A published package without anything beside it."""
    path = tmp_path / "OutputModels.zip"
    path.write_bytes(made)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_package_is_verified_with_the_public_key_and_its_models_are_loaded(
    kind: str, package: Path, tmp_path: Path
) -> None:
    private, public = write_keys(tmp_path, kind)
    signed = call("sign", package, "--key", private)
    assert signed.exit_code == ExitCode.OK
    assert "there is no provenance" in signed.stdout
    verified = call("verify", package, "--key", public)
    assert verified.exit_code == ExitCode.OK
    assert "loads on CPUExecutionProvider" in verified.stdout
    assert f"signed by the key {read_verifying_key(public, '').keyid}" in " ".join(verified.stdout.split())


def test_results_as_json_name_the_key_and_the_statement(package: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    keyid = read_verifying_key(public, "").keyid
    signed = json.loads(call("sign", package, "--key", private, "--json").stdout)
    assert (signed["envelope"], signed["keyid"]) == (str(envelope_path(package)), keyid)
    verified = json.loads(call("verify", package, "--key", public, "--json").stdout)
    assert verified["provenance"]["signed_by"] == [keyid]
    assert verified["provenance"]["subject"][0]["name"] == package.name
    assert verified["models"]


def test_without_key_and_provenance_a_package_is_verified_as_it_always_was(package: Path) -> None:
    result = call("verify", package, "--json")
    assert result.exit_code == ExitCode.OK
    assert json.loads(result.stdout)["provenance"] is None


def test_provenance_beside_a_package_is_signed_and_no_remark_is_made(package: Path, tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path)
    statement = files_statement(digests_of(package)).model_copy(update={"predicate_type": SLSA_PROVENANCE})
    provenance_path(package).write_bytes(statement.to_json())
    signed = call("sign", package, "--key", private)
    assert "there is no provenance" not in signed.stdout
    assert "give --key" in call("verify", package).stdout


def test_a_folder_is_verified_by_what_lies_beside_it(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    folder = tmp_path / "best"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors")
    assert call("sign", f"{folder}/", "--key", private).exit_code == ExitCode.OK
    assert call("verify", folder, "--key", public).exit_code == ExitCode.OK
    (folder / "MLmodel").write_text("others")
    refused = call("verify", folder, "--key", public)
    assert refused.exit_code == ExitCode.NOT_VERIFIED
    assert "MLmodel is not what it was" in refused.stderr


def test_a_file_that_is_no_archive_is_verified_by_what_lies_beside_it_and_by_nothing_else(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    file = tmp_path / "best.tar"
    file.write_bytes(b"layers")
    assert call("sign", file, "--key", private).exit_code == ExitCode.OK
    assert call("verify", file, "--key", public).exit_code == ExitCode.OK
    assert call("verify", file).exit_code == ExitCode.BAD_INPUT
    file.write_bytes(b"others")
    refused = call("verify", file, "--key", public)
    assert refused.exit_code == ExitCode.NOT_VERIFIED
    assert "best.tar is not what it was" in refused.stderr


def test_an_unsigned_package_is_refused_with_a_key(package: Path, tmp_path: Path) -> None:
    refused = call("verify", package, "--key", write_keys(tmp_path)[1])
    assert refused.exit_code == ExitCode.NOT_VERIFIED
    assert "the package is not signed" in refused.stderr


def test_a_package_that_somebody_else_signed_is_refused(package: Path, tmp_path: Path) -> None:
    call("sign", package, "--key", write_keys(tmp_path, "p256")[0])
    refused = call("verify", package, "--key", write_keys(tmp_path, "ed25519")[1])
    assert refused.exit_code == ExitCode.NOT_VERIFIED
    assert "no key that was given has signed" in refused.stderr


def test_one_of_several_keys_is_enough(package: Path, tmp_path: Path) -> None:
    (private, public), (_, other) = write_keys(tmp_path, "p256"), write_keys(tmp_path, "ed25519")
    call("sign", package, "--key", private)
    assert call("verify", package, "--key", other, "--key", public).exit_code == ExitCode.OK


def test_a_changed_package_is_refused_by_its_provenance_without_any_key(package: Path) -> None:
    provenance_path(package).write_bytes(files_statement({package.name: "0" * 64}).to_json())
    refused = call("verify", package)
    assert refused.exit_code == ExitCode.NOT_VERIFIED
    assert f"{package.name} is not what it was" in refused.stderr


@pytest.mark.parametrize("command", ["sign", "verify"])
@pytest.mark.parametrize("content", [None, "no key"])
def test_a_key_that_is_none_is_bad_input(command: str, content: str | None, package: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    if content:
        key.write_text(content)
    result = call(command, package, "--key", key)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert f"--key = {key}" in result.stderr
    assert not envelope_path(package).exists()


def test_a_package_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    for command, key in (("sign", private), ("verify", public)):
        result = call(command, tmp_path / "missing.zip", "--key", key)
        assert result.exit_code == ExitCode.BAD_INPUT
        assert "missing.zip" in result.stderr


def test_an_encrypted_key_takes_its_password_from_the_environment(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = write_keys(tmp_path, password="correct horse")
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    refused = call("sign", package, "--key", private)
    assert refused.exit_code == ExitCode.BAD_INPUT
    assert PASSWORD_VARIABLE in refused.stderr
    monkeypatch.setenv(PASSWORD_VARIABLE, "correct horse")
    assert call("sign", package, "--key", private).exit_code == ExitCode.OK
