"""Scoring of an open package: its quality metrics are those of the evaluation, or it is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from packhouse.errors import EvaluationFailed, VerificationFailed
from packhouse.packaging.job import PackagingJob
from packhouse.verification.opened import Predictions, opened_models
from packhouse.verification.score import TOLERANCE, score
from tests.packaging_jobs import Packing, make_packing
from tests.verification.open_models import TRUE, Change, opened, with_output
from tests.verification.test_package import forged
from tests.verification.test_validate import exchange

ACCURACY = "accuracy-accuracy_score"


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    return make_packing(tmp_path_factory.mktemp("packing"), TRUE)


def shuffled(predictions: Predictions) -> Predictions:
    order = np.random.default_rng(0).permutation(len(predictions.ids))
    outputs = {name: array[order] for name, array in predictions.outputs.items()}
    return replace(predictions, ids=predictions.ids[order], outputs=outputs)


def with_accuracy(job: PackagingJob, value: float) -> PackagingJob:
    """Return the job as if its candidates had been evaluated to an accuracy."""
    evaluations = tuple(
        item.model_copy(
            update={"metrics": {**item.metrics, ACCURACY: item.metrics[ACCURACY].model_copy(update={"value": value})}}
        )
        for item in job.evaluations
    )
    return job.model_copy(update={"evaluations": evaluations})


@pytest.mark.parametrize("change", [lambda predictions: predictions, shuffled], ids=["in order", "in any order"])
def test_answers_are_joined_to_the_labels_by_id_and_score_as_they_did(packing: Packing, change: Change) -> None:
    found = score(opened(packing.job, packing.workplace.store, change), packing.job, packing.workplace.store)
    assert found.samples == 90
    assert [(item.model_path, item.metric, item.packaged) for item in found.metrics] == [
        ("1/model.onnx", ACCURACY, 1.0),
        ("2/model.onnx", ACCURACY, 85 / 90),
    ]
    assert all(item.packaged == item.evaluated for item in found.metrics)


def test_answers_in_another_order_under_the_same_ids_do_not_score_as_they_did(packing: Packing) -> None:
    found = opened(packing.job, packing.workplace.store, with_output(lambda y: y[::-1]))
    with pytest.raises(
        VerificationFailed, match=r"^accuracy-accuracy_score of turned-0.0 on cpu-cpu is 0.* in the package, and"
    ):
        score(found, packing.job, packing.workplace.store)


@pytest.mark.parametrize("off", [-2 * TOLERANCE, 2 * TOLERANCE])
def test_a_metric_that_is_off_by_more_than_is_tolerated_is_refused_in_either_direction(packing: Packing, off: float) -> None:
    job = with_accuracy(packing.job, 1 + off)
    with pytest.raises(VerificationFailed, match=r"is 1 in the package, and was .* a difference of 0\.00\d+ is tolerated"):
        score(opened(job, packing.workplace.store), job, packing.workplace.store)


def test_a_metric_that_is_off_by_rounding_is_accepted_and_both_values_are_recorded(packing: Packing) -> None:
    job = with_accuracy(packing.job, 1 + TOLERANCE / 2)
    found = opened(job, packing.workplace.store)
    scored = score(replace(found, models=found.models[:1]), job, packing.workplace.store)
    assert [(item.evaluated, item.packaged) for item in scored.metrics] == [(1 + TOLERANCE / 2, 1.0)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_metric_that_is_no_finite_number_is_refused(packing: Packing, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr("packhouse.verification.score.quality", lambda *_: value)
    with pytest.raises(VerificationFailed, match=f"is {value:g} in the package"):
        score(opened(packing.job, packing.workplace.store), packing.job, packing.workplace.store)


def test_outputs_that_are_no_finite_numbers_give_no_metric_a_meaning(packing: Packing) -> None:
    found = opened(packing.job, packing.workplace.store, with_output(lambda y: np.full_like(y, np.nan)))
    with pytest.raises(EvaluationFailed, match="270 values of its output 'y' are not finite"):
        score(found, packing.job, packing.workplace.store)


def test_answers_for_fewer_samples_are_refused(packing: Packing) -> None:
    def cut(found: Predictions) -> Predictions:
        return replace(found, ids=found.ids[:-1], outputs={name: array[:-1] for name, array in found.outputs.items()})

    with pytest.raises(VerificationFailed, match="it gave no answer for 1 of 90 samples, 89 among them"):
        score(opened(packing.job, packing.workplace.store, cut), packing.job, packing.workplace.store)


def test_without_metrics_of_quality_nothing_is_run_and_the_score_is_empty(packing: Packing) -> None:
    metrics = tuple(metric for metric in packing.job.metrics if metric.type == "latency")
    job = packing.job.model_copy(update={"metrics": metrics})
    found = opened(job, packing.workplace.store)
    scored = score(found, job, packing.workplace.store)
    assert (scored.samples, scored.metrics) == (0, ())
    assert all(getattr(model, "asked") == 0 for model in found.models)  # noqa: B009


def test_a_zip_file_is_scored_by_its_own_models(packing: Packing) -> None:
    with opened_models(packing.zip(), packing.job, packing.workplace) as found:
        scored = score(found, packing.job, packing.workplace.store)
    assert [item.packaged for item in scored.metrics] == [1.0, 85 / 90]


def test_a_zip_file_with_exchanged_models_does_not_score_as_its_manifest_says(packing: Packing, tmp_path: Path) -> None:
    package = forged(packing.zip(), tmp_path, exchange)
    with (
        opened_models(package, packing.job, packing.workplace) as found,
        pytest.raises(VerificationFailed, match=r"of turned-0\.0 on cpu-cpu is 0\.944444 in the package, and was 1 when"),
    ):
        score(found, packing.job, packing.workplace.store)
