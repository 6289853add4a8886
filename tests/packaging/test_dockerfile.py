"""The Dockerfile package: what it holds, what it installs, what it refuses, and that its server does what was evaluated."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from packhouse.artifacts import measure
from packhouse.config.loading import load_config
from packhouse.errors import InputError, PackagingFailed, VerificationFailed
from packhouse.packaging.docker.base_images import PYTHON_IMAGE, base_image_for
from packhouse.packaging.docker.builders import BuilderFailed, Docker, find_builder
from packhouse.packaging.docker.check import check_dockerfile, read_instructions
from packhouse.packaging.docker.dockerfile import Dockerfile
from packhouse.packaging.manifest import Manifest, ManifestFile
from packhouse.plan import prepare
from packhouse.records import digest_of
from packhouse.verification.payload import Payload
from packhouse.verification.score import score
from packhouse.verification.validate import validate
from tests.classifiers import points, write_classifier
from tests.jobs import write_job
from tests.packaging_jobs import CPU, EXACT, GPU, NEAR, ONE, Grades, Packing, make_packing, predict

IN_MLFLOW_FORMAT = Dockerfile(name="points", export_in_mlflow_format=True)
HADOLINT = str(Path(sys.executable).with_name("hadolint"))
DIGEST = "sha256:" + 64 * "a"
OWN_FILES = {"Dockerfile", "grading.html", "manifest.json", "sbom.cdx.json", "verify.py"}
MLFLOW = {
    "MLmodel",
    "conda.yaml",
    "input_example.json",
    "model.onnx",
    "python_env.yaml",
    "requirements.txt",
    "serving_input_example.json",
}
DESCRIPTION = {
    "configurations.json",
    "golden_samples.npz",
    "inference_config.json",
    "metrics.json",
    "model.onnx",
    "model_info.json",
    "requirements.txt",
    "serving.json",
}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Packing]:
    """Make a packing whose wheels and environments are those of the others, also in other processes of this run."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "dockerfile-cache"

    def made(folder: Path, grades: Grades = ONE, **changes: Any) -> Packing:
        packing = make_packing(folder, grades, **changes)
        return replace(packing, workplace=replace(packing.workplace, cache=cache))

    return made


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Packing]) -> Packing:
    return make(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def package(packing: Packing) -> Path:
    return packing.create(Dockerfile(name="points"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def last(package: Path, instruction: str) -> str:
    """Return the arguments of the last instruction of a kind in a package's Dockerfile."""
    return dict(read_instructions((package / "Dockerfile").read_text()))[instruction]


def change(package: Path, name: str, old: str, new: str) -> None:
    """Change a file of a package, and its digest in the manifest as well."""
    path = package / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["files"][name] = _digest(path).model_dump()
    (package / "manifest.json").write_text(json.dumps(manifest))


def _digest(path: Path) -> ManifestFile:
    return ManifestFile(sha256=measure(path).sha256, size_bytes=path.stat().st_size)


def write_requirements(folder: Path, text: str) -> Dockerfile:
    path = folder / "own.txt"
    path.write_text(text)
    return Dockerfile(name="points", requirements_file=path)


def test_folder_has_olives_names_the_best_candidate_and_its_server(package: Path, packing: Packing) -> None:
    files = contents(package)
    assert {name for name in files if "/" not in name} == OWN_FILES
    assert {name.removeprefix("docker_content/") for name in files if name.count("/") == 1} == DESCRIPTION
    assert "docker_content/server/inference_server/__main__.py" in files
    store, candidate = packing.workplace.store, packing.candidate(EXACT)
    assert files["docker_content/model.onnx"] == store.path(candidate.files[candidate.entry].sha256).read_bytes()
    serving = json.loads(files["docker_content/serving.json"])
    assert (serving["name"], serving["version"], serving["accelerator"]) == ("points", candidate.digest, CPU)


def test_the_package_can_be_checked_without_any_container(package: Path) -> None:
    done = subprocess.run([sys.executable, str(package / "verify.py")], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "docker_content/model.onnx: loads on CPUExecutionProvider; 1 outputs of 1 golden samples" in done.stdout


def test_image_begins_with_the_python_that_the_wheels_are_for_and_serves_as_nobody(package: Path) -> None:
    assert last(package, "FROM") == f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    assert last(package, "USER") == "10001:10001"
    assert last(package, "ENTRYPOINT") == '["python3", "-m", "inference_server"]'
    assert "--check" in last(package, "HEALTHCHECK")
    assert last(package, "EXPOSE") == "8080"


def test_labels_name_the_digests_of_candidate_model_data_and_base_image(packing: Packing) -> None:
    package = packing.create(Dockerfile(name="points", base_image=f"registry.example.com:5000/python@{DIGEST}"))
    labels = last(package, "LABEL")
    candidate = packing.candidate(EXACT)
    assert f'org.opencontainers.image.base.digest="{DIGEST}"' in labels
    assert f'packhouse.candidate.digest="sha256:{candidate.digest}"' in labels
    assert f'packhouse.model.digest="sha256:{candidate.files[candidate.entry].sha256}"' in labels
    assert f'packhouse.data.digest="sha256:{packing.job.data.sha256}"' in labels
    assert last(package, "FROM") == f"registry.example.com:5000/python@{DIGEST}"


@pytest.mark.parametrize("name", ["a\nRUN touch /tmp/there\n#", "a\r\nUSER root", "a\\\nUSER root", 'a"\nUSER root', "a\x00b"])
def test_a_candidates_name_adds_no_instruction(packing: Packing, package: Path, tmp_path: Path, name: str) -> None:
    (model,) = (packing.workplace.scratch.parent / "candidates").glob(f"{EXACT}.onnx")
    named = {"type": "list", "models": [{"name": name, "path": str(model)}]}
    made = make_packing(tmp_path, {CPU: {name: (1.0, 3.0)}}, candidates=named).create(Dockerfile(name="points"))

    text = (made / "Dockerfile").read_text()
    kinds = [kind for kind, _ in read_instructions(text)]
    assert kinds == [kind for kind, _ in read_instructions((package / "Dockerfile").read_text())]
    assert "\x00" not in text
    check_dockerfile(made)


def test_everything_that_is_installed_is_pinned_with_its_digest_and_its_wheel_is_there(package: Path) -> None:
    lines = (package / "docker_content" / "requirements.txt").read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines)
    assert all(" --hash=sha256:" in line for line in lines)
    for name in ("onnxruntime", "starlette", "uvicorn", "numpy"):
        assert pins[name] == metadata.version(name)
    wheels = [path.name for path in (package / "docker_content" / "ONNXRuntimePackages" / "python").iterdir()]
    assert len(wheels) == len(lines)
    assert "--no-index" in (package / "Dockerfile").read_text()


def test_without_wheels_packages_come_from_the_index_by_the_same_digests(package: Path, packing: Packing) -> None:
    made = packing.create(Dockerfile(name="points", include_runtime_packages=False))
    files = contents(made)
    assert not [name for name in files if name.endswith(".whl")]
    assert files["docker_content/requirements.txt"] == (package / "docker_content" / "requirements.txt").read_bytes()
    text = files["Dockerfile"].decode()
    assert "--mount=type=secret,id=pip.conf" in text
    assert "--no-index" not in text
    check_dockerfile(made)


def test_the_same_job_gives_the_same_bytes_in_another_folder(
    packing: Packing, package: Path, tmp_path: Path, make: Callable[..., Packing]
) -> None:
    again = make(tmp_path)
    assert again.job.best.candidate == packing.job.best.candidate
    assert contents(again.create(Dockerfile(name="points"))) == contents(package)


@pytest.mark.parametrize("settings", [{}, {"base_image": f"python@{DIGEST}"}, {"name": "Größe 1.2 (final) #x=`y` $HOME"}])
def test_hadolint_finds_nothing(packing: Packing, settings: dict[str, Any]) -> None:
    package = packing.create(Dockerfile(**settings))
    done = subprocess.run([HADOLINT, str(package / "Dockerfile")], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_what_is_wrong(package: Path, tmp_path: Path) -> None:
    worse = (package / "Dockerfile").read_text().replace("WORKDIR /opt/model", "WORKDIR model")
    (tmp_path / "Dockerfile").write_text(worse)
    assert subprocess.run([HADOLINT, str(tmp_path / "Dockerfile")], check=False, capture_output=True).returncode == 1


def test_the_server_of_the_package_does_what_was_evaluated_and_is_marked_not_built(packing: Packing, package: Path) -> None:
    with Dockerfile(name="points").open(package, packing.job, packing.workplace) as opened:
        (model,) = validate(opened, packing.job, packing.workplace.store).models
    assert model.environment.startswith("not built")
    assert (model.placement, model.difference) == ({"CPUExecutionProvider": 2}, 0.0)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_with_a_fixed_batch_gives_an_answer_for_every_sample(
    tmp_path: Path, make: Callable[..., Packing], batch: int
) -> None:
    write_classifier(tmp_path / "candidates" / "model.onnx", batch=batch)
    packing = make(tmp_path, {CPU: {"model": (0.9667, 1.0)}})
    packaging = Dockerfile(name="points")
    with packaging.open(packing.create(packaging), packing.job, packing.workplace) as opened:
        validate(opened, packing.job, packing.workplace.store)
        predictions = opened.models[0].predict(Payload.of(packing.job, packing.workplace.store), batch_size=7)
    assert len(predictions.outputs["y"]) == len(predictions.ids) == 90


def test_a_model_whose_batch_size_the_accelerator_fixes_gives_an_answer_for_every_sample(
    tmp_path: Path, make: Callable[..., Packing]
) -> None:
    packing = make(tmp_path, accelerators=[{"device": "cpu", "dimensions": {"n": 4}}])
    packaging = Dockerfile(name="points")
    with packaging.open(packing.create(packaging), packing.job, packing.workplace) as opened:
        predictions = opened.models[0].predict(Payload.of(packing.job, packing.workplace.store), batch_size=7)
    assert len(predictions.outputs["y"]) == len(predictions.ids) == 90


def test_a_package_whose_metrics_were_better_than_its_server_is_refused(packing: Packing, package: Path) -> None:
    with (
        Dockerfile(name="points").open(package, packing.job, packing.workplace) as opened,
        pytest.raises(VerificationFailed, match=r"accuracy-accuracy_score of .* in the package, and was 0.97"),
    ):
        score(opened, packing.job, packing.workplace.store)


def test_a_long_path_of_temporary_files_leaves_room_for_the_socket(
    packing: Packing, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Dockerfile(name="points").open(package, packing.job, packing.workplace) as opened:
        assert not list(folder.iterdir())
        (validated,) = validate(opened, packing.job, packing.workplace.store).models
    assert validated.difference == 0


def test_batches_that_are_larger_than_what_clients_may_send_are_scored_nevertheless(packing: Packing) -> None:
    package = packing.create(Dockerfile(name="points"))
    change(package, "docker_content/server/inference_server/app.py", "MAX_BODY_BYTES = 64 << 20", "MAX_BODY_BYTES = 100")
    with Dockerfile(name="points").open(package, packing.job, packing.workplace) as opened:
        predictions = opened.models[0].predict(Payload.of(packing.job, packing.workplace.store), batch_size=90)
    assert len(predictions.outputs["y"]) == 90


CHANGES = {
    "root": ("Dockerfile", "USER 10001:10001", "USER root", "leaves the server to root"),
    "no user": ("Dockerfile", "USER 10001:10001", "", "has no USER"),
    "no health check": ("Dockerfile", "HEALTHCHECK", "# HEALTHCHECK", "has no HEALTHCHECK"),
    "missing content": ("Dockerfile", "COPY docker_content/", "COPY other/", "copies other/, which is missing"),
    "unpinned": ("docker_content/requirements.txt", "==", ">=", "not pinned with its digest"),
    "another provider": ("docker_content/inference_config.json", "CPUExecutionProvider", "CUDAExecutionProvider", "not served"),
    "another name": ("docker_content/serving.json", '"points"', '"other"', r"refused \(404\).*there is no model"),
    "broken server": ("docker_content/server/inference_server/app.py", "from functools", "from funktools", "No module named"),
}


@pytest.mark.parametrize(("name", "old", "new", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_package_that_would_not_serve_is_refused(packing: Packing, name: str, old: str, new: str, reason: str) -> None:
    package = packing.create(Dockerfile(name="points"))
    change(package, name, old, new)
    with (
        pytest.raises(VerificationFailed, match=reason),
        Dockerfile(name="points").open(package, packing.job, packing.workplace) as opened,
    ):
        validate(opened, packing.job, packing.workplace.store)


def test_a_changed_file_is_refused_before_anything_runs(packing: Packing) -> None:
    package = packing.create(Dockerfile(name="points"))
    (package / "docker_content" / "server" / "inference_server" / "app.py").write_text("raise SystemExit")
    with (
        pytest.raises(VerificationFailed, match=r"app.py (has|is not what)"),
        Dockerfile(name="points").open(package, packing.job, packing.workplace),
    ):
        pass


def test_own_requirements_are_installed_too(packing: Packing, tmp_path: Path) -> None:
    version = metadata.version("pyyaml")
    packaging = write_requirements(
        tmp_path, f"# ours\npyyaml=={version}  # for configs\n\nnumpy=={metadata.version('numpy')}\n"
    )
    package = packing.create(packaging)
    assert f"pyyaml=={version} --hash=sha256:" in (package / "docker_content" / "requirements.txt").read_text()
    with packaging.open(package, packing.job, packing.workplace) as opened:
        validate(opened, packing.job, packing.workplace.store)


BAD_REQUIREMENTS = {
    "a range": ("numpy>=2", r"line 1 of own.txt.*not pinned"),
    "an address": ("x @ https://example.com/x-1.0-py3-none-any.whl", "line 1"),
    "a path": ("./x.whl", "is no requirement"),
    "an option": ("pyyaml==6.0\n--pre", "line 2 .* is an option of pip"),
    "a further file": ("-r more.txt", "is an option of pip"),
    "hashes": (f"pyyaml==6.0 --hash={DIGEST}", "has hashes; leave them out"),
    "nonsense": ("numpy = 2", "is no requirement"),
    "twice": ("pyyaml==6.0\nPyYAML==5.0", "has pyyaml again"),
    "two runtimes": ("onnxruntime==1.24.0\nonnxruntime-gpu==1.24.0", "overwrite each other's files"),
}


@pytest.mark.parametrize(("text", "reason"), BAD_REQUIREMENTS.values(), ids=BAD_REQUIREMENTS)
def test_bad_requirements_are_refused_before_work_starts(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "own.txt").write_text(text)
    config = load_config(write_job(tmp_path, packaging=[{"type": "Dockerfile", "requirements_file": "own.txt"}]))
    with pytest.raises(InputError, match=rf"(?s)packaging\[0\].requirements_file: .*{reason}"):
        prepare(config)


def test_a_requirements_file_that_is_missing_is_named_relative_to_the_configuration(tmp_path: Path) -> None:
    packaging = {"type": "Dockerfile", "config": {"requirements_file": "own.txt"}}
    with pytest.raises(InputError, match=rf"{tmp_path}/own.txt cannot be read \(No such file"):
        prepare(load_config(write_job(tmp_path, packaging=packaging)))


@pytest.mark.parametrize("line", ["onnxruntime==1.24.0", "onnxruntime-gpu==1.31.1"])
def test_another_runtime_than_the_measured_one_is_refused(packing: Packing, tmp_path: Path, line: str) -> None:
    with pytest.raises(
        PackagingFailed, match=rf"has {line}, and the model was measured with onnxruntime==.*take that line out"
    ):
        packing.create(write_requirements(tmp_path, line))


def test_the_measured_runtime_may_be_among_the_own_requirements(packing: Packing, package: Path, tmp_path: Path) -> None:
    made = packing.create(write_requirements(tmp_path, f"onnxruntime=={metadata.version('onnxruntime')}"))
    assert contents(made) == contents(package)


def test_what_the_requirements_file_says_is_part_of_the_packages_key(tmp_path: Path) -> None:
    first = write_requirements(tmp_path, "pyyaml==6.0.1").content_digest
    assert write_requirements(tmp_path, "# a comment\npyyaml==6.0.1").content_digest == first
    assert write_requirements(tmp_path, "pyyaml==6.0.2").content_digest != first
    assert Dockerfile().content_digest != digest_of(Dockerfile().model_dump(mode="json"))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("", "no name of an image"),
        ("Python:3.11", "no name of an image"),
        ("python:3.11 AS x", "no name of an image"),
        ("python:3.11\nRUN evil", "no name of an image"),
        ("python@sha256:123", "no name of an image"),
        ("python", "can be another image tomorrow"),
        ("python:latest", "can be another image tomorrow"),
        ("localhost:5000/python", "can be another image tomorrow"),
    ],
)
def test_a_base_image_that_is_malformed_or_drifts_is_refused(image: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Dockerfile(base_image=image)


@pytest.mark.parametrize(
    "image", ["python:3.11-slim", f"python@{DIGEST}", f"registry.example.com:5000/a/b_c/d-e:1.0@{DIGEST}", "localhost/x:1"]
)
def test_other_base_images_are_taken_as_they_are(image: str) -> None:
    assert Dockerfile(base_image=image).base_image == image


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"push": True, "repository": "a/b"}, "push needs build: true"),
        ({"push": True, "build": True}, "push needs repository"),
        ({"repository": "a/B"}, "no name of a repository"),
        ({"repository": "a/b:1"}, "no name of a repository"),
        ({"tag": "a b"}, "is no tag"),
        ({"builder": "kaniko"}, "docker"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Dockerfile(**settings)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (
            ["--build-arg=TOKEN=planted"],
            "--build-arg TOKEN has its value .* write --build-arg=TOKEN alone, .* or for a secret --secret=id=",
        ),
        (["--build-arg", "TOKEN=planted"], "--build-arg TOKEN has its value"),
        (["--env=KEY=planted"], "--env KEY has its value .* write --env=KEY alone, which takes it from the environment"),
        (["--gpus=all", "--env", "KEY=planted"], "--env KEY has its value"),
        (["-e", "KEY=planted"], "--env KEY has its value"),
        (["-eKEY=planted"], "--env KEY has its value"),
        (["-e=KEY=planted"], "--env KEY has its value"),
        (["--creds=me:planted"], "--creds has a password"),
        (["--creds", "me:planted"], "--creds has a password"),
    ],
)
@pytest.mark.parametrize("key", ["build_options", "run_options"])
def test_options_with_values_that_provenance_would_keep_are_refused(
    tmp_path: Path, key: str, option: list[str], reason: str
) -> None:
    with pytest.raises(InputError, match=rf"packaging\[0\].config.{key}.*{reason}") as caught:
        load_config(write_job(tmp_path, packaging=[{"type": "Dockerfile", "config": {key: option}}]))
    assert "planted" not in str(caught.value)


def test_options_may_name_variables_and_secrets_whose_values_come_from_elsewhere() -> None:
    named = ("--build-arg=TOKEN", "--build-arg", "TOKEN", "--secret=id=pip.conf,src=/etc/pip.conf", "--format=docker")
    assert Dockerfile(build_options=named).build_options == named
    variables = ("--env=KEY", "-e", "KEY", "-eKEY", "--env-file=/etc/model.env", "--label=a=b", "--memory=8g")
    assert Dockerfile(run_options=variables).run_options == variables


@pytest.fixture(scope="module")
def mlflow_package(packing: Packing) -> Path:
    return packing.create(IN_MLFLOW_FORMAT)


def test_in_mlflow_format_the_model_is_an_mlflow_model_folder_and_all_else_stays_where_it_is(
    package: Path, mlflow_package: Path
) -> None:
    content = mlflow_package / "docker_content"
    assert {path.name for path in (content / "mlflow_model").iterdir()} == MLFLOW
    assert {path.name for path in content.iterdir() if path.is_file()} == DESCRIPTION - {"model.onnx"}
    assert (content / "requirements.txt").read_bytes() == (package / "docker_content" / "requirements.txt").read_bytes()
    described = json.loads((content / "model_info.json").read_text())["model_config"]["config"]["model_path"]
    assert described == "docker_content/mlflow_model/model.onnx"
    assert last(mlflow_package, "LABEL") == last(package, "LABEL")


def test_mlflow_loads_the_model_from_the_unpacked_folder_and_it_predicts_like_onnxruntime(
    mlflow_package: Path, tmp_path: Path
) -> None:
    import mlflow.onnx
    import mlflow.pyfunc

    folder = Path(shutil.copytree(mlflow_package / "docker_content" / "mlflow_model", tmp_path / "moved"))
    samples, _ = points(8)
    expected = predict(mlflow_package / "docker_content" / "mlflow_model" / "model.onnx", samples)["y"]
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(str(folder)).predict(samples)["y"], expected)
    loaded = mlflow.onnx.load_model(str(folder))
    assert loaded.SerializeToString() == (folder / "model.onnx").read_bytes()


def test_the_same_server_serves_an_mlflow_model_and_does_what_was_evaluated(packing: Packing, mlflow_package: Path) -> None:
    with IN_MLFLOW_FORMAT.open(mlflow_package, packing.job, packing.workplace) as opened:
        (model,) = validate(opened, packing.job, packing.workplace.store).models
    assert model.model_path == "docker_content/mlflow_model/model.onnx"
    assert (model.placement, model.difference) == ({"CPUExecutionProvider": 2}, 0.0)
    done = subprocess.run([sys.executable, str(mlflow_package / "verify.py")], check=False, capture_output=True, text=True)
    assert "docker_content/mlflow_model/model.onnx: loads on CPUExecutionProvider" in done.stdout, done.stdout


def test_external_data_and_further_files_lie_beside_the_model_in_mlflow_format(
    tmp_path: Path, make: Callable[..., Packing]
) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx", external="weights.bin")
    (tmp_path / "candidates" / "model" / "serving.json").write_text("the candidate's own")
    packing = make(tmp_path, {CPU: {"model": (0.97, 1.0)}})
    made = packing.create(IN_MLFLOW_FORMAT)
    assert (made / "docker_content" / "mlflow_model" / "serving.json").read_text() == "the candidate's own"
    with IN_MLFLOW_FORMAT.open(made, packing.job, packing.workplace) as opened:
        validate(opened, packing.job, packing.workplace.store)
    with pytest.raises(PackagingFailed, match=r"'serving.json' .*rename"):
        packing.create(Dockerfile(name="points"))


def test_a_candidates_file_that_is_called_like_what_is_installed_is_refused_and_not_lost(
    tmp_path: Path, make: Callable[..., Packing]
) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx")
    (tmp_path / "candidates" / "model" / "requirements.txt").write_text("the candidate's own")
    packing = make(tmp_path, {CPU: {"model": (0.97, 1.0)}})
    with pytest.raises(PackagingFailed, match=r"'requirements\.txt' of its own; rename the candidate's file"):
        packing.create(Dockerfile(name="points"))


def test_hadolint_finds_nothing_in_mlflow_format(mlflow_package: Path) -> None:
    check_dockerfile(mlflow_package)
    done = subprocess.run([HADOLINT, str(mlflow_package / "Dockerfile")], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_olives_key_for_mlflows_format_is_taken_as_it_is(tmp_path: Path) -> None:
    olives = {"type": "Dockerfile", "config": {"export_in_mlflow_format": True}}
    config = load_config(write_job(tmp_path, packaging=olives))
    assert config.packaging == (Dockerfile(export_in_mlflow_format=True),)
    assert "the best candidate as an MLflow model over HTTP" in config.packaging[0].plan()


def test_plan_says_what_is_done_and_that_a_tag_may_drift() -> None:
    assert "not built; python:3.11-slim may become another image" in Dockerfile(base_image="python:3.11-slim").plan()
    assert "may become" not in Dockerfile(base_image=f"python@{DIGEST}").plan()
    assert "HTTP, built, and run to validate it, pushed to a/b" in Dockerfile(build=True, push=True, repository="a/b").plan()
    assert "HTTP, built by podman, and run to validate it" in Dockerfile(build=True, builder="podman").plan()
    assert "HTTP, built if a builder works here, and run to validate it" in Dockerfile(build=True).plan()


def test_a_provider_that_needs_more_than_wheels_needs_a_base_image() -> None:
    assert base_image_for("CPUExecutionProvider", None, None).name == PYTHON_IMAGE
    assert base_image_for("CUDAExecutionProvider", None, None).extras == ("cuda", "cudnn")
    assert base_image_for("CUDAExecutionProvider", None, "cuda:12").extras == ()
    assert "NVIDIA_VISIBLE_DEVICES" in base_image_for("CUDAExecutionProvider", None, "cuda:12").environment
    assert base_image_for("QNNExecutionProvider", "onnxruntime_qnn", None).name == PYTHON_IMAGE
    with pytest.raises(PackagingFailed, match="what TensorrtExecutionProvider needs; set base_image"):
        base_image_for("TensorrtExecutionProvider", None, None)


def test_the_best_of_all_accelerators_is_served_where_it_is_best(tmp_path: Path, make: Callable[..., Packing]) -> None:
    grades: Grades = {CPU: {EXACT: (0.91, 1.0), NEAR: (0.90, 1.0)}, GPU: {EXACT: "out of memory", NEAR: (0.97, 1.0)}}
    packing = make(tmp_path, grades)
    packaging = Dockerfile(name="points", base_image="cuda:12", include_runtime_packages=False)
    package = packing.create(packaging)
    manifest = Manifest.model_validate_json((package / "manifest.json").read_bytes())
    assert [(item.name, item.accelerator) for item in manifest.candidates] == [(NEAR, GPU)]
    assert 'NVIDIA_VISIBLE_DEVICES="all"' in last(package, "ENV")


@pytest.fixture
def no_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the builders away; what uv and hadolint need is in the environment of this Python."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program of the name of docker work, as far as anybody has asked."""
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"builder": "podman"}, r"packaging\[0\].builder: does not work here: podman is not installed → install or start it"),
        (
            {"push": True, "repository": "a/b"},
            r"packaging\[0\].push: needs a builder.*: docker is not installed; buildah is not.*set push: false",
        ),
    ],
    ids=["builder", "push"],
)
@pytest.mark.usefixtures("no_builder")
def test_a_builder_that_is_named_or_needed_and_does_not_work_is_refused_before_work_starts(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    config = load_config(write_job(tmp_path, packaging=[{"type": "Dockerfile", "build": True, **settings}]))
    with pytest.raises(InputError, match=reason):
        prepare(config)
    assert Dockerfile(build=True, **settings).caveat() is None


@pytest.mark.parametrize("time", ["yesterday", "-1", "1.5", "٣"])
def test_a_time_of_files_that_is_none_is_refused_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", time)
    packaging = {"type": "Dockerfile", "name": "points"}
    prepare(load_config(write_job(tmp_path, packaging=[packaging])))
    config = load_config(write_job(tmp_path, packaging=[{**packaging, "build": True}]))
    with pytest.raises(InputError, match=f"packaging.0..build: SOURCE_DATE_EPOCH is '{time}' → "):
        prepare(config)


@pytest.mark.usefixtures("no_builder")
def test_without_a_builder_a_build_is_planned_with_a_caveat_that_says_why_and_what_to_do(tmp_path: Path) -> None:
    config = load_config(write_job(tmp_path, packaging=[{"type": "Dockerfile", "build": True}]))
    (packaging,) = prepare(config).plan.config.packaging
    assert str(packaging.caveat()) == (
        "not built: no builder works here (docker is not installed; buildah is not installed; podman is not installed); "
        "install or start one of them and run again, or set build: false"
    )
    assert Dockerfile(build=False).caveat() is None


@pytest.mark.usefixtures("docker")
def test_with_a_builder_there_is_no_caveat() -> None:
    assert Dockerfile(build=True).caveat() is None


def test_without_a_builder_a_package_is_run_in_a_fresh_environment_and_its_records_say_not_built(
    packing: Packing, package: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("no_builder")
    packaging = Dockerfile(name="points", build=True)
    made = packing.create(packaging)
    assert contents(made) == contents(package)
    job = packing.job.model_copy(update={"metrics": ()})
    with packaging.open(made, job, packing.workplace) as opened:
        validation = validate(opened, job, packing.workplace.store)
        scored = score(opened, job, packing.workplace.store)
    assert (validation.models[0].placement, validation.models[0].difference) == ({"CPUExecutionProvider": 2}, 0.0)
    assert validation.caveat == scored.caveat == packaging.caveat()
    assert validation.caveat is not None
    assert validation.caveat.what == "not built"


@pytest.mark.usefixtures("no_builder")
def test_without_a_builder_what_would_be_refused_still_is(packing: Packing, package: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(package, tmp_path / "points"))
    change(broken, "Dockerfile", "USER 10001:10001", "USER root")
    with (
        pytest.raises(VerificationFailed, match="leaves the server to root"),
        Dockerfile(name="points", build=True).open(broken, packing.job, packing.workplace),
    ):
        pass


def test_whether_there_is_a_builder_is_no_part_of_the_packages_key(request: pytest.FixtureRequest) -> None:
    packaging = Dockerfile(build=True)
    request.getfixturevalue("no_builder")
    before = packaging.content_digest
    request.getfixturevalue("docker")
    assert packaging.content_digest == before


@pytest.mark.usefixtures("no_builder")
def test_the_reason_of_a_builder_that_is_not_installed_is_said() -> None:
    with pytest.raises(BuilderFailed, match=r"^podman is not installed$"):
        find_builder("podman")


def test_a_builder_that_is_installed_and_does_not_work_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(BuilderFailed, match="docker info failed: Cannot connect to the Docker daemon"):
        find_builder("docker")


@pytest.mark.parametrize(
    ("repository", "told"),
    [
        ("docker.io/somebody/points", "somebody/points"),
        ("docker.io/somebody/points", "docker.io/somebody/points"),
        ("somebody/points", "somebody/points"),
        ("docker.io/library/points", "points"),
        ("localhost:5000/points", "localhost:5000/points"),
    ],
)
def test_docker_is_understood_where_it_shortens_the_name_of_what_it_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: str, told: str
) -> None:
    program = tmp_path / "docker"
    program.write_text(f"""#!/bin/sh
case "$*" in *RepoDigests*) echo '["other/points@sha256:0", "{told}@{DIGEST}"]' ;; esac
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert Docker().push("sha256:1", f"{repository}:1.0") == DIGEST


def test_without_push_nothing_is_registered(packing: Packing, package: Path) -> None:
    assert Dockerfile(name="points").register(package, packing.job, packing.workplace) == ()
