"""The samples: where they are read from, how they are fitted to the candidates, and everything that can be wrong with them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from pyarrow import parquet
from pydantic import ValidationError

from packhouse.candidates import Candidate
from packhouse.errors import InputError, Problem
from packhouse.evaluation.data import DataConfig, Dataset, select
from tests.classifiers import points
from tests.evaluation.models import candidates_with, floats, write_constant

X, LABELS = points(6)


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def write_function(path: Path, body: str, name: str = "load") -> str:
    path.write_text(f"import numpy as np\n\n\ndef {name}():\n    {body}\n")
    return f"{path}:{name}"


def problems_of(config: Mapping[str, Any], candidates: tuple[Candidate, ...], *, needs_labels: bool = False) -> list[Problem]:
    with pytest.raises(InputError) as caught:
        select(DataConfig.model_validate(config), candidates, needs_labels)
    return list(caught.value.problems)


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Candidate, ...]:
    """A candidate with the one input ``x`` (n × 2)."""
    return candidates_with(tmp_path / "models", {"x": floats("n", 2)})


class TestConfig:
    def test_data_come_from_one_place(self) -> None:
        with pytest.raises(ValidationError, match="data come from either a path or a function; give one of them"):
            DataConfig.model_validate({"path": "a.npz", "function": "a:b"})

    @pytest.mark.parametrize("setting", [{"labels": "y"}, {"ids": "key"}, {"inputs": {"x": "points"}}])
    def test_arrays_are_not_named_where_none_come_from_anywhere(self, setting: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match="inputs, labels and ids name arrays of a path or a function; give one"):
            DataConfig.model_validate(setting)

    @pytest.mark.parametrize("origin", [{"path": "a.npz"}, {"function": "a:b"}])
    @pytest.mark.parametrize("setting", [{"shapes": {"n": 1}}, {"ranges": {"x": [0, 1]}}])
    def test_given_samples_have_the_shapes_and_values_that_they_have(
        self, origin: dict[str, str], setting: dict[str, Any]
    ) -> None:
        with pytest.raises(ValidationError, match="shapes and ranges are for generated samples, and these are given"):
            DataConfig.model_validate({**origin, **setting})

    @pytest.mark.parametrize("limits", [[1, 0], [0, float("inf")], [float("nan"), 1]])
    def test_ranges_go_from_a_number_to_a_greater_one(self, limits: list[float]) -> None:
        with pytest.raises(ValidationError, match="write the least value, then the greatest"):
            DataConfig.model_validate({"ranges": {"x": limits}})

    @pytest.mark.parametrize(
        "setting",
        [
            {"shapes": {"n": -1}},
            {"shapes": {"n": 1.5}},
            {"shapes": {"x": []}},
            {"shapes": {"x": [1, -2]}},
            {"ranges": {"x": [1]}},
            {"ranges": {"x": [1, 2, 3]}},
        ],
    )
    def test_shapes_and_ranges_are_what_they_can_be(self, setting: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=next(iter(setting))):
            DataConfig.model_validate(setting)

    @pytest.mark.parametrize("path", ["data.csv", "data", "data.npy", "data.pkl"])
    def test_files_are_of_a_kind_that_is_read(self, path: str) -> None:
        with pytest.raises(ValidationError, match=f"{path} is neither .npz nor .parquet"):
            DataConfig.model_validate({"path": path})

    @pytest.mark.parametrize("setting", ["batch_size", "timing_batch_size"])
    def test_batches_have_at_least_one_sample(self, setting: str) -> None:
        with pytest.raises(ValidationError, match=setting):
            DataConfig.model_validate({"path": "a.npz", setting: 0})


class TestNpz:
    def test_arrays_are_picked_by_the_name_of_the_input(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", x=X, label=LABELS, other=np.zeros(3))

        dataset = select(DataConfig(path=path, labels="label"), classifier, needs_labels=True)

        assert list(dataset.inputs) == ["x"]
        np.testing.assert_array_equal(dataset.inputs["x"], X)
        np.testing.assert_array_equal(dataset.labels, LABELS)
        assert dataset.ids.tolist() == list(range(6))
        assert len(dataset) == 6

    def test_inputs_may_have_other_names_in_the_data(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", points=X)

        dataset = select(DataConfig(path=path, inputs={"x": "points"}), classifier, needs_labels=False)

        np.testing.assert_array_equal(dataset.inputs["x"], X)
        assert dataset.labels is None

    def test_several_columns_are_stacked_on_the_last_axis(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", east=X[:, 0], north=X[:, 1])

        dataset = select(DataConfig(path=path, inputs={"x": ("east", "north")}), classifier, needs_labels=False)

        np.testing.assert_array_equal(dataset.inputs["x"], X)

    def test_one_column_in_a_list_gets_an_axis_of_its_own(self, tmp_path: Path) -> None:
        candidates = candidates_with(tmp_path / "models", {"x": floats(None, 1)})
        path = write_npz(tmp_path / "data.npz", east=X[:, 0])

        dataset = select(DataConfig(path=path, inputs={"x": ("east",)}), candidates, needs_labels=False)

        assert dataset.inputs["x"].shape == (6, 1)

    def test_ids_are_those_that_are_named(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", x=X, key=np.array(list("abcdef")))

        dataset = select(DataConfig(path=path, ids="key"), classifier, needs_labels=False)

        assert dataset.ids.tolist() == list("abcdef")

    def test_candidates_may_take_different_inputs(self, tmp_path: Path) -> None:
        candidates = candidates_with(tmp_path / "models", {"x": floats("n", 2)}, {"rows": floats("n", 2), "x": floats(1, 2)})
        path = write_npz(tmp_path / "data.npz", x=X, rows=X[::-1])

        assert set(select(DataConfig(path=path), candidates, needs_labels=False).inputs) == {"x", "rows"}

    def test_texts_are_taken_by_inputs_of_texts(self, tmp_path: Path) -> None:
        candidates = candidates_with(tmp_path / "models", {"x": (TensorProto.STRING, ("n",))})
        path = write_npz(tmp_path / "data.npz", x=np.array(["Grüße", ""]))

        assert select(DataConfig(path=path), candidates, needs_labels=False).inputs["x"].tolist() == ["Grüße", ""]

    @pytest.mark.parametrize("kind", ["float64", "int8", "uint16", "bool"])
    def test_numbers_of_any_type_are_taken(self, tmp_path: Path, classifier: tuple[Candidate, ...], kind: str) -> None:
        path = write_npz(tmp_path / "data.npz", x=X.astype(kind))

        assert select(DataConfig(path=path), classifier, needs_labels=False).inputs["x"].dtype == kind


class TestParquet:
    def test_columns_are_inputs_labels_and_ids(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_parquet(
            tmp_path / "data.parquet",
            east=X[:, 0],
            north=X[:, 1],
            label=[str(label) for label in LABELS],
            key=list(range(10, 16)),
        )
        config = DataConfig(path=path, inputs={"x": ("east", "north")}, labels="label", ids="key")

        dataset = select(config, classifier, needs_labels=True)

        np.testing.assert_array_equal(dataset.inputs["x"].astype(np.float32), X)
        assert dataset.labels is not None
        assert dataset.labels.tolist() == [str(label) for label in LABELS]
        assert dataset.ids.tolist() == list(range(10, 16))

    def test_a_column_of_lists_is_an_array_of_rows(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_parquet(tmp_path / "data.parquet", x=X.tolist())

        np.testing.assert_array_equal(select(DataConfig(path=path), classifier, needs_labels=False).inputs["x"], X)

    @pytest.mark.parametrize("values", [[1.0, None], [[1.0], [1.0, 2.0]], ["a", None]])
    def test_a_column_with_gaps_is_refused_where_it_is_asked_for(
        self, tmp_path: Path, classifier: tuple[Candidate, ...], values: list[Any]
    ) -> None:
        path = write_parquet(tmp_path / "data.parquet", x=[[1.0, 2.0]] * 2, notes=values)

        assert len(select(DataConfig(path=path), classifier, needs_labels=False)) == 2
        (problem,) = problems_of({"path": path, "labels": "notes"}, classifier)
        assert problem.where == "data.labels"
        assert problem.what.startswith("'notes' has missing values, rows of different lengths")
        assert problem.remedy == "store numbers, or texts, everywhere"


class TestFunction:
    def test_of_a_file_is_called_for_a_dict_of_arrays(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        function = write_function(tmp_path / "samples.py", "return {'x': [[1, 2], [3, 4]], 'label': np.array([0, 1])}")

        dataset = select(DataConfig(function=function, labels="label"), classifier, needs_labels=True)

        assert dataset.inputs["x"].tolist() == [[1, 2], [3, 4]]
        assert dataset.labels is not None
        assert dataset.labels.tolist() == [0, 1]

    def test_of_a_module_is_called_too(
        self, tmp_path: Path, classifier: tuple[Candidate, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_function(tmp_path / "samples_of_a_module.py", "return {'x': np.ones((3, 2))}")
        monkeypatch.syspath_prepend(tmp_path)

        assert len(select(DataConfig(function="samples_of_a_module:load"), classifier, needs_labels=False)) == 3

    def test_may_return_texts_as_objects(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        """As pandas has them; saved as they are, they would be pickles, which nothing here reads."""
        body = "return {'x': np.ones((2, 2)), 'label': np.array(['cat', 'dog'], dtype=object)}"
        function = write_function(tmp_path / "samples.py", body)

        dataset = select(DataConfig(function=function, labels="label"), classifier, needs_labels=True)

        assert dataset.labels is not None
        assert (dataset.labels.tolist(), dataset.labels.dtype.kind) == (["cat", "dog"], "U")
        dataset.save(tmp_path / "data.npz")
        assert np.load(tmp_path / "data.npz", allow_pickle=False)["labels"].tolist() == ["cat", "dog"]

    @pytest.mark.parametrize("values", ["['cat', None]", "['cat', float('nan')]", "[['a'], ['b', 'c']]", "[{}, {}]"])
    def test_that_returns_objects_of_other_kinds_is_refused(
        self, tmp_path: Path, classifier: tuple[Candidate, ...], values: str
    ) -> None:
        body = f"return {{'x': np.ones((2, 2)), 'label': np.array({values}, dtype=object)}}"
        function = write_function(tmp_path / "samples.py", body)

        (problem,) = problems_of({"function": function, "labels": "label"}, classifier)

        assert (problem.where, problem.what[:25]) == ("data.labels", "'label' has missing value")

    @pytest.mark.parametrize(
        ("body", "what", "remedy"),
        [
            ("return [1, 2]", "returned list", "return a dict of arrays"),
            ("return None", "returned NoneType", "return a dict of arrays"),
            ("raise KeyError('x')", "raised KeyError: 'x'", "mend it"),
            ("open('/nowhere')", "raised FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'", "mend it"),
        ],
    )
    def test_that_gives_no_data_is_refused(
        self, tmp_path: Path, classifier: tuple[Candidate, ...], body: str, what: str, remedy: str
    ) -> None:
        function = write_function(tmp_path / "samples.py", body)

        assert problems_of({"function": function}, classifier) == [Problem("data.function", f"{function} {what}", remedy)]

    @pytest.mark.parametrize(
        "reference", ["no_such_module_anywhere:load", "{folder}/none.py:load", "{folder}/samples.py:other"]
    )
    def test_that_is_not_there_is_refused(self, tmp_path: Path, classifier: tuple[Candidate, ...], reference: str) -> None:
        write_function(tmp_path / "samples.py", "return {}")

        (problem,) = problems_of({"function": reference.format(folder=tmp_path)}, classifier)

        assert problem.where == "data.function"
        assert problem.remedy == "write package.module:function or path/to/file.py:function"


class TestFilesThatCannotBeRead:
    @pytest.mark.parametrize("name", ["data.npz", "data.parquet"])
    def test_missing_ones_are_refused(self, tmp_path: Path, classifier: tuple[Candidate, ...], name: str) -> None:
        (problem,) = problems_of({"path": tmp_path / name}, classifier)

        assert problem.where == f"data.path = {tmp_path / name}"
        assert problem.what.startswith("cannot be read")
        assert problem.remedy == "check the path and the file"

    @pytest.mark.parametrize("content", [b"", b"x,label\n1,0\n", b"PK\x03\x04", b"PAR1", b"\x93NUMPY\x01\x00"])
    @pytest.mark.parametrize("name", ["data.npz", "data.parquet"])
    def test_files_of_another_kind_are_refused(
        self, tmp_path: Path, classifier: tuple[Candidate, ...], name: str, content: bytes
    ) -> None:
        (tmp_path / name).write_bytes(content)

        (problem,) = problems_of({"path": tmp_path / name}, classifier)

        assert problem.what.startswith("cannot be read")

    @pytest.mark.parametrize("write", [write_npz, write_parquet])
    def test_truncated_ones_are_refused_wherever_they_were_cut(
        self, tmp_path: Path, classifier: tuple[Candidate, ...], write: Any
    ) -> None:
        path = tmp_path / ("data.npz" if write is write_npz else "data.parquet")
        whole = write(path, x=X.tolist(), label=LABELS).read_bytes()

        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            (problem,) = problems_of({"path": path}, classifier)
            assert problem.where == f"data.path = {path}"

    @pytest.mark.parametrize("compressed", [True, False])
    @pytest.mark.parametrize("flipped", [0x01, 0xFF])
    def test_damaged_ones_are_read_or_refused_and_never_break_the_reader(
        self, tmp_path: Path, classifier: tuple[Candidate, ...], compressed: bool, flipped: int
    ) -> None:
        path = tmp_path / "data.npz"
        (np.savez_compressed if compressed else np.savez)(path, x=X, label=LABELS)
        whole = path.read_bytes()

        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flipped]) + whole[place + 1 :])
            try:
                select(DataConfig(path=path, labels="label"), classifier, needs_labels=True)
            except InputError as error:
                refused = error
        assert refused

    def test_pickles_in_an_archive_are_never_loaded(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", x=np.array([Trap(tmp_path / "sprung")], dtype=object))

        (problem,) = problems_of({"path": path}, classifier)

        assert problem.what == "cannot be read (Object arrays cannot be loaded when allow_pickle=False)"
        assert not (tmp_path / "sprung").exists()

    def test_a_pickle_in_place_of_the_archive_is_never_loaded(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = tmp_path / "data.npz"
        np.save(path.with_suffix(".npy"), np.array([Trap(tmp_path / "sprung")], dtype=object))
        path.with_suffix(".npy").rename(path)

        (problem,) = problems_of({"path": path}, classifier)

        assert problem.what.startswith("cannot be read")
        assert not (tmp_path / "sprung").exists()

    def test_a_single_array_is_refused(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = tmp_path / "data.npz"
        with path.open("wb") as file:
            np.save(file, X)

        (problem,) = problems_of({"path": path}, classifier)

        assert problem.what == "cannot be read (it is a single array, not an .npz file of named arrays)"

    def test_something_else_than_an_array_in_the_archive_is_no_array(
        self, tmp_path: Path, classifier: tuple[Candidate, ...]
    ) -> None:
        with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
            archive.writestr("x", "no array")

        (problem,) = problems_of({"path": tmp_path / "data.npz"}, classifier)

        assert problem.what == "has the shape of a single value, and the model takes ?×2"


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


class TestProblems:
    def problem(self, tmp_path: Path, config: dict[str, Any], signature: Any = None, **arrays: Any) -> Problem:
        """Return the one problem with data of these arrays for a model with the input ``x`` (n × 2) or this signature."""
        candidates = candidates_with(tmp_path / "models", signature or {"x": floats("n", 2)})
        path = write_npz(tmp_path / "data.npz", **arrays)
        (problem,) = problems_of({"path": path, **config}, candidates, needs_labels="labels" in config)
        return problem

    def test_an_array_that_is_not_there(self, tmp_path: Path) -> None:
        expected = Problem("data.inputs.x", "there is no array 'x'", "the data have label, points")
        assert self.problem(tmp_path, {}, points=X, label=LABELS) == expected

    def test_data_without_any_array(self, tmp_path: Path) -> None:
        assert self.problem(tmp_path, {}).remedy == "the data have none"

    def test_labels_that_are_not_there(self, tmp_path: Path) -> None:
        expected = Problem("data.labels", "there is no array 'class'", "the data have label, x")
        assert self.problem(tmp_path, {"labels": "class"}, x=X, label=LABELS) == expected

    def test_labels_that_are_needed_and_not_named(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", x=X, label=LABELS)

        expected = Problem("data.labels", "is not set, and a quality metric needs labels", "name the array of labels")
        assert problems_of({"path": path}, classifier, needs_labels=True) == [expected]
        assert select(DataConfig(path=path), classifier, needs_labels=False).labels is None

    @pytest.mark.parametrize("place", ["labels", "ids"])
    @pytest.mark.parametrize(("values", "count"), [(np.arange(5), 5), (np.arange(7), 7), (np.array(3), 0)])
    def test_a_number_of_entries_that_is_not_that_of_the_inputs(
        self, tmp_path: Path, place: str, values: Any, count: int
    ) -> None:
        expected = Problem(f"data.{place}", f"has {count} entries for 6 samples", "give every array one entry a sample")
        assert self.problem(tmp_path, {place: "more"}, x=X, more=values) == expected

    @pytest.mark.parametrize(
        ("values", "what"),
        [
            (list("abcaba"), "has 'a' 3 times, and an id belongs to one sample"),
            ([0, 1, 2, 3, 4, 4], "has 4 2 times, and an id belongs to one sample"),
            (np.arange(12).reshape(6, 2), "has the shape 6×2, and an id is a single value"),
            ([0.0, 1.0, 2.0, 3.0, 4.0, float("nan")], "holds values that are not finite"),
        ],
    )
    def test_ids_that_do_not_tell_samples_apart(self, tmp_path: Path, values: Any, what: str) -> None:
        expected = Problem("data.ids", what, "name an array of one value a sample, no two alike")
        assert self.problem(tmp_path, {"ids": "key"}, x=X, key=np.array(values)) == expected

    def test_inputs_of_different_lengths(self, tmp_path: Path) -> None:
        signature = {"x": floats("n", 2), "z": floats("n", 2)}

        assert self.problem(tmp_path, {}, signature, x=X, z=X[:5]).what == "has 5 entries for 6 samples"

    @pytest.mark.parametrize(
        ("north", "problem"),
        [
            (X[:5, 1], Problem("data.inputs.x", "is made of columns of the shapes 5 and 6", "name columns of one shape")),
            (X, Problem("data.inputs.x", "is made of columns of the shapes 6 and 6×2", "name columns of one shape")),
        ],
    )
    def test_columns_of_different_shapes(
        self, tmp_path: Path, classifier: tuple[Candidate, ...], north: Any, problem: Problem
    ) -> None:
        path = write_npz(tmp_path / "data.npz", east=X[:, 0], north=north)

        assert problem in problems_of({"path": path, "inputs": {"x": ["east", "north"]}}, classifier)

    def test_no_columns(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", x=X)

        expected = Problem("data.inputs.x", "is made of no columns", "name columns of one shape")
        assert problems_of({"path": path, "inputs": {"x": []}}, classifier) == [expected]

    def test_every_column_that_is_not_there(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", east=X[:, 0])

        problems = problems_of({"path": path, "inputs": {"x": ["east", "north", "up"]}}, classifier)

        assert [(problem.where, problem.what) for problem in problems] == [
            ("data.inputs.x[1]", "there is no array 'north'"),
            ("data.inputs.x[2]", "there is no array 'up'"),
        ]

    def test_inputs_that_no_candidate_has(self, tmp_path: Path, classifier: tuple[Candidate, ...]) -> None:
        path = write_npz(tmp_path / "data.npz", x=X)

        problems = problems_of({"path": path, "inputs": {"z": "x", "a": "x"}}, classifier)

        assert problems == [
            Problem("data.inputs.a", "no candidate has an input 'a'", "the candidates' inputs are x"),
            Problem("data.inputs.z", "no candidate has an input 'z'", "the candidates' inputs are x"),
        ]

    @pytest.mark.parametrize(
        ("array", "found"),
        [
            (X[:, :1], "6×1"),
            (X[:, 0], "6"),
            (X[:, :, None], "6×2×1"),
            (X.T, "2×6"),
        ],
    )
    def test_another_shape_than_the_model_takes(self, tmp_path: Path, array: Any, found: str) -> None:
        expected = Problem(
            "data.inputs.x", f"has the shape {found}, and the model takes ?×2", "reshape the array; axis 0 is the sample"
        )
        assert self.problem(tmp_path, {}, x=array) == expected

    def test_a_single_value(self, tmp_path: Path) -> None:
        assert self.problem(tmp_path, {}, x=np.array(3.0)).what == "has the shape of a single value, and the model takes ?×2"

    @pytest.mark.parametrize("batch", [1, 4, "n", None])
    def test_not_the_size_of_a_fixed_batch(self, tmp_path: Path, batch: Any) -> None:
        candidates = candidates_with(tmp_path / "models", {"x": floats(batch, 2)})
        path = write_npz(tmp_path / "data.npz", x=X)

        assert len(select(DataConfig(path=path), candidates, needs_labels=False)) == 6

    def test_a_shape_that_only_some_candidates_take(self, tmp_path: Path) -> None:
        candidates = candidates_with(
            tmp_path / "models", {"x": floats("n", 3)}, {"x": floats("n", 2)}, {"x": floats("n", None)}
        )
        path = write_npz(tmp_path / "data.npz", x=X)

        (problem,) = problems_of({"path": path}, candidates)

        assert problem.what == "has the shape 6×2, and the model takes ?×3"

    @pytest.mark.parametrize(
        ("array", "kind"),
        [
            (np.array([["a", "b"]] * 6), "<U1"),
            (np.array([[b"a", b"b"]] * 6), "|S1"),
            (X.astype(complex), "complex128"),
            (np.zeros((6, 2), "datetime64[s]"), r"datetime64[s]"),
        ],
    )
    def test_values_that_are_no_numbers(self, tmp_path: Path, array: Any, kind: str) -> None:
        expected = Problem("data.inputs.x", f"holds {kind}, and the model takes float32", "store numbers")
        assert self.problem(tmp_path, {}, x=array) == expected

    @pytest.mark.parametrize("array", [np.arange(3), np.array([b"a"] * 3), np.ones(3, bool)])
    def test_values_that_are_no_texts(self, tmp_path: Path, array: Any) -> None:
        expected = Problem("data.inputs.x", f"holds {array.dtype}, and the model takes str", "store texts")
        assert self.problem(tmp_path, {}, {"x": (TensorProto.STRING, ("n",))}, x=array) == expected

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, tmp_path: Path, value: float) -> None:
        array = X.copy()
        array[3, 1] = value

        expected = Problem("data.inputs.x", "holds values that are not finite", "remove or replace NaN and infinity")
        assert self.problem(tmp_path, {}, x=array) == expected

    @pytest.mark.parametrize(
        ("kind", "array", "number"),
        [
            ("UINT8", np.array([0, 255, 300]), "300"),
            ("UINT8", np.array([0, -1]), "-1"),
            ("INT8", np.array([-129, 0]), "-129"),
            ("INT16", np.array([2**15]), "32768"),
            ("INT32", np.array([2**31]), "2147483648"),
            ("INT64", np.array([2**63], np.uint64), "9223372036854775808"),
            ("INT64", np.array([0.0, 1.5]), "1.5"),
            ("INT64", np.array([2.0**63]), "9.223372036854775808e+18"),
            ("UINT16", np.array([65536.0]), "65536.0"),
            ("UINT32", np.array([-1], np.int8), "-1"),
            ("UINT64", np.array([-1]), "-1"),
            ("BOOL", np.array([0, 2]), "2"),
            ("BOOL", np.array([0.5]), "0.5"),
            ("FLOAT16", np.array([1.0, 1e5]), "100000.0"),
            ("FLOAT16", np.array([10**6]), "1000000"),
            ("FLOAT", np.array([-1e300]), "-1e+300"),
        ],
    )
    def test_values_that_would_be_others_in_the_type_of_the_input(
        self, tmp_path: Path, kind: str, array: Any, number: str
    ) -> None:
        problem = self.problem(tmp_path, {}, {"x": (getattr(TensorProto, kind), ("n",))}, x=array)

        assert (problem.where, problem.remedy) == ("data.inputs.x", "store values that do")
        found, _, dtype = problem.what.removeprefix("holds ").partition(", which does not fit the model's ")
        assert float(found) == float(number)
        assert dtype == {"FLOAT": "float32"}.get(kind, kind.lower())

    def test_candidates_without_inputs(self, tmp_path: Path) -> None:
        path = write_npz(tmp_path / "data.npz", x=X)
        write_constant(tmp_path / "models" / "fixed.onnx")
        candidates = candidates_with(tmp_path / "models", {"x": floats("n", 2)})

        (problem,) = problems_of({"path": path}, candidates)

        assert (problem.where, problem.what) == ("candidates: fixed", "has no inputs, so there is nothing to run it on")

    def test_no_samples(self, tmp_path: Path) -> None:
        assert self.problem(tmp_path, {}, x=X[:0]) == Problem("data", "has no samples", "give at least one")

    def test_all_of_them_at_once(self, tmp_path: Path) -> None:
        candidates = candidates_with(tmp_path / "models", {"x": floats("n", 2), "z": floats("n", 2)})
        path = write_npz(tmp_path / "data.npz", x=X[:, :1], z=X * np.nan, label=LABELS[:4])
        config = {"path": path, "inputs": {"w": "x"}, "labels": "label", "ids": "key"}

        problems = problems_of(config, candidates, needs_labels=True)

        assert [problem.where for problem in problems] == [
            "data.inputs.w",
            "data.inputs.x",
            "data.inputs.z",
            "data.ids",
            "data.labels",
        ]


class TestSavedBytes:
    @given(labels=st.none() | st.lists(st.integers(0, 3), min_size=6, max_size=6))
    def test_depend_on_the_samples_only(self, tmp_path_factory: pytest.TempPathFactory, labels: list[int] | None) -> None:
        folder = tmp_path_factory.mktemp("saved")
        given_labels = None if labels is None else np.array(labels)
        plain = Dataset({"x": X, "z": X[::-1].copy()}, given_labels, np.arange(6))
        other = Dataset(
            {"z": X[::-1], "x": np.asfortranarray(X.astype(">f4"))},
            None if given_labels is None else np.repeat(given_labels, 2)[::2],
            np.arange(12)[::2] // 2,
        )

        plain.save(folder / "plain.npz")
        other.save(folder / "other.npz")

        assert (folder / "plain.npz").read_bytes() == (folder / "other.npz").read_bytes()

    @pytest.mark.parametrize(
        "other",
        [
            Dataset({"x": X + 1}, LABELS, np.arange(6)),
            Dataset({"x": X.astype(np.float64)}, LABELS, np.arange(6)),
            Dataset({"x": X}, LABELS[::-1].copy(), np.arange(6)),
            Dataset({"x": X}, None, np.arange(6)),
            Dataset({"x": X}, LABELS, np.arange(1, 7)),
        ],
    )
    def test_depend_on_every_part_of_them(self, tmp_path: Path, other: Dataset) -> None:
        Dataset({"x": X}, LABELS, np.arange(6)).save(tmp_path / "one.npz")
        other.save(tmp_path / "other.npz")

        assert (tmp_path / "one.npz").read_bytes() != (tmp_path / "other.npz").read_bytes()

    def test_hold_inputs_in_order_of_name_labels_and_ids(self, tmp_path: Path) -> None:
        Dataset({"b": X, "a/0": X[:, 0], "a": X + 1}, LABELS, np.array(list("uvwxyz"))).save(tmp_path / "data.npz")

        with np.load(tmp_path / "data.npz", allow_pickle=False) as file:
            assert set(file.files) == {"input_0", "input_1", "input_2", "labels", "ids"}
            np.testing.assert_array_equal(file["input_0"], X + 1)
            np.testing.assert_array_equal(file["input_1"], X[:, 0])
            np.testing.assert_array_equal(file["input_2"], X)
            assert file["ids"].tolist() == list("uvwxyz")
