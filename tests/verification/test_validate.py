"""Validation of an open package: what it accepts, and that any answer that is not the candidate's is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packhouse.errors import EvaluationFailed, VerificationFailed
from packhouse.verification.opened import OpenPackage, opened_models
from packhouse.verification.validate import validate
from tests.packaging_jobs import Packing, make_packing
from tests.verification.open_models import TRUE, Change, opened, with_output
from tests.verification.test_package import Files, forged

MODELS = [f"CandidateModels/cpu-cpu/BestCandidateModel_{rank}/model.onnx" for rank in (1, 2)]


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    return make_packing(tmp_path_factory.mktemp("packing"), TRUE)


def exchange(files: Files) -> None:
    """Let two models change places."""
    files[MODELS[0]], files[MODELS[1]] = files[MODELS[1]], files[MODELS[0]]


def test_models_that_answer_as_they_did_are_validated_with_where_their_nodes_ran(packing: Packing) -> None:
    validation = validate(opened(packing.job, packing.workplace.store), packing.job, packing.workplace.store)
    assert validation.files == 7
    assert [model.model_path for model in validation.models] == ["1/model.onnx", "2/model.onnx"]
    assert {(model.difference, model.samples, model.environment) for model in validation.models} == {(0.0, 1, "memory")}
    assert validation.models[0].placement == {"CPUExecutionProvider": 2}


@pytest.mark.parametrize("factor", [1 + 5e-4, 1 - 5e-4])
def test_a_difference_as_between_machines_is_tolerated_and_recorded(packing: Packing, factor: float) -> None:
    found = opened(packing.job, packing.workplace.store, with_output(lambda y: (y * factor).astype(y.dtype)))
    validation = validate(found, packing.job, packing.workplace.store)
    assert 0 < (validation.models[0].difference or 0) < 0.01


def placed(**nodes: int) -> Change:
    return lambda predictions: replace(predictions, placement=nodes)


WRONG: dict[str, tuple[Change, str]] = {
    "another type": (with_output(lambda y: y.astype(np.float64)), "the output 'y' is float64 and should be float32"),
    "texts": (with_output(lambda y: y.astype(str)), "the output 'y' is str and should be float32"),
    "fewer classes": (with_output(lambda y: y[:, :2]), r"'y' has the shape \(1, 2\) and should have \[n, 3\]"),
    "another rank": (with_output(lambda y: y[0]), r"'y' has the shape \(3,\) and should have \[n, 3\]"),
    "no samples": (with_output(lambda y: y[:0]), r"'y' has the shape \(0, 3\), and had \(1, 3\)"),
    "more samples": (with_output(lambda y: np.repeat(y, 2, axis=0)), r"'y' has the shape \(2, 3\), and had \(1, 3\)"),
    "no output": (lambda found: replace(found, outputs={}), "the output 'y' is missing"),
    "another output": (lambda found: replace(found, outputs={"z": found.outputs["y"]}), "the output 'y' is missing"),
    "no number": (with_output(lambda y: np.full_like(y, np.nan)), "3 values of the output 'y' are not finite"),
    "one infinite": (with_output(lambda y: np.where([True, False, False], np.inf, y)), "1 values of the output 'y' are not"),
    "other values": (with_output(lambda y: y + np.float32(0.1)), "'y' differs by up to 0.1 from what it was when"),
    "another order": (with_output(lambda y: y[:, ::-1]), "'y' differs by up to .* 0.001 \\+ 0.001 of the value is tolerated"),
    "a node elsewhere": (placed(CPUExecutionProvider=1, XnnpackExecutionProvider=2), "but 2 on XnnpackExecutionProvider"),
    "all elsewhere": (placed(CUDAExecutionProvider=2), "not all nodes run on CPUExecutionProvider, but 2 on CUDA"),
}


@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_an_answer_that_is_not_the_candidates_is_refused(packing: Packing, change: Change, reason: str) -> None:
    with pytest.raises(VerificationFailed, match=rf"^turned-0\.0 on cpu-cpu: .*{reason}"):
        validate(opened(packing.job, packing.workplace.store, change), packing.job, packing.workplace.store)


def test_a_runtime_that_does_not_tell_where_nodes_ran_is_no_failure(packing: Packing) -> None:
    found = opened(packing.job, packing.workplace.store, lambda predictions: replace(predictions, placement=None))
    assert validate(found, packing.job, packing.workplace.store).models[0].placement is None


def test_a_package_without_models_is_refused(packing: Packing) -> None:
    with pytest.raises(VerificationFailed, match=r"^there is no model in it$"):
        validate(OpenPackage(files=3, models=[]), packing.job, packing.workplace.store)


def test_a_zip_file_is_validated_by_running_its_own_models(packing: Packing) -> None:
    with opened_models(packing.zip(), packing.job, packing.workplace) as found:
        validation = validate(found, packing.job, packing.workplace.store)
    assert [model.model_path for model in validation.models] == MODELS
    assert all(model.difference == pytest.approx(0.0, abs=1e-5) for model in validation.models)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (exchange, "the output 'y' differs by up to"),
        (lambda files: files.update({MODELS[0]: b"no model"}), "is not safe to load, or broken"),
        (lambda files: files.pop(MODELS[1]), "is missing"),
    ],
    ids=["models exchanged", "a broken model", "a model missing"],
)
def test_a_zip_file_with_other_models_is_refused_though_its_manifest_agrees(
    packing: Packing, tmp_path: Path, change: Callable[[Files], Any], reason: str
) -> None:
    with (
        pytest.raises((VerificationFailed, EvaluationFailed), match=reason),
        opened_models(forged(packing.zip(), tmp_path, change), packing.job, packing.workplace) as found,
    ):
        validate(found, packing.job, packing.workplace.store)
