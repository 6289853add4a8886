"""Generated samples: what they look like, the sizes of their dimensions, and everything that can be wrong with the settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from packhouse.candidates import Candidate, TensorInfo
from packhouse.config.loading import parse_config
from packhouse.errors import InputError, Problem
from packhouse.evaluation.data import DataConfig, Dataset
from packhouse.evaluation.generated import generate
from packhouse.evaluation.session_host import SessionHost
from tests.config.documents import document
from tests.evaluation.models import Signature, candidates_with, floats

TYPES = [
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FLOAT16",
    "FLOAT",
    "DOUBLE",
    "STRING",
]
NLP = dict.fromkeys(("input_ids", "attention_mask"), (TensorProto.INT64, ("batch", "sequence")))


def generated(folder: Path, *signatures: Signature, **config: Any) -> Dataset:
    return generate(DataConfig.model_validate(config), candidates_with(folder / "models", *signatures))


def problems_of(folder: Path, *signatures: Signature, **config: Any) -> list[Problem]:
    with pytest.raises(InputError) as caught:
        generated(folder, *signatures, **config)
    return list(caught.value.problems)


def shapes_of(dataset: Dataset) -> Mapping[str, tuple[int, ...]]:
    return {name: array.shape for name, array in dataset.inputs.items()}


class TestSamples:
    @pytest.mark.parametrize("kind", TYPES)
    def test_are_taken_by_a_model_of_every_type_in_batches_of_any_size(self, tmp_path: Path, kind: str) -> None:
        (candidate,) = candidates_with(tmp_path / "models", {"x": (getattr(TensorProto, kind), ("n", 3))})
        generate(DataConfig(), [candidate]).save(tmp_path / "data.npz")

        with SessionHost(tmp_path) as host:
            host.ask("read_data", path=str(tmp_path / "data.npz"), inputs={"x": "input_0"})
            host.ask(
                "create_session",
                model=str(tmp_path / "models" / "0.onnx"),
                provider="CPUExecutionProvider",
                provider_options={},
                session_options={},
            )
            for size in (1, 3, 16, 32):
                assert host.ask("prepare_timing", batch_size=size)["batch_size"] == size
                assert len(host.ask("time", runs=20)["wall_ns"]) == 20

    def test_are_different_ones_without_labels(self, tmp_path: Path) -> None:
        dataset = generated(tmp_path, {"x": floats("n", 3), "word": (TensorProto.STRING, ("n", 1))})

        assert (len(dataset), dataset.labels) == (16, None)
        for array in dataset.inputs.values():
            assert len(np.unique(array, axis=0)) == 16

    def test_are_the_same_each_time_whatever_else_a_candidate_takes(self, tmp_path: Path) -> None:
        alone = generated(tmp_path / "a", {"x": floats("n", 3)})
        beside = generated(tmp_path / "b", {"w": floats("n", 3), "x": floats("n", 3)})

        np.testing.assert_array_equal(alone.inputs["x"], beside.inputs["x"])
        assert not np.array_equal(beside.inputs["w"], beside.inputs["x"])

    def test_are_normal_floats_bits_and_texts(self, tmp_path: Path) -> None:
        signature = {
            "x": floats("n", 1000),
            "id": (TensorProto.UINT16, ("n", 9)),
            "flag": (TensorProto.BOOL, ("n", 9)),
            "word": (TensorProto.STRING, ("n",)),
        }

        inputs = generated(tmp_path, signature).inputs

        assert abs(inputs["x"].mean()) < 0.1
        assert abs(inputs["x"].std() - 1) < 0.1
        assert set(inputs["id"].flat) == {0, 1}
        assert set(inputs["flag"].flat) == {False, True}
        assert all(len(word) == 8 and word.isalpha() for word in inputs["word"])
        assert {name: array.dtype.kind for name, array in inputs.items()} == {"x": "f", "id": "u", "flag": "b", "word": "U"}

    def test_of_an_input_with_a_range_fill_it_and_do_not_leave_it(self, tmp_path: Path) -> None:
        signature = {"id": (TensorProto.INT64, ("n", 500)), "x": floats("n", 500)}

        inputs = generated(tmp_path, signature, ranges={"id": [10, 12], "x": [0, 255]}).inputs

        assert set(inputs["id"].flat) == {10, 11, 12}
        assert (inputs["x"] >= 0).all()
        assert (inputs["x"] <= 255).all()
        assert inputs["x"].max() > 250

    @pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT32", "UINT32"])
    def test_may_use_all_of_a_type(self, tmp_path: Path, kind: str) -> None:
        limits = np.iinfo(kind.lower())

        inputs = generated(
            tmp_path, {"x": (getattr(TensorProto, kind), ("n", 9))}, ranges={"x": [int(limits.min), int(limits.max)]}
        ).inputs

        assert inputs["x"].dtype == kind.lower()
        assert len(np.unique(inputs["x"])) > 10

    def test_fit_every_type_in_which_candidates_declare_an_input(self, tmp_path: Path) -> None:
        signatures = [{"x": (kind, ("n", 9))} for kind in (TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8)]

        assert set(generated(tmp_path, *signatures).inputs["x"].flat) == {0, 1}

    def test_are_made_even_for_an_input_that_no_array_fits(self, tmp_path: Path) -> None:
        """The candidate fails when it is evaluated, and the others go on."""
        (candidate,) = candidates_with(tmp_path / "models", {"x": floats("n", 2)})
        sequence = TensorInfo(name="x", dtype="unknown", shape=())

        dataset = generate(DataConfig(), [candidate.model_copy(update={"inputs": (sequence,)})])

        dataset.save(tmp_path / "data.npz")
        assert len(dataset) == 16


class TestShapes:
    def test_are_those_of_the_model_where_it_fixes_them(self, tmp_path: Path) -> None:
        signature = {"x": floats("n", 3, 4), "fixed": floats(8, 2), "count": floats("n")}

        assert shapes_of(generated(tmp_path, signature)) == {"x": (16, 3, 4), "fixed": (16, 2), "count": (16,)}

    def test_take_the_size_of_a_named_dimension_in_all_inputs(self, tmp_path: Path) -> None:
        assert shapes_of(generated(tmp_path, NLP, shapes={"sequence": 7})) == {"input_ids": (16, 7), "attention_mask": (16, 7)}

    def test_may_be_given_as_a_whole_which_wins(self, tmp_path: Path) -> None:
        dataset = generated(
            tmp_path, {**NLP, "x": floats(None, 3, None)}, shapes={"sequence": 7, "input_ids": [1, 9], "x": [1, 3, 5]}
        )

        assert shapes_of(dataset) == {"input_ids": (16, 9), "attention_mask": (16, 7), "x": (16, 3, 5)}

    @pytest.mark.parametrize(("first", "config"), [(1, {}), (4, {"timing_batch_size": 4}), (8, {})])
    def test_may_be_given_with_the_size_of_a_batch(self, tmp_path: Path, first: int, config: dict[str, int]) -> None:
        dataset = generated(tmp_path, {"x": floats(8 if first == 8 else "n", "d")}, shapes={"x": [first, 3]}, **config)

        assert shapes_of(dataset) == {"x": (16, 3)}

    def test_may_be_empty_as_of_a_cache_at_its_start(self, tmp_path: Path) -> None:
        dataset = generated(tmp_path, {"past": floats("n", 2, "past_length", 4)}, shapes={"past_length": 0})

        assert shapes_of(dataset) == {"past": (16, 2, 0, 4)}

    def test_are_fixed_by_any_candidate_for_all_of_them(self, tmp_path: Path) -> None:
        assert shapes_of(generated(tmp_path, {"x": floats("n", "d")}, {"x": floats(1, 5)})) == {"x": (16, 5)}

    def test_of_an_input_that_declares_none_are_those_that_are_given(self, tmp_path: Path) -> None:
        (candidate,) = candidates_with(tmp_path / "models", {"x": floats("n", 2)})
        shapeless = TensorInfo(name="x", dtype="float32", shape=())
        config = DataConfig.model_validate({"shapes": {"x": [1, 4]}})

        dataset = generate(config, [candidate.model_copy(update={"inputs": (shapeless,)})])

        assert shapes_of(dataset) == {"x": (16, 4)}


class TestProblems:
    def test_a_named_dimension_without_a_size_is_told_once(self, tmp_path: Path) -> None:
        (problem, *others) = problems_of(tmp_path, NLP)

        assert others == []
        assert problem == Problem(
            "data.shapes",
            "the input 'input_ids' has the dynamic dimension 'sequence' on axis 1, and nothing says its size",
            "write the size to time with, such as {sequence: 128}, or give data.path",
        )

    def test_a_dimension_without_a_name_is_told_with_the_whole_shape(self, tmp_path: Path) -> None:
        (problem,) = problems_of(tmp_path, {"x": floats("n", 3, None, None)})

        assert problem.what == "the input 'x' has the dynamic dimension '?' on axis 2, and nothing says its size"
        assert problem.remedy == "write the size to time with, such as {x: [1, 3, 128, 128]}, or give data.path"

    def test_all_dimensions_without_a_size_are_told_at_once(self, tmp_path: Path) -> None:
        problems = problems_of(tmp_path, {"x": floats("n", "height", "width"), "z": floats("n", None)})

        assert [problem.what.split("'")[3] for problem in problems] == ["height", "width", "?"]

    @pytest.mark.parametrize("whole", [[1, 3], [1, 2, 1], [2]])
    def test_a_whole_shape_that_the_model_does_not_take(self, tmp_path: Path, whole: list[int]) -> None:
        (problem, *_) = problems_of(tmp_path, {"x": floats("n", 2)}, shapes={"x": whole})

        assert problem.where == "data.shapes.x"
        assert problem.what == f"is {'×'.join(map(str, whole))}, and the model takes ?×2"

    def test_a_whole_shape_of_several_samples(self, tmp_path: Path) -> None:
        (problem,) = problems_of(tmp_path, {"x": floats("n", 2)}, shapes={"x": [4, 2]}, timing_batch_size=3)

        assert (problem.where, problem.what) == ("data.shapes.x", "has 4 on axis 0, which is the sample")
        assert "data.timing_batch_size" in problem.remedy

    def test_the_number_of_samples_as_a_dimension(self, tmp_path: Path) -> None:
        (problem,) = problems_of(tmp_path, NLP, shapes={"sequence": 3, "batch": 4})

        assert (problem.where, problem.remedy) == ("data.shapes.batch", "set data.timing_batch_size instead")

    def test_a_size_that_another_candidate_does_not_take(self, tmp_path: Path) -> None:
        (problem,) = problems_of(tmp_path, {"x": floats("n", "d")}, {"x": floats("n", 5)}, shapes={"d": 4})

        assert problem == Problem(
            "data.shapes.d",
            "is 4, and on axis 1 of the input 'x' another candidate takes 5",
            "write a size that every candidate takes",
        )

    @pytest.mark.parametrize("other", [floats("n", 3), floats("n", 2, 1)])
    def test_candidates_that_take_different_shapes(self, tmp_path: Path, other: Any) -> None:
        (problem,) = problems_of(tmp_path, {"x": floats("n", 2)}, {"x": other})

        assert problem.where == "data"
        assert problem.what.startswith("candidates take the input 'x' in the shapes ?×2 and ?×")

    def test_candidates_that_take_texts_and_numbers(self, tmp_path: Path) -> None:
        (problem,) = problems_of(tmp_path, {"x": (TensorProto.STRING, ("n",))}, {"x": floats("n")})

        assert problem.what == "candidates take the input 'x' as float32 and str, which no sample is at once"

    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            (
                {"shapes": {"sequence": 2, "y": [1, 2]}},
                Problem(
                    "data.shapes.y", "no candidate has an input 'y'", "the candidates' inputs are attention_mask, input_ids"
                ),
            ),
            (
                {"shapes": {"sequence": 2}, "ranges": {"ids": [0, 9]}},
                Problem(
                    "data.ranges.ids", "no candidate has an input 'ids'", "the candidates' inputs are attention_mask, input_ids"
                ),
            ),
            (
                {"shapes": {"sequence": 2, "seq": 3}},
                Problem(
                    "data.shapes.seq",
                    "no candidate has a dynamic dimension 'seq'",
                    "the candidates' dynamic dimensions are sequence; a whole shape is a list, such as [1, 128]",
                ),
            ),
        ],
    )
    def test_names_that_no_candidate_has(self, tmp_path: Path, config: dict[str, Any], expected: Problem) -> None:
        assert problems_of(tmp_path, NLP, **config) == [expected]

    @pytest.mark.parametrize(
        ("kind", "limits", "what"),
        [
            ("UINT8", [0, 256], "is 0 to 256, which does not fit the model's uint8"),
            ("UINT32", [-1, 5], "is -1 to 5, which does not fit the model's uint32"),
            ("INT64", [0, 0.5], "is 0 to 0.5, which does not fit the model's int64"),
            ("INT64", [0, 2**63], "is 0 to 9.22337e+18, which does not fit the model's int64"),
            ("FLOAT16", [0, 1e5], "is 0 to 100000, which does not fit the model's float16"),
            ("BOOL", [0, 1], "the model takes bool, which has no range"),
            ("STRING", [0, 1], "the model takes str, which has no range"),
        ],
    )
    def test_a_range_that_the_type_does_not_have(self, tmp_path: Path, kind: str, limits: list[float], what: str) -> None:
        (problem,) = problems_of(tmp_path, {"x": (getattr(TensorProto, kind), ("n",))}, ranges={"x": limits})

        assert (problem.where, problem.what) == ("data.ranges.x", what)

    def test_samples_that_no_memory_holds(self, tmp_path: Path) -> None:
        (problem,) = problems_of(tmp_path, {"x": floats("n", "a", "b")}, shapes={"a": 10**9, "b": 10**6})

        assert problem.where == "data.shapes"
        assert problem.what.startswith("16 samples of the input 'x' do not fit into memory")

    @pytest.mark.parametrize(
        ("data", "where"),
        [
            ({"shapes": {"sequence": -1}}, "data.shapes.sequence"),
            ({"shapes": {"sequence": "long"}}, "data.shapes.sequence"),
            ({"ranges": {"x": [3]}}, "data.ranges.x"),
            ({"ranges": {"x": [3, 1]}}, "data.ranges"),
        ],
    )
    def test_settings_of_another_kind_are_refused_where_they_stand(self, data: dict[str, Any], where: str) -> None:
        with pytest.raises(InputError) as caught:
            parse_config(document(data=data))

        assert {problem.where for problem in caught.value.problems} == {where}


def test_a_candidate_is_named_that_has_no_inputs(tmp_path: Path) -> None:
    (candidate,) = candidates_with(tmp_path / "models", {"x": floats("n", 2)})
    without: Candidate = candidate.model_copy(update={"inputs": (), "name": "fixed"})

    with pytest.raises(InputError, match=r"candidates: fixed: has no inputs, so there is nothing to run it on"):
        generate(DataConfig(), [candidate, without])
