"""The JSON files beside each model have the keys, shapes and order of Olive's documentation."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packhouse.accelerators import InferenceSettings
from packhouse.packaging.contents import Content
from packhouse.packaging.olive_files import configurations, inference_config, metrics_file, metrics_of, model_info
from tests.conftest import SHARED
from tests.packaging_jobs import CPU, EXACT, FAR, GPU, NEAR, Packing, make_packing

OLIVE = SHARED / "olive" / "search_zip" / "unzipped"
SESSION_OPTIONS = [
    "execution_mode",
    "graph_optimization_level",
    "extra_session_config",
    "inter_op_num_threads",
    "intra_op_num_threads",
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    return make_packing(tmp_path_factory.mktemp("packing"), baseline=NEAR)


def shape_of(value: Any) -> Any:
    """Return the keys and kinds of a JSON value, nested as it is; numbers are one kind."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    return "number" if type(value) in (int, float) else type(value).__name__


def test_inference_config_has_the_keys_of_olives_documentation_in_its_order(packing: Packing) -> None:
    config = inference_config(packing.job, packing.job.overall.ranked[0])
    assert list(config) == ["execution_provider", "session_options"]
    assert config["execution_provider"] == [["CPUExecutionProvider", {}]]
    assert list(config["session_options"]) == SESSION_OPTIONS


def test_metrics_file_has_the_keys_of_olives_documentation_in_the_order_of_the_configuration(packing: Packing) -> None:
    written = metrics_file(packing.job, packing.job.overall.ranked[0])
    assert list(written) == ["input_model_metrics", "candidate_model_metrics"]
    for metrics in written.values():
        assert list(metrics) == ["accuracy-accuracy_score", "latency-p50", "latency-max"]
        assert [list(metric) for metric in metrics.values()] == [["value", "priority", "higher_is_better"]] * 3


@pytest.mark.skipif(not OLIVE.is_dir(), reason="needs the recorded output of Olive")
def test_files_have_the_shape_of_those_that_olive_wrote(packing: Packing) -> None:
    olive = OLIVE / "CandidateModels" / "cpu-cpu" / "BestCandidateModel_1"
    ranked = packing.job.overall.ranked[0]
    ours = model_info(packing.job, ranked, "CandidateModels/cpu-cpu/BestCandidateModel_1/model.onnx")
    (theirs, *_) = json.loads((OLIVE / "models_rank.json").read_text())
    assert set(ours) == set(theirs)
    assert ours["model_config"]["type"].lower() == theirs["model_config"]["type"].lower()
    assert set(ours["model_config"]["config"]) == set(theirs["model_config"]["config"])
    settings = [entry["model_config"]["config"]["inference_settings"] for entry in (ours, theirs)]
    assert set(settings[0]) <= set(settings[1])
    assert [shape_of(item["execution_provider"]) for item in settings] == [["str"], ["str"]]
    assert [shape_of(item["provider_options"]) for item in settings] == [[{}], [{}]]
    metrics = metrics_file(packing.job, ranked), json.loads((olive / "metrics.json").read_text())
    assert set(metrics[0]) == set(metrics[1])
    kinds = [shape_of(next(iter(item["candidate_model_metrics"].values()))) for item in metrics]
    assert kinds[0] == kinds[1] == {"value": "number", "priority": "number", "higher_is_better": "bool"}


def test_model_paths_are_taken_as_given_and_ranks_are_those_of_the_ranking(packing: Packing) -> None:
    entries = [model_info(packing.job, ranked, f"{place}.onnx") for place, ranked in enumerate(packing.job.overall.ranked)]
    assert [entry["rank"] for entry in entries] == [1, 2, 3, 4, 5]
    paths = [entry["model_config"]["config"]["model_path"] for entry in entries]
    assert paths == [f"{place}.onnx" for place in range(5)]


def test_both_files_give_the_same_settings_in_their_two_forms(packing: Packing) -> None:
    for ranked in packing.job.overall.ranked:
        paired = inference_config(packing.job, ranked)
        listed = model_info(packing.job, ranked, "model.onnx")["model_config"]["config"]["inference_settings"]
        assert paired["execution_provider"] == [[listed["execution_provider"][0], listed["provider_options"][0]]]
        assert paired["session_options"] == listed["session_options"]


def test_options_that_olive_tuned_for_another_provider_are_left_out(packing: Packing) -> None:
    tuned = InferenceSettings(execution_provider="CUDAExecutionProvider", provider_options={"device_id": "3", "do_copy": "1"})
    candidates = tuple(item.model_copy(update={"settings": tuned}) for item in packing.job.candidates)
    job = packing.job.model_copy(update={"candidates": candidates})
    on_cpu, on_gpu = (job.by_accelerator[spec].ranked[0] for spec in (CPU, GPU))
    assert inference_config(job, on_cpu)["execution_provider"] == [["CPUExecutionProvider", {}]]
    options = {"device_id": "3", "do_copy": "1"}
    assert inference_config(job, on_gpu)["execution_provider"] == [["CUDAExecutionProvider", options]]


def test_metrics_of_an_evaluation_that_failed_are_none(packing: Packing) -> None:
    assert metrics_of(packing.job, packing.candidate(FAR).digest, GPU) == {}


def test_the_baseline_compares_with_itself(packing: Packing) -> None:
    baseline = packing.candidate(NEAR).digest
    ranked = next(item for item in packing.job.by_accelerator[CPU].ranked if item.candidate == baseline)
    written = metrics_file(packing.job, ranked)
    assert written["input_model_metrics"] == written["candidate_model_metrics"]


def test_configurations_are_the_history_or_the_candidate_itself(packing: Packing) -> None:
    candidate = packing.candidate(EXACT)
    assert configurations(candidate) == {EXACT: None}
    history = {"input": None, "z": {"pass": 1}, "a": None}
    told = candidate.model_copy(update={"history": history})
    assert list(configurations(told).items()) == list(history.items())


@given(JSON_VALUES)
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_back_in_the_same_order(value: Any) -> None:
    content = Content.of_json(value)
    assert isinstance(content.source, bytes)
    text = content.source.decode()
    assert text.endswith("\n")
    assert repr(json.loads(text)) == repr(value)


def test_texts_are_written_as_they_are(tmp_path: Path) -> None:
    assert Content.of_json({"größe": "模型 🎉"}).source == '{\n    "größe": "模型 🎉"\n}\n'.encode()
