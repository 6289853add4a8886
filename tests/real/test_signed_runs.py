"""Whole runs that sign what they publish: who can verify it, and where the key is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from packhouse.provenance.signing import envelope_path, provenance_path
from packhouse.release import read_release
from tests.jobs import job, write_job
from tests.provenance.keys import write_keys
from tests.real.conftest import Packhouse

pytestmark = pytest.mark.real

SAVE_SECRET = """
import pathlib, sys
from prefect.blocks.system import Secret
Secret(value=pathlib.Path(sys.argv[2]).read_text()).save(sys.argv[1], overwrite=True)
"""
PACKAGING = [
    {"type": "Zipfile", "name": "points", "include_runtime_packages": False},
    {"type": "MLflowModel", "name": "best"},
]


def test_a_run_signs_every_package_with_the_key_in_a_block_and_the_key_is_nowhere_else(
    packhouse: Packhouse, tmp_path: Path
) -> None:
    private, public = write_keys(tmp_path, "p256")
    saved = [sys.executable, "-c", SAVE_SECRET, "signing-key", str(private)]
    subprocess.run(saved, check=True, env=packhouse.environment, capture_output=True)
    config = write_job(tmp_path, packaging=PACKAGING, signing={"key_block": "signing-key"})
    release = packhouse.release(config)
    for name in ("points.zip", "best"):
        package = tmp_path / "packages" / name
        verified = json.loads(packhouse.run("verify", package, "--key", public, "--json"))["provenance"]
        assert verified["signed_by"]
        details = verified["predicate"]["runDetails"]["metadata"]
        assert details["invocationId"] == release["flow_run"]
        assert details["startedOn"] <= details["finishedOn"] <= release["created_at"]
    secret = private.read_text().splitlines()[1].encode()
    private.unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "release.json" for path in files)
    assert not [path for path in files if secret in path.read_bytes()]


def test_a_run_that_does_not_sign_leaves_no_signature_of_an_earlier_one(packhouse: Packhouse, tmp_path: Path) -> None:
    write_keys(tmp_path)
    config = write_job(tmp_path, signing={"key_file": "ed25519.pem"})
    packhouse.release(config)
    package = tmp_path / "packages" / "points.zip"
    assert envelope_path(package).exists()
    document = json.loads(config.read_text())
    del document["signing"]
    config.write_text(json.dumps(document))
    packhouse.release(config)
    assert not envelope_path(package).exists()
    assert provenance_path(package).exists()
    packhouse.run("verify", package)


def test_a_package_that_is_registered_later_is_signed_as_the_run_was_and_told_of_in_record_and_report(
    packhouse: Packhouse, tmp_path: Path
) -> None:
    private, public = write_keys(tmp_path)
    release = packhouse.release(write_job(tmp_path, signing={"key_file": private.name}))
    folder, more = tmp_path / "packages", tmp_path / "more.json"
    more.write_text(json.dumps(job(packaging=PACKAGING)))

    packhouse.run("register", folder, "--type", "MLflowModel", "--config", more)

    verified = json.loads(packhouse.run("verify", folder / "best", "--key", public, "--json"))["provenance"]["predicate"]
    assert verified["buildDefinition"]["externalParameters"]["configuration"] == {
        "digest": {"sha256": release["configuration"]}
    }
    assert verified["runDetails"]["metadata"]["invocationId"] != release["flow_run"]
    packhouse.run("verify", folder / "points.zip", "--key", public)
    stored = read_release(folder)
    assert [delivery.name for delivery in stored.delivered] == ["points.zip", "best"]
    record = json.loads((folder / "best.run.json").read_text())
    assert record["digest"] == stored.packages[1].digest
    assert record["validation"]["models"]
    assert stored.packages[1].files["best/model.onnx"].sha256 in (folder / "report.html").read_text()

    private.unlink()
    refused = packhouse.run("register", folder, "--type", "MLflowModel", "--config", more, "--json", code=2)
    assert f"signing.key_file = {private}: cannot be read" in json.loads(refused)["message"]
    assert read_release(folder) == stored


def test_without_the_block_of_the_key_nothing_is_started(packhouse: Packhouse, tmp_path: Path) -> None:
    config = write_job(tmp_path, signing={"key_block": "missing-key"})
    said = packhouse.run("run", config, "--json", code=2)
    assert "signing.key_block = missing-key: there is no Prefect Secret block of this name" in said
    assert not (tmp_path / "packages").exists()
