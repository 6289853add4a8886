"""The example of a distribution with packaging types, built and installed with Packhouse into an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
import uv

from packhouse.artifacts import measure
from tests.jobs import write_job
from tests.real.conftest import ROOT

pytestmark = pytest.mark.real

EXAMPLE = ROOT / "examples" / "packager"
PACKAGING = [
    {"type": "BestModel", "name": "best"},
    {"type": "tarball", "name": "two", "config": {"top_k": 2, "copy_to": "shared"}},
]


@dataclass(frozen=True)
class Environment:
    """An environment in which Packhouse and the example are installed; the libraries are those of these tests."""

    folder: Path

    def command(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run ``packhouse`` and check its exit code."""
        home = self.folder / "prefect"
        variables = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
        done = subprocess.run(
            [self.folder / "bin" / "packhouse", *map(str, arguments)],
            env={**variables, "COLUMNS": "1000"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    @property
    def site(self) -> Path:
        """Where the distributions are installed."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Build both distributions and install them."""
    made = Environment(tmp_path_factory.mktemp("environment"))
    sources = tmp_path_factory.mktemp("sources")
    shutil.copytree(EXAMPLE, sources / "packager")
    for arguments in (
        ["venv", "-q", "--allow-existing", "--python", sys.executable, made.folder],
        ["pip", "install", "-q", "--python", made.folder / "bin" / "python", "--no-deps", ROOT, sources / "packager"],
    ):
        subprocess.run([uv.find_uv_bin(), *map(str, arguments)], check=True)
    (made.site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return made


def test_types_of_a_distribution_are_made_validated_scored_and_registered(environment: Environment, tmp_path: Path) -> None:
    config = write_job(tmp_path, packaging=PACKAGING)
    plan = environment.command("plan", config).stdout
    assert "best/: the best candidate" in plan
    assert f"two.tar: the best 2 of the winner's accelerator, copied to {tmp_path / 'shared'}" in plan

    release = json.loads(environment.command("run", config, "--json").stdout)

    best, two = release["deliveries"]
    assert [model["model_path"] for model in best["validation"]["models"]] == ["model.onnx"]
    assert [model["model_path"] for model in two["validation"]["models"]] == ["1/model.onnx", "2/model.onnx"]
    for delivery, models in ((best, 1), (two, 2)):
        assert delivery["failure"] is None
        assert [metric["metric"] for metric in delivery["score"]["metrics"]] == ["accuracy-accuracy_score"] * models
    published, shared = tmp_path / "packages" / "two.tar", tmp_path / "shared" / "two.tar"
    assert two["registration"]["places"] == [str(shared), str(published)]
    assert measure(shared) == measure(published)
    assert "files are what the manifest says" in environment.command("verify", tmp_path / "packages" / "best").stdout
    with tarfile.open(shared) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert "files are what the manifest says" in environment.command("verify", tmp_path / "unpacked").stdout


def test_the_schema_of_the_configuration_has_the_types_of_a_distribution(environment: Environment, tmp_path: Path) -> None:
    schema = json.loads(environment.command("schema").stdout)
    document = json.loads(write_job(tmp_path, packaging={"type": "Tarball", "top_k": 2}).read_text())
    jsonschema.validate(document, schema)
    document["packaging"]["top_k"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_a_wrong_setting_of_a_distributions_type_is_refused_in_its_place(environment: Environment, tmp_path: Path) -> None:
    config = write_job(tmp_path, packaging=[{"type": "BestModel"}, {"type": "Tarball", "copy": "shared", "top_k": 0}])
    refused = environment.command("plan", config, code=2).stderr
    assert "packaging[1].copy: unknown key, with the value \"shared\" → did you mean 'copy_to'?" in refused
    assert "packaging[1].top_k: 0 is refused → it should be greater than or equal to 1" in refused


def test_a_distribution_that_cannot_be_imported_is_named_and_stops_no_other_type(
    environment: Environment, tmp_path: Path
) -> None:
    module = environment.site / "packhouse_tarball.py"
    text = module.read_text()
    module.write_text(f"import not_installed\n{text}")
    try:
        refused = environment.command("run", write_job(tmp_path, packaging=PACKAGING), code=2).stderr
        assert "packaging[1]: the type 'Tarball' of packhouse-tarball 1.0 cannot be used" in refused
        assert "No module named 'not_installed'" in refused
        assert "Traceback" not in refused
        zipped = environment.command("plan", write_job(tmp_path))
        assert "points.zip" in zipped.stdout
        assert "the packaging type 'Tarball' of packhouse-tarball 1.0 is left out" in zipped.stderr
    finally:
        module.write_text(text)
