"""Whole Olive configurations: what is taken over, what can stand beside it, and what is refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from packhouse.candidates import FolderSource, OliveSource
from packhouse.config import PackhouseConfig, load_config
from packhouse.config.loading import parse_config
from packhouse.config.olive import from_olive
from packhouse.errors import InputError
from packhouse.packaging.zipfile import Zipfile
from tests.config.documents import Document, metric
from tests.conftest import SHARED

RUNS = sorted(SHARED.glob("olive/*/config.json"))
with_runs = pytest.mark.skipif(not RUNS, reason="the real Olive configurations are not at hand")

METRICS: list[Document] = [
    {
        "name": "accuracy",
        "type": "accuracy",
        "backend": "torch_metrics",
        "data_config": "acc_data",
        "sub_types": [
            {
                "name": "accuracy_score",
                "priority": 1,
                "metric_config": {"task": "multiclass", "num_classes": 4},
                "goal": {"type": "max-degradation", "value": 0.05},
            }
        ],
        "user_config": {"user_script": "user_script.py", "io_bind": False},
    },
    {"name": "latency", "type": "latency", "sub_types": [{"name": "avg", "priority": 2}, {"name": "p90"}]},
]
DATA = {"path": "evaluation.npz", "labels": "label"}
# As of Olive 0.7: most of it below `engine`, systems with `config`, things by name.
ENGINE_STYLE: Document = {
    "input_model": {"type": "ONNXModel", "config": {"model_path": "input.onnx"}},
    "systems": {
        "local_system": {
            "type": "LocalSystem",
            "config": {
                "accelerators": [
                    {"device": "GPU", "execution_providers": [["CUDAExecutionProvider", {"device_id": 1}]]},
                    {"device": "cpu", "execution_providers": ["CPUExecutionProvider", "OpenVINOExecutionProvider"]},
                    {"device": "npu", "execution_providers": [["QNNExecutionProvider", None]]},
                ]
            },
        }
    },
    "evaluators": {"other": {"metrics": []}, "common_evaluator": {"metrics": METRICS}},
    "passes": {"quant": {"type": "OnnxDynamicQuantization"}},
    "engine": {
        "evaluator": "common_evaluator",
        "host": "local_system",
        "target": "local_system",
        "packaging_config": [{"type": "Zipfile", "name": "OutputModels", "config": {"export_in_mlflow_format": True}}],
        "cache_dir": "cache",
        "output_dir": "olive-output",
    },
    "data": DATA,
}


def load(folder: Path, written: Document, with_input_model: bool = True) -> PackhouseConfig:
    """Return the configuration that the Olive configuration `written` stands for in a folder of its own."""
    (folder / "olive.json").write_text(json.dumps(written))
    if with_input_model:
        (folder / "input.onnx").touch()
        (folder / "tiny.onnx").touch()
    return load_config(folder / "olive.json")


def changed(change: Callable[[Document], Any]) -> Document:
    written = copy.deepcopy(ENGINE_STYLE)
    change(written)
    return written


def test_engine_style_is_taken_over_whole(tmp_path: Path) -> None:
    config = load(tmp_path, ENGINE_STYLE)
    assert config.candidates == OliveSource(path=tmp_path / "olive-output", input_model=tmp_path / "input.onnx")
    assert config.baseline == "input_model"
    assert [(item.spec, item.provider_options) for item in config.accelerators] == [
        ("gpu-cuda", {"device_id": "1"}),
        ("cpu-cpu", {}),
        ("cpu-openvino", {}),
        ("npu-qnn", {}),
    ]
    assert [(item.name, item.priority) for item in config.flat_metrics] == [
        ("accuracy-accuracy_score", 1),
        ("latency-avg", 2),
        ("latency-p90", -1),
    ]
    assert config.packaging == (Zipfile(export_in_mlflow_format=True),)
    assert config.data is not None
    assert config.data.path == tmp_path / "evaluation.npz"
    assert config.output_dir == tmp_path / "packages"


def test_flat_style_with_lists_of_named_things_means_the_same(tmp_path: Path) -> None:
    system = ENGINE_STYLE["systems"]["local_system"]["config"]
    flat = {
        **{key: value for key, value in ENGINE_STYLE.items() if key != "engine"},
        **ENGINE_STYLE["engine"],
        "input_model": {"type": "ONNXModel", "model_path": "input.onnx"},
        "systems": [{"name": "local_system", "type": "LocalSystem", **system}],
        "evaluators": [{"name": "common_evaluator", "metrics": METRICS}],
    }
    assert load(tmp_path, flat) == load(tmp_path, ENGINE_STYLE)


def test_evaluator_and_target_may_stand_where_their_names_would(tmp_path: Path) -> None:
    def inline(written: Document) -> None:
        written["engine"]["evaluator"] = written.pop("evaluators")["common_evaluator"]
        written["engine"]["target"] = written.pop("systems")["local_system"]

    assert load(tmp_path, changed(inline)) == load(tmp_path, ENGINE_STYLE)


def test_configuration_that_says_little_has_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, {"passes": {}, "evaluator": {"metrics": METRICS[1:]}})
    assert config.candidates == OliveSource(path=tmp_path)
    assert [item.spec for item in config.accelerators] == ["cpu-cpu"]
    assert config.packaging == ()
    assert config.baseline is None


def test_own_keys_win_over_what_olive_says(tmp_path: Path) -> None:
    own: Document = {
        "candidates": {"type": "folder", "path": "mine"},
        "accelerators": [{"device": "cpu"}],
        "metrics": [metric()],
        "packaging": {"type": "Zipfile", "name": "mine"},
    }
    config = load(tmp_path, {**ENGINE_STYLE, **own})
    assert config.candidates == FolderSource(path=tmp_path / "mine")
    assert [item.spec for item in config.accelerators] == ["cpu-cpu"]
    assert [item.name for item in config.flat_metrics] == ["latency-avg"]
    assert config.packaging == (Zipfile(name="mine"),)


def test_own_metrics_need_no_evaluator(tmp_path: Path) -> None:
    config = load(tmp_path, {"passes": {}, "metrics": [metric()]})
    assert [item.name for item in config.flat_metrics] == ["latency-avg"]


def test_own_candidates_have_no_input_model_and_so_no_baseline_by_itself(tmp_path: Path) -> None:
    own = {"candidates": {"type": "folder", "path": "mine"}, "metrics": [metric()]}
    assert load(tmp_path, {**ENGINE_STYLE, **own}).baseline is None
    assert load(tmp_path, {**ENGINE_STYLE, **own, "baseline": "fp32"}).baseline == "fp32"


def test_relative_goal_without_the_input_model_asks_for_a_baseline(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load(tmp_path, ENGINE_STYLE, with_input_model=False)
    assert [problem.where for problem in refused.value.problems] == ["baseline"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        pytest.param(lambda it: it["engine"].update(evaluator="none"), "evaluator", id="evaluator of no such name"),
        pytest.param(lambda it: it["engine"].update(evaluator="other"), "evaluator", id="evaluator without metrics"),
        pytest.param(lambda it: it.update(engine=["evaluator"]), "engine", id="engine that is a list"),
        pytest.param(
            lambda it: it["systems"]["local_system"]["config"].update(accelerators=["gpu"]),
            "accelerators",
            id="accelerators as before Olive 0.7",
        ),
        pytest.param(
            lambda it: it["systems"]["local_system"]["config"]["accelerators"][1].update(
                execution_providers="CPUExecutionProvider"
            ),
            "accelerators.execution_providers",
            id="one provider that is not in a list",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_refused_with_its_place(
    tmp_path: Path, change: Callable[[Document], Any], where: str
) -> None:
    with pytest.raises(InputError) as refused:
        load(tmp_path, changed(change))
    (problem,) = refused.value.problems
    assert problem.where == f"{tmp_path / 'olive.json'}: {where}"
    assert problem.remedy


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("CPUExecutionProvider"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "config", "x"]), inner),
    max_leaves=4,
)
PLACES: list[tuple[str | int, ...]] = [
    ("engine",),
    ("systems",),
    ("evaluators",),
    ("input_model",),
    ("input_model", "config"),
    ("engine", "evaluator"),
    ("engine", "target"),
    ("engine", "packaging_config"),
    ("engine", "packaging_config", 0),
    ("engine", "output_dir"),
    ("evaluators", "common_evaluator"),
    ("evaluators", "common_evaluator", "metrics"),
    ("evaluators", "common_evaluator", "metrics", 0),
    ("systems", "local_system"),
    ("systems", "local_system", "config", "accelerators"),
    ("systems", "local_system", "config", "accelerators", 0),
    ("systems", "local_system", "config", "accelerators", 0, "execution_providers"),
    ("systems", "local_system", "config", "accelerators", 0, "execution_providers", 0),
]


@settings(deadline=None)
@given(st.sampled_from(PLACES), json_values)
@example(("evaluators",), 5)
@example(("systems",), True)
@example(PLACES[-1], ["CPUExecutionProvider"])
def test_configuration_with_anything_anywhere_is_read_or_refused(place: tuple[str | int, ...], value: object) -> None:
    written = copy.deepcopy(ENGINE_STYLE)
    node: Any = written
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value
    try:
        parse_config(from_olive(written, Path("olive.json")))
    except InputError as refused:
        unclear = [problem for problem in refused.problems if not (problem.where and problem.what and problem.remedy)]
    else:
        unclear = []
    assert not unclear


@with_runs
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
def test_real_olive_configuration_is_taken_over_with_data_beside_it(tmp_path: Path, path: Path) -> None:
    written = json.loads(path.read_text())
    config = load(tmp_path, {**written, "data": DATA})
    assert config.candidates == OliveSource(path=tmp_path / written["output_dir"], input_model=tmp_path / "tiny.onnx")
    assert config.baseline == "input_model"
    assert [item.spec for item in config.accelerators] == ["cpu-cpu"]
    assert {item.name: item.priority for item in config.flat_metrics if item.type != "size_on_disk"} == {
        "accuracy-accuracy_score": 1,
        "latency-avg": 2,
        "latency-p90": -1,
    }
    assert len(config.packaging) == ("packaging_config" in written)


@with_runs
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
def test_real_olive_configuration_as_it_is_lacks_what_only_packhouse_knows(path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load_config(path)
    assert {problem.where for problem in refused.value.problems} == {"data", "baseline"}
