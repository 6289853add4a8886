"""The program that a package carries to check itself, run as whoever receives the package runs it."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from packhouse.packaging.mlflow.model import MLflowModel
from tests.classifiers import write_classifier
from tests.packaging_jobs import CPU, EXACT, GRADES, NEAR, Grades, make_packing

FIRST = f"CandidateModels/{CPU}/BestCandidateModel_1"
TWO: Grades = {CPU: {EXACT: (0.97, 3.0), NEAR: (0.91, 2.0)}}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked package of two models; not to be changed."""
    folder = tmp_path_factory.mktemp("package")
    with zipfile.ZipFile(make_packing(folder, TWO).zip()) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def verify(folder: Path) -> tuple[int, str]:
    """Return exit code and output, in an interpreter that finds nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "verify.py")], capture_output=True, text=True, check=False, cwd=folder.parent
    )
    return done.returncode, done.stdout + done.stderr


def test_a_package_that_is_what_was_made_is_verified_as_often_as_one_likes(unpacked: Path) -> None:
    for _ in range(2):
        code, said = verify(unpacked)
        assert code == 0, said
        assert f"{FIRST}/model.onnx: loads on CPUExecutionProvider; 1 outputs of 1 golden samples are what they were" in said
        assert said.count("loads on") == 2


def remove_model(folder: Path) -> None:
    (folder / FIRST / "model.onnx").unlink()


def add_file(folder: Path) -> None:
    (folder / "extra.txt").write_text("x")


def change_byte(folder: Path) -> None:
    path = folder / "models_rank.json"
    path.write_bytes(path.read_bytes()[:-1] + b" ")


def shorten(folder: Path) -> None:
    path = folder / "models_rank.json"
    path.write_bytes(path.read_bytes()[:-1])


def link(folder: Path) -> None:
    path = folder / "models_rank.json"
    path.rename(folder.parent / "elsewhere.json")
    path.symlink_to(folder.parent / "elsewhere.json")


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def hide_a_module(folder: Path) -> None:
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "extra.py").write_text("")


def hide_bytecode_deeper(folder: Path) -> None:
    (folder / "__pycache__" / "more").mkdir(parents=True)
    (folder / "__pycache__" / "more" / "extra.pyc").write_bytes(b"")


def list_no_candidates(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "candidates": []}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (remove_model, f"{FIRST}/model.onnx is missing"),
        (add_file, "extra.txt is not in the manifest"),
        (change_byte, "models_rank.json is not what was packaged: its SHA-256 differs"),
        (shorten, "models_rank.json has"),
        (link, "models_rank.json is not a regular file"),
        (remove_manifest, "manifest.json"),
        (hide_a_module, "__pycache__/extra.py is not in the manifest"),
        (hide_bytecode_deeper, "__pycache__/more/extra.pyc is not in the manifest"),
        (list_no_candidates, "there is no model in it: manifest.json has no candidates"),
    ],
)
def test_whatever_was_done_to_it_is_found(unpacked: Path, tmp_path: Path, change: Callable[[Path], None], reason: str) -> None:
    folder = shutil.copytree(unpacked, tmp_path / "package")
    change(folder)
    code, said = verify(folder)
    assert code == 1
    assert f"NOT VERIFIED: {reason}" in said or (reason == "manifest.json" and "manifest.json" in said)


def test_bytecode_that_python_puts_beside_a_module_is_not_counted(unpacked: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(unpacked, tmp_path / "package")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "verify.cpython-311.pyc").write_bytes(b"")
    code, said = verify(folder)
    assert code == 0, said


def test_a_model_that_does_something_else_than_its_golden_samples_say_is_not_verified(unpacked: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(unpacked, tmp_path / "package")
    golden = folder / FIRST / "golden_samples.npz"
    with np.load(golden) as arrays:
        changed = {name: arrays[name] + 0.01 if name == "output_0" else arrays[name] for name in arrays.files}
    np.savez(golden, **changed)
    _seal_again(folder, f"{FIRST}/golden_samples.npz")
    code, said = verify(folder)
    assert code == 1
    assert f"NOT VERIFIED: {FIRST}/model.onnx: 3 of 3 values of the output 'y' are not what they were" in said
    assert said.count("loads on") == 1


def test_a_model_whose_provider_is_not_here_is_not_run_and_this_is_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(make_packing(tmp_path, GRADES).zip()) as archive:
        archive.extractall(tmp_path / "unpacked")
    code, said = verify(tmp_path / "unpacked")
    assert code == 0, said
    assert said.count("not run, because CUDAExecutionProvider is not in this onnxruntime") == 2


@pytest.mark.parametrize("batch", [3, 100])
def test_models_of_a_fixed_batch_size_are_verified(tmp_path: Path, batch: int) -> None:
    write_classifier(tmp_path / "candidates" / "model.onnx", batch=batch)
    with zipfile.ZipFile(make_packing(tmp_path, {CPU: {"model": (0.9, 1.0)}}).zip()) as archive:
        archive.extractall(tmp_path / "unpacked")
    code, said = verify(tmp_path / "unpacked")
    assert code == 0, said


@pytest.mark.parametrize("batch", [1, 3])
def test_models_whose_batch_size_the_accelerator_fixes_are_verified(tmp_path: Path, batch: int) -> None:
    packing = make_packing(tmp_path, TWO, accelerators=[{"device": "cpu", "dimensions": {"n": batch}}])
    with zipfile.ZipFile(packing.zip()) as archive:
        archive.extractall(tmp_path / "unpacked")
    code, said = verify(tmp_path / "unpacked")
    assert code == 0, said


@pytest.mark.real
def test_an_mlflow_folder_verifies_itself(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    folder = make_packing(tmp_path, TWO).create(MLflowModel(name="best"))
    code, said = verify(folder)
    assert code == 0, said
    assert "model.onnx: loads on CPUExecutionProvider" in said


def _seal_again(folder: Path, name: str) -> None:
    """Put the present size and digest of a file into the manifest."""
    from packhouse.artifacts import measure

    manifest = json.loads((folder / "manifest.json").read_text())
    artifact = measure(folder / name)
    manifest["files"][name] = {"sha256": artifact.sha256, "size_bytes": artifact.size_bytes}
    (folder / "manifest.json").write_text(json.dumps(manifest))
