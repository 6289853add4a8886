"""An MLflow model folder, opened with MLflow: what it predicts, in which environment, and what is refused."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from packhouse.errors import EvaluationFailed, VerificationFailed
from packhouse.packaging.mlflow.model import MLflowModel
from packhouse.packaging.mlflow.opened import _python
from packhouse.verification.payload import Payload
from packhouse.verification.score import score
from packhouse.verification.validate import validate
from tests.classifiers import write_classifier
from tests.packaging_jobs import CPU, EXACT, GPU, ONE, Packing, make_packing, predict

MLFLOW = MLflowModel(name="best")
ANY_NAME = {CPU: {"model": (1.0, 1.0)}}


CACHE = Path(tempfile.gettempdir(), f"packhouse-mlflow-{os.getpid()}")


@pytest.fixture(scope="module", autouse=True)
def cache() -> Iterator[None]:
    """One cache for all tests, so that what models require is installed once."""
    yield
    shutil.rmtree(CACHE, ignore_errors=True)


def opened(packing: Packing, package: Path, cache: Path = CACHE) -> Any:
    return MLFLOW.open(package, packing.job, replace(packing.workplace, cache=cache))


@pytest.mark.parametrize("batch", ["n", 4], ids=["dynamic batch", "fixed batch"])
def test_all_samples_are_predicted_as_onnxruntime_does(tmp_path: Path, batch: Any) -> None:
    model = write_classifier(tmp_path / "candidates" / "model.onnx", batch=batch)
    packing = make_packing(tmp_path, ANY_NAME)
    payload = Payload.of(packing.job, packing.workplace.store)
    with opened(packing, packing.create(MLFLOW)) as package:
        (found,) = package.models
        all_of_them, some = found.predict(payload, 7), found.predict(payload, 2, samples=4)
    samples = payload.inputs(["x"])["x"]
    size = batch if batch == 4 else len(samples)
    parts = [
        predict(model, samples[np.arange(start, start + size) % len(samples)])["y"] for start in range(0, len(samples), size)
    ]
    np.testing.assert_allclose(all_of_them.outputs["y"], np.concatenate(parts)[: len(samples)], atol=1e-6)
    np.testing.assert_array_equal(all_of_them.ids, payload.ids)
    assert (len(some.ids), len(some.outputs["y"])) == (4, 4)


def test_external_data_are_found_and_the_package_is_left_as_it_was(tmp_path: Path) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "model.onnx", external="weights.bin")
    packing = make_packing(tmp_path, ANY_NAME)
    folder = packing.create(MLFLOW)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with opened(packing, folder) as package:
        validation = validate(package, packing.job, packing.workplace.store)
        scored = score(package, packing.job, packing.workplace.store)
    assert validation.files == len(before)
    assert validation.models[0].difference == 0.0
    assert f"mlflow-skinny=={metadata.version('mlflow-skinny')}" in validation.models[0].environment
    assert [metric.metric for metric in scored.metrics] == ["accuracy-accuracy_score"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_that_mlflow_loads_from_another_file_than_was_graded_is_found(tmp_path: Path) -> None:
    packing = make_packing(tmp_path, ONE)
    folder = packing.create(MLFLOW)
    other = write_classifier(tmp_path / "other.onnx", error=1.5)
    shutil.copyfile(other, folder / "model.onnx")
    with pytest.raises(VerificationFailed, match=r"model\.onnx"), opened(packing, folder):
        pass


def test_a_model_for_a_gpu_is_not_run_on_the_cpu_in_its_place(tmp_path: Path) -> None:
    packing = make_packing(tmp_path, {CPU: {EXACT: (0.5, 1.0)}, GPU: {EXACT: (0.9, 1.0)}})
    with (
        opened(packing, packing.create(MLFLOW)) as package,
        pytest.raises(EvaluationFailed, match="fallback to the CPU"),
    ):
        package.models[0].predict(Payload.of(packing.job, packing.workplace.store), 1)


def test_texts_reach_the_model_through_mlflow(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.STRING, ["n", 2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "texts", values[:1], values[1:])
    (tmp_path / "candidates").mkdir()
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "candidates" / "model.onnx")
    texts = np.array([["größe", "b"], ["c", ""]] * 30)
    np.savez(tmp_path / "points.npz", x=texts, label=np.zeros(60, np.int64))
    packing = make_packing(tmp_path, ANY_NAME)
    with opened(packing, packing.create(MLFLOW)) as package:
        found = package.models[0].predict(Payload.of(packing.job, packing.workplace.store), 7)
    np.testing.assert_array_equal(found.outputs["y"], texts)


def test_what_cannot_be_installed_is_run_where_it_is_installed_already_with_a_caveat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packing = make_packing(tmp_path, ONE)
    folder = packing.create(MLFLOW)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with opened(packing, folder, tmp_path / "cache") as package:
        validation = validate(package, packing.job, packing.workplace.store)
    assert validation.caveat
    assert validation.caveat.what == "not run in an environment of its own"
    monkeypatch.undo()
    with opened(packing, folder) as package:
        assert package.caveat is None


def test_what_cannot_be_installed_and_is_not_here_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packing = make_packing(tmp_path, ONE)
    folder = packing.create(MLFLOW)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text((folder / "requirements.txt").read_text() + "packhouse-absent==1.0\n")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(EvaluationFailed, match=r"packhouse-absent|cannot be installed|offline"):
        _python(requirements, replace(packing.workplace, cache=tmp_path / "cache"))
