"""Reading Olive's output: made-up runs of every layout, and real ones where the shared fixtures are at hand."""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from packhouse.accelerators import InferenceSettings, SessionOptions
from packhouse.candidates import LocatedModel, OliveSource, identify
from packhouse.errors import InputError

FIXTURES = Path(__file__).parents[2] / ".." / "shared" / "data" / "olive"
with_fixtures = pytest.mark.skipif(not FIXTURES.exists(), reason="the real Olive outputs are not at hand")

WRITTEN_CACHE = "/home/ml/run/cache_A"
TUNED = {
    "execution_provider": ["CPUExecutionProvider"],
    "provider_options": [{}],
    "io_bind": False,
    "tuning_op_result": None,
    "session_options": {"execution_mode": 0, "graph_optimization_level": 99, "intra_op_num_threads": 1},
}
METRICS = {"value": {"accuracy-accuracy_score": {"value": 0.92, "priority": 1, "higher_is_better": True}}}
PACKAGED_HISTORY = {"input": None, "quant": {"precision": "int8"}, "leaf": {"threads": 1}}
TUNED_SETTINGS = InferenceSettings(
    execution_provider="CPUExecutionProvider",
    session_options=SessionOptions(execution_mode=0, graph_optimization_level=99, intra_op_num_threads=1),
)


def write_onnx(path: Path, addend: float = 1.0, external_data: str | None = None) -> Path:
    """Write a real model that adds `addend` to its input, with its weights in the file `external_data` if given."""
    weights = numpy_helper.from_array(np.full(2, addend, np.float32), "weights")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "weights"], ["y"])], "g", value[:1], value[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path, save_as_external_data=external_data is not None, location=external_data, size_threshold=0)
    return path


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def onnx_config(path: str, settings: dict[str, Any] | None = None, file_name: str | None = None) -> dict[str, Any]:
    config = {"model_path": path, "onnx_file_name": file_name, "inference_settings": settings, "model_attributes": None}
    return {"type": "onnxmodel", "config": config}


def node(
    parent: str | None, config: dict[str, Any] | None = None, key: str = "model_config_data", **more: Any
) -> dict[str, Any]:
    passed = {"from_pass": "somepass", "pass_run_config": {"made_from": parent}} if parent else {}
    return {"parent_model_id": parent, key: config, "is_pareto_frontier": False, "metrics": None, **passed, **more}


def written(model_id: str) -> str:
    return f"{WRITTEN_CACHE}/flow/runs/{model_id}/models/tiny.onnx"


def search(key: str = "model_config_data") -> dict[str, Any]:
    """Return the footprint of a search: input → quant_1 → leaf_1 (on the front) and input → quant_2 → leaf_2."""
    return {
        "input": node(None, None, key),
        "quant_1": node("input", onnx_config(written("quant_1")), key),
        "leaf_1": node("quant_1", onnx_config(written("quant_1"), TUNED), key, metrics=METRICS, is_pareto_frontier=True),
        "quant_2": node("input", onnx_config(written("quant_2")), key),
        "leaf_2": node("quant_2", onnx_config(written("quant_2"), TUNED), key, metrics=METRICS),
    }


def write_cache(folder: Path, *model_ids: str) -> Path:
    for addend, model_id in enumerate(model_ids or ("quant_1", "quant_2"), start=1):
        write_onnx(folder / "flow" / "runs" / model_id / "models" / "tiny.onnx", addend)
    return folder


def output_of(output: Path, footprint: dict[str, Any]) -> Path:
    write_json(output / "footprint.json", footprint)
    return output


def write_packaged(
    package: Path, place: str, history: dict[str, Any], settings: dict[str, Any] | None = TUNED, *, inner: str = ""
) -> Path:
    folder = package / "CandidateModels" / place
    write_json(folder / "configurations.json", history)
    write_json(folder / "inference_config.json", settings or {})
    write_json(folder / "metrics.json", {"input_model_metrics": None})
    info = {"rank": 1, "model_config": onnx_config(f"CandidateModels/{place}", settings, "stale.onnx"), "metrics": None}
    write_json(folder / "model_info.json", info)
    write_json(package / "models_rank.json", [info])
    write_onnx(folder / inner / "model.onnx")
    return folder


def locate(path: Path, **more: Any) -> dict[str, LocatedModel]:
    return {model.name: model for model in OliveSource(path=path, **more).locate()}


def problems_of(path: Path, **more: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        OliveSource(path=path, **more).locate()
    return [str(problem) for problem in caught.value.problems]


def runs_with(path: Path) -> float:
    """Return what the model at `path` makes of zero, in ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": np.zeros(2, np.float32)})[0][0])


class TestLayouts:
    @pytest.mark.parametrize(
        ("file", "key"),
        [
            ("footprint.json", "model_config_data"),
            ("footprint.json", "model_config"),
            ("footprints.json", "model_config"),
            ("mine_cpu-cpu_footprints.json", "model_config"),
        ],
    )
    def test_every_leaf_is_a_candidate_under_its_model_id(self, tmp_path: Path, file: str, key: str) -> None:
        write_json(tmp_path / "out" / file, search(key))
        write_cache(tmp_path / "cache")

        models = locate(tmp_path / "out")

        assert {name: runs_with(model.path) for name, model in models.items()} == {"leaf_1": 1.0, "leaf_2": 2.0}

    def test_excerpts_of_a_footprint_are_not_read(self, tmp_path: Path) -> None:
        write_json(tmp_path / "out" / "mine_cpu-cpu_footprints.json", search("model_config"))
        for excerpt in (
            "pareto_frontier_footprints.json",
            "mine_cpu-cpu_output_footprints.json",
            "output_footprint.json",
        ):
            (tmp_path / "out" / excerpt).write_text("no JSON")
        write_cache(tmp_path / "cache")

        assert set(locate(tmp_path / "out")) == {"leaf_1", "leaf_2"}

    def test_the_footprints_of_several_accelerators_are_one_run_in_which_a_shared_model_counts_once(
        self, tmp_path: Path
    ) -> None:
        for accelerator, only in (("cpu-cpu", "leaf_2"), ("gpu-cuda", "leaf_3")):
            footprint = search("model_config")
            footprint[only] = footprint.pop("leaf_2")
            write_json(tmp_path / "out" / accelerator / "footprints.json", footprint)
        other = search() | {"leaf_4": node("quant_1", onnx_config(written("quant_1")), metrics=METRICS)}
        write_json(tmp_path / "out" / "elsewhere" / "footprints.json", other)
        write_cache(tmp_path / "cache")

        assert [model.name for model in OliveSource(path=tmp_path / "out").locate()] == ["leaf_1", "leaf_2", "leaf_3"]

    def test_a_folder_with_only_a_saved_model_has_that_candidate(self, tmp_path: Path) -> None:
        saved = write_onnx(tmp_path / "model.onnx")
        write_json(tmp_path / "model_config.json", onnx_config("/home/ml/run/out/model.onnx", TUNED))

        assert locate(tmp_path) == {"model": LocatedModel("model", saved, TUNED_SETTINGS, {})}

    def test_an_external_data_model_that_was_saved_flat_is_found_by_its_file_name(self, tmp_path: Path) -> None:
        write_onnx(tmp_path / "model.onnx", 3.0, external_data="model.onnx.data")
        write_json(tmp_path / "model_config.json", onnx_config("/home/ml/run/out", None, "model.onnx"))

        (model,) = OliveSource(path=tmp_path).find()

        assert set(model.files) == {"model.onnx", "model.onnx.data"}
        assert runs_with(model.files["model.onnx"]) == 3.0

    def test_an_external_data_model_that_was_saved_as_a_folder_is_found_in_it(self, tmp_path: Path) -> None:
        saved = write_onnx(tmp_path / "model" / "tiny.onnx", external_data="tiny.onnx.data")
        write_json(tmp_path / "model_config.json", onnx_config("/home/ml/run/out/model", None, "tiny.onnx"))

        assert locate(tmp_path)["tiny"].path == saved

    @pytest.mark.parametrize("path", ["nothing here", ".", "file"])
    def test_what_is_no_olive_output_is_refused(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "file").touch()

        (problem,) = problems_of(tmp_path / path)

        assert problem.startswith(f"candidates.path = {tmp_path / path}: holds no model")
        assert "name Olive's output_dir" in problem

    def test_a_run_of_which_every_search_point_failed_is_refused(self, tmp_path: Path) -> None:
        footprint = {"input": node(None), "a": node("input", {"is_pruned": True})}

        assert "no footprint with a finished search point" in problems_of(output_of(tmp_path / "out", footprint))[0]


class TestLeaves:
    @pytest.mark.parametrize(
        "failed",
        [
            node("quant_2", {"is_pruned": True}),
            node("quant_2", onnx_config(written("leaf_2")), metrics=METRICS, is_pruned=True),
            {"is_pruned": True},
        ],
    )
    def test_pruned_models_and_what_they_were_made_of_are_no_candidates(self, tmp_path: Path, failed: dict[str, Any]) -> None:
        output_of(tmp_path / "out", search() | {"leaf_2": failed})
        write_cache(tmp_path / "cache")

        assert set(locate(tmp_path / "out")) == {"leaf_1"}

    def test_a_leaf_without_metrics_is_left_out_where_others_were_evaluated(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search() | {"quant_3": node("input", onnx_config(written("quant_3")))})
        write_cache(tmp_path / "cache", "quant_1", "quant_2", "quant_3")

        assert set(locate(tmp_path / "out")) == {"leaf_1", "leaf_2"}

    def test_every_leaf_counts_where_olive_evaluated_none(self, tmp_path: Path) -> None:
        footprint = {model_id: {**content, "metrics": None} for model_id, content in search().items()}
        output_of(tmp_path / "out", footprint)
        write_cache(tmp_path / "cache")

        assert set(locate(tmp_path / "out")) == {"leaf_1", "leaf_2"}

    def test_the_input_model_is_no_candidate_even_with_a_model_of_its_own(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", {"input": node(None, onnx_config(written("input")), metrics=METRICS)})
        write_cache(tmp_path / "cache", "input")

        assert "no footprint with a finished search point" in problems_of(tmp_path / "out")[0]

    def test_history_leads_from_the_input_model_to_the_leaf_in_order(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", dict(reversed(search().items())))
        write_cache(tmp_path / "cache")

        history = locate(tmp_path / "out")["leaf_2"].history

        assert list(history.items()) == [
            ("input", None),
            ("quant_2", {"made_from": "input"}),
            ("leaf_2", {"made_from": "quant_2"}),
        ]

    @pytest.mark.parametrize(
        "changes",
        [{"quant_1": node("gone")}, {"quant_1": node("other"), "other": node("quant_1")}],
        ids=["lost", "circular"],
    )
    def test_a_leaf_with_a_broken_line_of_ancestors_is_refused(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        write_cache(tmp_path / "cache")

        (problem,) = problems_of(output_of(tmp_path / "out", search() | changes))

        assert "node leaf_1: its ancestor" in problem

    @pytest.mark.parametrize("kind", ["CompositeModel", "hfmodel", "OpenVINOModel"])
    def test_a_leaf_that_is_no_onnx_model_is_refused_with_its_type(self, tmp_path: Path, kind: str) -> None:
        composite = {"type": kind, "config": {"model_components": [], "model_component_names": []}}
        write_cache(tmp_path / "cache")

        (problem,) = problems_of(output_of(tmp_path / "out", search() | {"leaf_1": node("quant_1", composite)}))

        assert f"node leaf_1: is a model of type {kind!r}" in problem

    def test_the_type_of_an_onnx_model_is_read_in_any_case_and_that_of_its_ancestors_does_not_matter(
        self, tmp_path: Path
    ) -> None:
        footprint = search()
        footprint["leaf_1"]["model_config_data"]["type"] = "ONNXModel"
        footprint["quant_2"]["model_config_data"] = {"type": "hfmodel", "config": {"model_path": {"a": "dict"}}}
        output_of(tmp_path / "out", footprint)
        write_cache(tmp_path / "cache")

        assert set(locate(tmp_path / "out")) == {"leaf_1", "leaf_2"}

    def test_the_input_model_competes_where_it_is_given(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        write_cache(tmp_path / "cache")
        given_model = write_onnx(tmp_path / "mine.onnx", 9.0)

        model = locate(tmp_path / "out", input_model=given_model)["input_model"]

        assert model == LocatedModel("input_model", given_model, InferenceSettings(), {"input": None})


class TestSettings:
    @staticmethod
    def settings_of(folder: Path, settings: dict[str, Any] | None) -> InferenceSettings:
        write_onnx(folder / "model.onnx")
        write_json(folder / "model_config.json", onnx_config("/out/model.onnx", settings))
        return locate(folder)["model"].settings

    @pytest.mark.parametrize(
        "written_settings",
        [
            {
                "execution_provider": ["CUDAExecutionProvider", "CPUExecutionProvider"],
                "provider_options": [{"device_id": 1}, {}],
            },
            {"execution_provider": [["CUDAExecutionProvider", {"device_id": 1}], ["CPUExecutionProvider", {}]]},
            {
                "execution_provider": [["CUDAExecutionProvider", None]],
                "provider_options": [{"device_id": "1", "unset": None}],
            },
        ],
        ids=["names", "pairs", "mixed"],
    )
    def test_the_first_provider_and_its_options_are_read_in_either_shape(
        self, tmp_path: Path, written_settings: dict[str, Any]
    ) -> None:
        settings = self.settings_of(tmp_path, written_settings)

        assert (settings.execution_provider, settings.provider_options) == ("CUDAExecutionProvider", {"device_id": "1"})

    @pytest.mark.parametrize("written_settings", [None, {}, {"execution_provider": [], "session_options": None}])
    def test_a_model_without_settings_has_the_defaults(self, tmp_path: Path, written_settings: dict[str, Any] | None) -> None:
        assert self.settings_of(tmp_path, written_settings) == InferenceSettings()

    def test_session_options_are_kept_with_extra_entries_as_text_and_unset_ones_dropped(self, tmp_path: Path) -> None:
        extra = {"session.intra_op.allow_spinning": 0, "session.dynamic_block_base": "4", "session.unset": None}
        options = {
            "execution_mode": 1,
            "inter_op_num_threads": 2,
            "extra_session_config": extra,
            "enable_profiling": None,
        }

        settings = self.settings_of(tmp_path, {"session_options": options})

        assert settings.session_options == SessionOptions(
            execution_mode=1,
            inter_op_num_threads=2,
            extra_session_config={"session.intra_op.allow_spinning": "0", "session.dynamic_block_base": "4"},
        )

    @pytest.mark.parametrize(
        ("options", "key"),
        [
            ({"enable_profiling": True}, "enable_profiling"),
            ({"execution_mode": 7}, "execution_mode"),
            ({"extra_session_config": ["a"]}, "extra_session_config"),
        ],
    )
    def test_session_options_that_are_not_known_are_refused_with_node_and_key(
        self, tmp_path: Path, options: dict[str, Any], key: str
    ) -> None:
        footprint = search()
        footprint["leaf_1"]["model_config_data"]["config"]["inference_settings"] = {"session_options": options}
        write_cache(tmp_path / "cache")

        (problem,) = problems_of(output_of(tmp_path / "out", footprint))

        assert "node leaf_1" in problem
        assert f"session_options.{key}" in problem

    def test_one_file_with_different_settings_stays_two_candidates(self, tmp_path: Path) -> None:
        footprint = search()
        footprint["leaf_2"] = node("quant_1", onnx_config(written("quant_1")), metrics=METRICS)
        output_of(tmp_path / "out", footprint)
        write_cache(tmp_path / "cache")

        candidates = identify(OliveSource(path=tmp_path / "out").find())

        assert [(candidate.name, candidate.settings) for candidate in candidates] == [
            ("leaf_1", TUNED_SETTINGS),
            ("leaf_2", InferenceSettings()),
        ]


class TestPaths:
    @pytest.mark.parametrize(
        "cache", ["out/cache_A", "cache_A", "cache", "cache_renamed", "out", "."], ids=lambda cache: f"cache={cache}"
    )
    def test_a_cache_that_was_moved_along_is_found(self, tmp_path: Path, cache: str) -> None:
        output_of(tmp_path / "out", search())
        write_cache(tmp_path / cache)

        assert locate(tmp_path / "out")["leaf_2"].path == tmp_path / cache / "flow/runs/quant_2/models/tiny.onnx"

    def test_a_cache_where_olive_left_it_is_read_there(self, tmp_path: Path) -> None:
        cache = write_cache(tmp_path / "far" / "away")
        text = json.dumps(search()).replace(WRITTEN_CACHE, str(cache))
        output_of(tmp_path / "out", json.loads(text))

        assert locate(tmp_path / "out")["leaf_1"].path == cache / "flow/runs/quant_1/models/tiny.onnx"

    def test_the_longest_matching_prefix_is_remapped(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        one, two = write_cache(tmp_path / "far" / "one"), write_cache(tmp_path / "far" / "two")
        remap = {
            "/home": tmp_path,
            WRITTEN_CACHE: one,
            f"{WRITTEN_CACHE}/flow/runs/quant_2/": two / "flow/runs/quant_2",
        }

        models = locate(tmp_path / "out", remap=remap)

        assert [models[name].path.is_relative_to(place) for name, place in (("leaf_1", one), ("leaf_2", two))] == [
            True,
            True,
        ]

    def test_remap_decides_even_where_a_cache_lies_nearby(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        write_cache(tmp_path / "cache")
        elsewhere = write_cache(tmp_path / "far" / "away")

        assert locate(tmp_path / "out", remap={WRITTEN_CACHE: elsewhere})["leaf_1"].path.is_relative_to(elsewhere)

    def test_a_prefix_is_remapped_only_at_whole_parts_of_the_path(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        write_cache(tmp_path / "cache")

        assert set(locate(tmp_path / "out", remap={"/home/ml/run/cache": tmp_path / "nowhere"})) == {"leaf_1", "leaf_2"}

    def test_a_remap_that_leads_nowhere_is_an_error_even_where_the_best_model_lies(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        write_onnx(tmp_path / "out" / "model.onnx")
        write_json(tmp_path / "out" / "model_config.json", onnx_config("/home/ml/run/out/model.onnx", TUNED))

        problems = problems_of(tmp_path / "out", remap={"/home/ml/run": tmp_path / "nowhere"})

        assert len(problems) == 2
        assert f"{tmp_path / 'nowhere'}/cache_A/flow/runs/quant_1/models/tiny.onnx" in problems[0]
        assert "candidates.remap" in problems[0]

    def test_two_caches_that_could_both_be_the_run_s_are_named_and_neither_is_taken(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        one, two = write_cache(tmp_path / "cache_1"), write_cache(tmp_path / "cache_2")

        (problem,) = problems_of(tmp_path / "out")

        assert "node leaf_1" in problem
        assert str(one) in problem
        assert str(two) in problem
        assert "candidates.remap" in problem

    def test_the_cache_of_the_written_name_wins_over_another_run_s(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        own = write_cache(tmp_path / "cache_A")
        write_cache(tmp_path / "cache_B")

        assert all(model.path.is_relative_to(own) for model in locate(tmp_path / "out").values())

    def test_one_cache_under_two_names_is_no_ambiguity(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        write_cache(tmp_path / "cache_1")
        (tmp_path / "cache_latest").symlink_to(tmp_path / "cache_1")

        assert set(locate(tmp_path / "out")) == {"leaf_1", "leaf_2"}

    def test_a_file_that_only_has_the_same_name_is_never_taken(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        for place in ("tiny.onnx", "models/tiny.onnx", "out/tiny.onnx"):
            write_onnx(tmp_path / place)

        assert len(problems_of(tmp_path / "out")) == 2

    def test_a_cache_with_holes_is_an_error_that_names_each_missing_model(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        write_cache(tmp_path / "cache", "quant_1")
        write_onnx(tmp_path / "out" / "model.onnx")
        write_json(tmp_path / "out" / "model_config.json", onnx_config("/home/ml/run/out/model.onnx", TUNED))

        (problem,) = problems_of(tmp_path / "out")

        assert problem.startswith(
            f"candidates.path = {tmp_path / 'out'}, node leaf_2: its model is not at {written('quant_2')}"
        )
        assert "candidates.remap" in problem

    def test_paths_of_windows_are_found_and_remapped(self, tmp_path: Path) -> None:
        text = json.dumps(search()).replace(WRITTEN_CACHE, "C:/run/cache_A").replace("/", r"\\")
        output_of(tmp_path / "out", json.loads(text))
        nearby, elsewhere = write_cache(tmp_path / "cache"), write_cache(tmp_path / "far" / "away")

        assert locate(tmp_path / "out")["leaf_1"].path.is_relative_to(nearby)
        assert locate(tmp_path / "out", remap={r"C:\run\cache_A": elsewhere})["leaf_1"].path.is_relative_to(elsewhere)

    @pytest.mark.parametrize("path", ["", "tiny.onnx", "/" + "quant_1" * 1000, "/quant_1\0"])
    def test_a_path_that_cannot_be_is_missing_and_no_crash(
        self, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(write_onnx(tmp_path / "here" / "tiny.onnx").parent)
        footprint = search()
        footprint["leaf_1"]["model_config_data"]["config"]["model_path"] = path
        write_cache(tmp_path / "cache", "quant_2")

        assert "node leaf_1: its model is not at" in problems_of(output_of(tmp_path / "out", footprint))[0]

    @pytest.mark.parametrize("file_name", ["tiny.onnx", None, "stale.onnx", "/home/ml/run/tiny.onnx"])
    def test_a_model_in_a_folder_is_found_with_its_external_data(self, tmp_path: Path, file_name: str | None) -> None:
        footprint = search()
        footprint["leaf_1"]["model_config_data"] = onnx_config(f"{WRITTEN_CACHE}/flow/runs/quant_1/models", None, file_name)
        output_of(tmp_path / "out", footprint)
        write_cache(tmp_path / "cache", "quant_2")
        write_onnx(tmp_path / "cache/flow/runs/quant_1/models/tiny.onnx", 5.0, external_data="tiny.onnx.data")

        model = OliveSource(path=tmp_path / "out").find()[0]

        assert (model.entry, set(model.files)) == ("tiny.onnx", {"tiny.onnx", "tiny.onnx.data"})
        assert runs_with(model.files["tiny.onnx"]) == 5.0

    @pytest.mark.parametrize("files", [[], ["one.onnx", "two.onnx"]])
    def test_a_folder_without_one_clear_model_is_refused(self, tmp_path: Path, files: Sequence[str]) -> None:
        footprint = search()
        footprint["leaf_1"]["model_config_data"] = onnx_config(f"{WRITTEN_CACHE}/flow/runs/quant_1/models")
        output_of(tmp_path / "out", footprint)
        models = write_cache(tmp_path / "cache") / "flow/runs/quant_1/models"
        (models / "tiny.onnx").unlink()
        for file in files:
            write_onnx(models / file)

        (problem,) = problems_of(tmp_path / "out")

        assert f"node leaf_1: {models} holds {len(files)} .onnx files" in problem


class TestPackage:
    def test_a_package_s_candidates_have_the_ids_settings_and_histories_that_it_says(self, tmp_path: Path) -> None:
        folder = write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY)

        assert locate(tmp_path) == {"leaf": LocatedModel("leaf", folder / "model.onnx", TUNED_SETTINGS, PACKAGED_HISTORY)}

    def test_a_package_s_candidates_are_its_folders_even_where_its_rank_file_lists_fewer(self, tmp_path: Path) -> None:
        for rank in (1, 2, 3):
            write_packaged(tmp_path, f"cpu-cpu/BestCandidateModel_{rank}", {"input": None, f"leaf_{rank}": {}})

        assert len(json.loads((tmp_path / "models_rank.json").read_text())) == 1
        assert set(locate(tmp_path)) == {"leaf_1", "leaf_2", "leaf_3"}

    def test_a_stale_onnx_file_name_does_not_hide_a_model_with_external_data(self, tmp_path: Path) -> None:
        folder = write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY)
        write_onnx(folder / "model.onnx", 4.0, external_data="stale.onnx.data")

        (model,) = OliveSource(path=tmp_path).find()

        assert (model.entry, set(model.files)) == ("model.onnx", {"model.onnx", "stale.onnx.data"})
        assert runs_with(model.files["model.onnx"]) == 4.0

    def test_a_packaged_model_is_the_file_that_olive_renamed_even_beside_others(self, tmp_path: Path) -> None:
        folder = write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY)
        write_onnx(folder / "stale.onnx")

        assert locate(tmp_path)["leaf"].path == folder / "model.onnx"

    def test_a_model_in_mlflow_format_is_found(self, tmp_path: Path) -> None:
        folder = write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY, inner="mlflow_model")

        assert locate(tmp_path)["leaf"].path == folder / "mlflow_model" / "model.onnx"

    def test_one_model_packaged_for_two_accelerators_is_told_apart_by_them(self, tmp_path: Path) -> None:
        for accelerator in ("cpu-cpu", "gpu-cuda"):
            write_packaged(tmp_path, f"{accelerator}/BestCandidateModel_1", PACKAGED_HISTORY)

        assert set(locate(tmp_path)) == {"leaf-cpu-cpu", "leaf-gpu-cuda"}

    def test_the_input_model_s_id_is_known_from_a_package(self, tmp_path: Path) -> None:
        write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY)

        models = locate(tmp_path, input_model=write_onnx(tmp_path / "mine.onnx"))

        assert models["input_model"].history == {"input": None}

    def test_a_packaged_model_that_is_no_onnx_model_is_refused(self, tmp_path: Path) -> None:
        folder = write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY)
        write_json(folder / "model_info.json", {"rank": 1, "model_config": {"type": "OpenVINOModel", "config": {}}})

        assert f"{folder}: is a model of type 'OpenVINOModel'" in problems_of(tmp_path)[0]

    def test_a_package_is_taken_where_the_cache_is_gone_and_the_cache_where_it_is_not(self, tmp_path: Path) -> None:
        output_of(tmp_path / "out", search())
        write_packaged(tmp_path / "out", "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY)
        write_json(tmp_path / "out" / "model_config.json", onnx_config("/home/ml/run/out/model.onnx", TUNED))
        write_onnx(tmp_path / "out" / "model.onnx")

        assert set(locate(tmp_path / "out")) == {"leaf"}

        write_cache(tmp_path / "cache")

        assert set(locate(tmp_path / "out")) == {"leaf_1", "leaf_2"}


class TestSavedModel:
    @staticmethod
    def save_best(folder: Path, settings: dict[str, Any] | None) -> Path:
        write_json(folder / "model_config.json", onnx_config("/home/ml/run/out/model.onnx", settings))
        return write_onnx(folder / "model.onnx")

    def test_the_saved_model_is_the_only_leaf_of_its_settings_that_is_on_the_pareto_front(self, tmp_path: Path) -> None:
        output_of(tmp_path, search())
        saved = self.save_best(tmp_path, TUNED)

        assert locate(tmp_path) == {
            "leaf_1": LocatedModel(
                "leaf_1",
                saved,
                TUNED_SETTINGS,
                {"input": None, "quant_1": {"made_from": "input"}, "leaf_1": {"made_from": "quant_1"}},
            )
        }

    def test_the_saved_model_is_the_leaf_of_its_settings(self, tmp_path: Path) -> None:
        output_of(tmp_path, search() | {"leaf_2": node("quant_2", onnx_config(written("quant_2")), metrics=METRICS)})
        self.save_best(tmp_path, None)

        assert set(locate(tmp_path)) == {"leaf_2"}

    def test_a_saved_model_that_could_be_either_of_two_leaves_has_no_history(self, tmp_path: Path) -> None:
        footprint = search()
        footprint["leaf_2"]["is_pareto_frontier"] = True
        output_of(tmp_path, footprint)
        saved = self.save_best(tmp_path, TUNED)

        models = locate(tmp_path, input_model=saved)

        assert models["model"] == LocatedModel("model", saved, TUNED_SETTINGS, {})
        assert models["input_model"].history == {"input": None}

    def test_the_model_that_olive_0_7_saved_is_found_in_its_folder(self, tmp_path: Path) -> None:
        write_json(tmp_path / "footprints.json", {key: search("model_config")[key] for key in ("input", "quant_1", "leaf_1")})
        saved = self.save_best(tmp_path / "output_model", TUNED)

        assert locate(tmp_path)["leaf_1"].path == saved

    def test_a_saved_composite_model_is_refused(self, tmp_path: Path) -> None:
        write_json(tmp_path / "model_config.json", {"type": "CompositeModel", "config": {"model_components": []}})

        assert "is a model of type 'CompositeModel'" in problems_of(tmp_path)[0]

    def test_a_configuration_whose_model_is_gone_is_refused(self, tmp_path: Path) -> None:
        self.save_best(tmp_path, TUNED).unlink()

        assert f"{tmp_path / 'model_config.json'}: {tmp_path} holds 0 .onnx files" in problems_of(tmp_path)[0]


BROKEN = [
    b"",
    b'{"leaf": {"parent_model_id": "inp',
    b"\xff\xfe",
    b"[" * 100_000,
    b"[]",
    b'"text"',
    b"null",
    b'{"leaf": "text", "model_config": "text", "type": 1, "config": []}',
    b'{"leaf": {"parent_model_id": 7, "model_config": []}, "model_config": {"type": []}, "config": "text"}',
    b'{"leaf": {"parent_model_id": "leaf", "model_config": {"config": 1}}, "model_config": {"config": 1}, "config": 1}',
]


class TestDamage:
    @pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
    @pytest.mark.parametrize("file", ["footprint.json", "footprints.json", "cpu-cpu/footprints.json", "model_config.json"])
    def test_a_damaged_file_of_a_run_is_an_input_error_that_names_it(self, tmp_path: Path, file: str, content: bytes) -> None:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)

        assert problems_of(tmp_path)[0].startswith(f"{tmp_path / file}: ")

    @pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
    @pytest.mark.parametrize("file", ["configurations.json", "model_info.json"])
    def test_a_damaged_file_of_a_package_is_an_input_error_that_names_it(
        self, tmp_path: Path, file: str, content: bytes
    ) -> None:
        folder = write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY)
        (folder / file).write_bytes(content)

        assert problems_of(tmp_path)[0].startswith(f"{folder / file}: ")

    @pytest.mark.parametrize("file", ["configurations.json", "model_info.json"])
    def test_a_missing_file_of_a_package_is_an_input_error_that_names_it(self, tmp_path: Path, file: str) -> None:
        folder = write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", PACKAGED_HISTORY)
        (folder / file).unlink()

        assert problems_of(tmp_path)[0].startswith(f"{folder / file}: cannot be read (No such file or directory)")

    def test_an_empty_history_is_an_input_error(self, tmp_path: Path) -> None:
        write_packaged(tmp_path, "cpu-cpu/BestCandidateModel_1", {})

        assert "configurations.json" in problems_of(tmp_path)[0]

    @pytest.mark.parametrize(
        "change",
        [
            {"model_path": None},
            {"model_path": {"type": "file"}},
            {"onnx_file_name": 3},
            {"inference_settings": []},
            {"inference_settings": {"execution_provider": "CPUExecutionProvider"}},
            {"inference_settings": {"execution_provider": [["CPUExecutionProvider"]]}},
            {"inference_settings": {"execution_provider": [None]}},
            {"inference_settings": {"provider_options": {}}},
            {"inference_settings": {"provider_options": ["fast"]}},
            {"inference_settings": {"session_options": "fast"}},
        ],
        ids=str,
    )
    def test_a_model_of_a_wrong_shape_is_an_input_error_that_names_the_node(
        self, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        footprint = search()
        footprint["leaf_1"]["model_config_data"]["config"] |= change
        write_cache(tmp_path / "cache")

        (problem,) = problems_of(output_of(tmp_path / "out", footprint))

        assert f"node leaf_1: {next(iter(change))}" in problem

    @settings(deadline=None)
    @given(length=st.integers(min_value=0, max_value=len(json.dumps(search())) - 1))
    def test_a_truncated_footprint_is_always_an_input_error(
        self, tmp_path_factory: pytest.TempPathFactory, length: int
    ) -> None:
        folder = tmp_path_factory.mktemp("run")
        (folder / "footprint.json").write_text(json.dumps(search())[:length])

        assert problems_of(folder)

    @settings(deadline=None)
    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["leaf_1", "quant_1", *search()["leaf_1"]]), inner),
        ),
        spot=st.sampled_from(["leaf_1", "model_config_data", "pass_run_config", "metrics", "parent_model_id"]),
    )
    def test_a_footprint_with_anything_anywhere_is_read_or_is_an_input_error(
        self, tmp_path_factory: pytest.TempPathFactory, value: object, spot: str
    ) -> None:
        folder = tmp_path_factory.mktemp("run")
        footprint = search()
        (footprint if spot in footprint else footprint["leaf_1"])[spot] = value
        output_of(folder / "out", footprint)
        write_cache(folder / "cache")

        with suppress(InputError):
            assert locate(folder / "out")


@with_fixtures
class TestRealOutputs:
    @pytest.mark.parametrize(
        ("folder", "olive_measured"),
        [
            ("search_zip/output_dir", {"06d414cd": 0.922, "0fbaee14": 0.920, "3fb5a692": 0.922, "ffc173d5": 0.922}),
            ("search_zip/unzipped", {"06d414cd": 0.922, "0fbaee14": 0.920, "3fb5a692": 0.922}),
            ("search_nopackaging/output_dir", {"model": 0.922}),
            ("nosearch_nopackaging/output_dir", {"0fbaee14": 0.920}),
            ("nosearch_zip_external_data/unzipped", {"445037b5": 0.920}),
            ("v0.9.1_search_zip/output_dir", {"model": 0.922}),
        ],
    )
    def test_what_is_located_runs_and_is_as_accurate_as_olive_measured(
        self, folder: str, olive_measured: dict[str, float]
    ) -> None:
        data = np.load(FIXTURES / "inputs" / "eval.npz")
        accuracy = {}
        for model in OliveSource(path=FIXTURES / folder).find():
            assert model.settings == TUNED_SETTINGS
            session = onnxruntime.InferenceSession(model.files[model.entry], providers=["CPUExecutionProvider"])
            (scores,) = session.run(None, {session.get_inputs()[0].name: data["x"]})
            accuracy[model.name] = float(np.mean(scores.argmax(axis=-1) == data["y"]))

        assert accuracy == pytest.approx(olive_measured, abs=0.003)

    def test_a_remapped_cache_holds_what_was_packaged_under_the_same_id_and_history(self) -> None:
        cache = FIXTURES / "search_zip" / "cache"
        cached = locate(FIXTURES / "search_zip" / "output_dir", remap={"/home/ml/olive/run/cache_A/": cache})
        packaged = locate(FIXTURES / "search_zip" / "unzipped")

        assert set(packaged) == {"06d414cd", "0fbaee14", "3fb5a692"}
        for name, model in packaged.items():
            assert cached[name].path.read_bytes() == model.path.read_bytes()
            assert list(cached[name].history.items()) == list(model.history.items())
            assert cached[name].settings == model.settings

    def test_a_cache_that_did_not_come_along_is_an_error_where_the_folder_holds_no_model(self) -> None:
        (problem,) = problems_of(FIXTURES / "nosearch_zip_external_data" / "output_dir")

        assert "node 445037b5: its model is not at /home/ml/olive/run/probes/p2/c_ext/ext/runs/ac79a723/models" in problem

    def test_two_copies_of_a_real_cache_are_ambiguous(self, tmp_path: Path) -> None:
        for copy in ("cache", "cache_backup"):
            shutil.copytree(FIXTURES / "search_zip" / "cache", tmp_path / copy)
        shutil.copytree(FIXTURES / "search_zip" / "output_dir", tmp_path / "out")

        assert "cache_backup" in problems_of(tmp_path / "out")[0]

    def test_the_real_input_model_competes_as_the_baseline(self) -> None:
        output, given_model = FIXTURES / "nosearch_nopackaging" / "output_dir", FIXTURES / "inputs" / "tiny.onnx"

        models = locate(output, input_model=given_model)

        assert list(models) == ["0fbaee14", "input_model"]
        assert models["input_model"].history == {"83ba2649": None}
