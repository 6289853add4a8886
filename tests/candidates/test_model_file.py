"""Looking into ONNX files: what is found out, and the ways in which a file is refused before anything loads it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from packhouse.candidates.model_file import OnnxFacts, TensorInfo, inspect
from packhouse.errors import InputError, Problem
from tests.classifiers import write_classifier

DATA = "weights.bin"
NOBODY = 65534
VALUES = np.array([1.0, 2.0], np.float32)


def refusal(path: Path) -> Problem:
    """Return the one problem that the file at `path` is refused for."""
    with pytest.raises(InputError) as caught:
        inspect(path)
    (problem,) = caught.value.problems
    return problem


def outcome(path: Path) -> OnnxFacts | tuple[Problem, ...]:
    """Return what is found out about the file at `path`, or the problems that it is refused for."""
    try:
        return inspect(path)
    except InputError as error:
        return error.problems


@contextmanager
def as_nobody() -> Iterator[Path]:
    """Give a folder of its own to a user without the rights of root, and be that user meanwhile."""
    folder, user = Path(tempfile.mkdtemp(prefix="packhouse-")), os.geteuid()
    folder.chmod(0o777)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, time of change and content of a folder and everything in it."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
    }


def external(name: str = "w", dims: Sequence[int] = (2,), data_type: int = TensorProto.FLOAT, **entries: Any) -> TensorProto:
    """Return a tensor whose values lie in a file, by default the first two floats in `DATA`."""
    tensor = TensorProto(name=name, dims=dims, data_type=data_type, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": DATA, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def value(name: str, kind: int = TensorProto.FLOAT, shape: Sequence[int | str | None] = (2,)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def graph_of(*nodes: onnx.NodeProto, weights: Sequence[TensorProto] = (), name: str = "g") -> GraphProto:
    return helper.make_graph(list(nodes), name, [value("x")], [value("y")], list(weights))


def save(path: Path, graph: GraphProto, functions: Sequence[onnx.FunctionProto] = (), opsets: Sequence[str] = ("",)) -> Path:
    """Write a model, without any of onnx's own checks, and beside it the two floats of `VALUES` as `DATA`."""
    domains = [*opsets, *(function.domain for function in functions)]
    model = helper.make_model(
        graph,
        functions=list(functions),
        opset_imports=[helper.make_opsetid(domain, 17 if domain in ("", "ai.onnx") else 3) for domain in domains],
        ir_version=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    (path.parent / DATA).write_bytes(VALUES.tobytes())
    return path


def add(weights: str = "w", output: str = "y") -> onnx.NodeProto:
    return helper.make_node("Add", ["x", weights], [output])


def with_tensor(path: Path, tensor: TensorProto) -> Path:
    """Write a model that adds `tensor` to its input."""
    return save(path, graph_of(add(tensor.name), weights=[tensor]))


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], value=tensor)


def branch(tensor: TensorProto, *, as_constant: bool = False) -> GraphProto:
    """Return the body of an If that adds `tensor` to x."""
    nodes = [constant(tensor)] if as_constant else []
    return helper.make_graph([*nodes, add()], "body", [], [value("y")], [] if as_constant else [tensor])


def in_if(tensor: TensorProto, *, as_constant: bool = False) -> ModelProto:
    plain = branch(numpy_helper.from_array(VALUES, "w"))
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch(tensor, as_constant=as_constant), else_branch=plain)
    return helper.make_model(graph_of(node, weights=[numpy_helper.from_array(np.array(True), "yes")]))


def in_loop(tensor: TensorProto) -> ModelProto:
    """Return a model that adds in the branch of an If in the body of a Loop."""
    inner = helper.make_node("If", ["go"], ["y"], then_branch=branch(tensor), else_branch=branch(tensor))
    body = helper.make_graph(
        [inner, helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["y"], ["next"])],
        "body",
        [value("i", TensorProto.INT64, ()), value("go", TensorProto.BOOL, ()), value("before")],
        [value("on", TensorProto.BOOL, ()), value("next")],
    )
    start = [numpy_helper.from_array(np.array(1), "count"), numpy_helper.from_array(np.array(True), "yes")]
    return helper.make_model(
        graph_of(helper.make_node("Loop", ["count", "yes", "x"], ["y"], body=body), weights=start),
    )


def in_function(tensor: TensorProto) -> ModelProto:
    function = helper.make_function("local", "F", ["x"], ["y"], [constant(tensor), add()], [helper.make_opsetid("", 17)])
    return helper.make_model(
        graph_of(helper.make_node("F", ["x"], ["y"], domain="local")),
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
    )


def in_default_of_function(tensor: TensorProto) -> ModelProto:
    """Return a model whose function has `tensor` as what its attribute is where the caller gives none."""
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.add(name="value", ref_attr_name="k", type=AttributeProto.TENSOR)
    model = in_function(tensor)
    function = model.functions[0]
    del function.node[0]
    function.node.insert(0, node)
    function.attribute_proto.append(helper.make_attribute("k", tensor))
    return model


PLACES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": lambda tensor: helper.make_model(graph_of(add(), weights=[tensor])),
    "constant": lambda tensor: helper.make_model(graph_of(constant(tensor), add())),
    "if": in_if,
    "constant in if": lambda tensor: in_if(tensor, as_constant=True),
    "if in loop": in_loop,
    "function": in_function,
    "default of function": in_default_of_function,
}
every_place = pytest.mark.parametrize("place", PLACES)


def save_in(path: Path, place: str, tensor: TensorProto) -> Path:
    model = PLACES[place](tensor)
    model.ir_version = 9
    if not any(entry.domain == "local" for entry in model.opset_import):
        del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid("", 17))
    path.write_bytes(model.SerializeToString())
    (path.parent / DATA).write_bytes(VALUES.tobytes())
    return path


class TestFacts:
    def test_signature_and_operator_set_are_those_of_the_graph(self, tmp_path: Path) -> None:
        facts = inspect(write_classifier(tmp_path / "a.onnx"))

        assert facts == OnnxFacts(
            inputs=(TensorInfo(name="x", dtype="float32", shape=("n", 2)),),
            outputs=(TensorInfo(name="y", dtype="float32", shape=("n", 3)),),
            opset=17,
            external_data=(),
        )

    @pytest.mark.parametrize(
        ("kind", "dtype"),
        [
            (TensorProto.FLOAT16, "float16"),
            (TensorProto.DOUBLE, "float64"),
            (TensorProto.INT64, "int64"),
            (TensorProto.UINT8, "uint8"),
            (TensorProto.BOOL, "bool"),
            (TensorProto.STRING, "str"),
            (TensorProto.BFLOAT16, "bfloat16"),
            (TensorProto.INT4, "int4"),
        ],
    )
    def test_types_have_their_numpy_names(self, tmp_path: Path, kind: int, dtype: str) -> None:
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value("x", kind)], [value("y", kind)])

        assert [info.dtype for info in inspect(save(tmp_path / "a.onnx", graph)).inputs] == [dtype]

    def test_an_input_that_is_no_tensor_has_no_known_type(self, tmp_path: Path) -> None:
        sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
        graph = helper.make_graph([helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)], "g", [sequence], [value("y")])

        assert inspect(save(tmp_path / "a.onnx", graph)).inputs == (TensorInfo(name="x", dtype="unknown", shape=()),)

    def test_dimensions_are_numbers_names_or_unknown(self, tmp_path: Path) -> None:
        shape = (1, "rows", None, 0)
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "g",
            [value("x", shape=shape)],
            [value("y", shape=())],
        )

        facts = inspect(save(tmp_path / "a.onnx", graph))

        assert (facts.inputs[0].shape, facts.outputs[0].shape) == (shape, ())

    def test_weights_that_an_old_model_lists_as_inputs_are_none(self, tmp_path: Path) -> None:
        graph = graph_of(add(), weights=[numpy_helper.from_array(VALUES, "w")])
        graph.input.insert(0, value("w"))

        assert [info.name for info in inspect(save(tmp_path / "old.onnx", graph)).inputs] == ["x"]

    def test_operator_set_is_that_of_the_default_domain_wherever_it_is_listed(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.onnx", graph_of(helper.make_node("Neg", ["x"], ["y"])), opsets=["ai.onnx.ml", ""])

        assert inspect(path).opset == 17

    def test_operator_set_of_a_model_with_only_other_operators_is_zero(self, tmp_path: Path) -> None:
        scaler = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", scale=[2.0], offset=[0.0])

        assert inspect(save(tmp_path / "a.onnx", graph_of(scaler), opsets=["ai.onnx.ml"])).opset == 0

    @every_place
    def test_external_data_are_found_wherever_onnxruntime_would_read_them(self, tmp_path: Path, place: str) -> None:
        path = save_in(tmp_path / "a.onnx", place, external())

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        assert session.run(None, {"x": np.zeros(2, np.float32)})[0].tolist() == VALUES.tolist()
        assert inspect(path).external_data == (DATA,)

    def test_external_data_of_a_sparse_weight_are_found(self, tmp_path: Path) -> None:
        indices = numpy_helper.from_array(np.array([0, 1]), "i")
        graph = graph_of(add())
        graph.sparse_initializer.append(helper.make_sparse_tensor(external(), indices, [2]))

        assert inspect(save(tmp_path / "a.onnx", graph)).external_data == (DATA,)

    def test_external_data_files_are_listed_once_in_order_of_name(self, tmp_path: Path) -> None:
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "b").write_bytes(VALUES.tobytes())
        weights = [external("v"), external("w", location="deep/er/b"), external("u", dims=[1], offset="4", length="4")]

        path = save(tmp_path / "a.onnx", graph_of(add(), weights=weights))

        assert inspect(path).external_data == ("deep/er/b", DATA)

    @pytest.mark.parametrize(
        ("kind", "dims", "needed"),
        [
            (TensorProto.INT4, [3], 2),
            (TensorProto.UINT4, [2, 2], 2),
            (TensorProto.FLOAT4E2M1, [5], 3),
            (TensorProto.INT2, [5], 2),
            (TensorProto.FLOAT8E4M3FN, [5], 5),
            (TensorProto.BFLOAT16, [3], 6),
            (TensorProto.DOUBLE, [], 8),
            (TensorProto.FLOAT, [0, 7], 0),
        ],
    )
    def test_size_of_external_values_is_that_of_their_packed_type(
        self, tmp_path: Path, kind: int, dims: list[int], needed: int
    ) -> None:
        path = with_tensor(tmp_path / "a.onnx", external(dims=dims, data_type=kind))

        (tmp_path / DATA).write_bytes(bytes(needed))
        assert inspect(path).external_data == (DATA,)
        if needed:
            (tmp_path / DATA).write_bytes(bytes(needed - 1))
            assert f"for {needed} bytes of values" in refusal(path).what

    @pytest.mark.parametrize("is_accepted", [True, False])
    def test_inspection_leaves_the_folder_as_it_was(self, tmp_path: Path, is_accepted: bool) -> None:
        path = write_classifier(tmp_path / "a.onnx", external=DATA)
        if not is_accepted:
            os.truncate(tmp_path / DATA, 1)
        before = tree(tmp_path)

        assert isinstance(outcome(path), OnnxFacts) is is_accepted
        assert tree(tmp_path) == before


class TestExternalDataAreRefused:
    @pytest.mark.parametrize(
        "location",
        [
            "../x",
            "..",
            "/etc/hostname",
            "deep\\x",
            "..\\x",
            "deep/../x",
            "./x",
            "deep//x",
            "x/",
            "x\0y",
            "C:x",
            "",
        ],
    )
    @every_place
    def test_where_the_location_is_no_plain_path_in_the_folder(self, tmp_path: Path, place: str, location: str) -> None:
        folder = tmp_path / "model"
        (folder / "deep").mkdir(parents=True)
        for name in ("x", "deep/x", "deep\\x", "..\\x", "C:x", "../x"):
            (folder / name).write_bytes(VALUES.tobytes())
        path = save_in(folder / "a.onnx", place, external(location=location))

        problem = refusal(path)

        assert problem.where == f"{path}, tensor 'w'"
        assert problem.what == f"keeps its data in {location!r}, which is not a plain path inside the model's folder"
        assert problem.remedy == "save the model with its external data beside it"

    def test_that_say_twice_where_they_are(self, tmp_path: Path) -> None:
        tensor = external()
        tensor.external_data.add(key="location", value="../x")

        assert "has an external data key twice" in refusal(with_tensor(tmp_path / "a.onnx", tensor)).what

    @pytest.mark.parametrize(
        ("location", "reason"),
        [
            ("missing.bin", "No such file or directory"),
            ("missing/w.bin", "No such file or directory"),
            ("a.onnx/w.bin", "Not a directory"),
            ("w" * 300, "File name too long"),
            ("w" * 300 + "/w.bin", "File name too long"),
            ("deep/" * 3000 + "w.bin", "File name too long"),
        ],
    )
    def test_where_the_file_is_not_there(self, tmp_path: Path, location: str, reason: str) -> None:
        path = with_tensor(tmp_path / "a.onnx", external(location=location))

        assert refusal(path) == Problem(str(tmp_path / location), f"cannot be read ({reason})", "check the path")

    def test_where_the_file_is_a_link_even_to_a_neighbour(self, tmp_path: Path) -> None:
        path = with_tensor(tmp_path / "a.onnx", external(location="link.bin"))
        (tmp_path / "link.bin").symlink_to(DATA)

        expected = Problem(str(tmp_path / "link.bin"), "is a symbolic link", "put a copy of the file itself there")
        assert refusal(path) == expected

    @pytest.mark.parametrize("linked", ["deep", "deep/er"])
    def test_where_a_folder_on_the_way_is_a_link(self, tmp_path: Path, linked: str) -> None:
        outside = tmp_path / "outside" / "er"
        outside.mkdir(parents=True)
        (outside / DATA).write_bytes(VALUES.tobytes())
        path = with_tensor(tmp_path / "model" / "a.onnx", external(location=f"deep/er/{DATA}"))
        link = path.parent / linked
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(outside if linked == "deep/er" else outside.parent)

        assert refusal(path) == Problem(str(link), "is a symbolic link", "put the folder itself there")

    def test_where_the_file_is_hard_linked(self, tmp_path: Path) -> None:
        path = with_tensor(tmp_path / "a.onnx", external())
        (tmp_path / "other.bin").hardlink_to(tmp_path / DATA)

        problem = refusal(path)

        assert (problem.where, problem.remedy) == (str(tmp_path / DATA), "put a copy there")
        assert problem.what == "is hard-linked 2 times, so it can change under another name"

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
    def test_where_the_file_is_no_regular_one(self, tmp_path: Path, make: Callable[[Path], None]) -> None:
        path = with_tensor(tmp_path / "a.onnx", external(location="odd"))
        make(tmp_path / "odd")

        assert refusal(path) == Problem(str(tmp_path / "odd"), "is not a regular file", "put the file itself there")

    @pytest.mark.parametrize(
        "entries",
        [
            {"offset": "4"},
            {"offset": "8", "length": "8"},
            {"offset": "4", "length": "8"},
            {"length": "9"},
            {"length": "4"},
            {"offset": "-4"},
            {"offset": "-4", "length": "8"},
            {"length": "-8"},
            {"offset": "99999999999999999999999"},
            {"length": "99999999999999999999999"},
        ],
    )
    def test_where_they_lie_outside_the_file_or_are_too_few(self, tmp_path: Path, entries: dict[str, Any]) -> None:
        path = with_tensor(tmp_path / "a.onnx", external(**entries))

        problem = refusal(path)

        assert problem.where == f"{path}, tensor 'w'"
        assert problem.what == (
            f"declares {entries.get('length', '8')} bytes at offset {entries.get('offset', '0')} for 8 bytes of values, "
            f"but {DATA} has 8"
        )
        assert problem.remedy == "copy the data file again, it may be truncated"

    @pytest.mark.parametrize("number", ["four", "0x4", "1e1", "4.0", "9" * 5000])
    @pytest.mark.parametrize("key", ["offset", "length"])
    def test_where_a_position_is_no_number(self, tmp_path: Path, key: str, number: str) -> None:
        entries: dict[str, Any] = {key: number}
        path = with_tensor(tmp_path / "a.onnx", external(**entries))

        problem = refusal(path)

        assert problem.where == f"{path}, tensor 'w'"
        assert "has an offset or length that is no number" in problem.what
        assert problem.remedy == "export the model again"

    def test_where_they_have_keys_that_could_mean_anything(self, tmp_path: Path) -> None:
        path = with_tensor(tmp_path / "a.onnx", external(basepath="/etc", location="hostname"))

        expected = Problem(f"{path}, tensor 'w'", "has unknown external data keys ['basepath']", "export the model again")
        assert refusal(path) == expected

    def test_where_their_type_is_none_of_onnx(self, tmp_path: Path) -> None:
        path = with_tensor(tmp_path / "a.onnx", external(data_type=99))

        problem = refusal(path)

        assert problem.where == f"{path}, tensor 'w'"
        assert problem.what == "has the element type 99, which ONNX does not define"

    @pytest.mark.parametrize("wrong", [b"location", DATA.encode()])
    def test_where_a_text_is_not_utf_8(self, tmp_path: Path, wrong: bytes) -> None:
        path = with_tensor(tmp_path / "a.onnx", external())
        path.write_bytes(path.read_bytes().replace(wrong, b"\xff" + wrong[1:]))

        problem = refusal(path)

        assert problem.where == f"{path}, tensor 'w'"
        assert problem.what.endswith("which is not UTF-8")
        assert problem.remedy == "export the model again"


class TestModelsAreRefused:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "no graph, outputs or operator set"),
            (b"weights: 1, 2, 3\n", "protobuf cannot be decoded"),
            (b"PK\x03\x04 an archive", "protobuf cannot be decoded"),
            (bytes(100), "protobuf cannot be decoded"),
            (ModelProto(ir_version=9).SerializeToString(), "no graph, outputs or operator set"),
        ],
    )
    @pytest.mark.parametrize("name", ["a.onnx", "a.json", "a.onnxtxt", "a.textproto", "a"])
    def test_which_are_something_else(self, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
        path = tmp_path / name
        path.write_bytes(content)

        expected = Problem(str(path), f"is not an ONNX model, or is truncated ({reason})", "export the model again")
        assert refusal(path) == expected

    @pytest.mark.parametrize("name", ["a.json", "a.onnxtxt", "a.textproto", "a"])
    def test_only_for_what_they_are_and_not_for_their_name(self, tmp_path: Path, name: str) -> None:
        assert inspect(write_classifier(tmp_path / "a.onnx").rename(tmp_path / name)).opset == 17

    @pytest.mark.parametrize("missing", ["node", "output"])
    def test_which_compute_nothing(self, tmp_path: Path, missing: str) -> None:
        graph = graph_of(add(), weights=[numpy_helper.from_array(VALUES, "w")])
        graph.ClearField(missing)

        assert "no graph, outputs or operator set" in refusal(save(tmp_path / "a.onnx", graph)).what

    def test_which_do_not_say_their_operator_set(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.onnx", graph_of(helper.make_node("Neg", ["x"], ["y"])), opsets=["ai.onnx.ml"])

        expected = Problem(str(path), "does not say which ONNX operator set it uses, or is truncated", "export the model again")
        assert refusal(path) == expected

    def test_which_are_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "a.onnx"

        assert refusal(path) == Problem(str(path), "cannot be read (No such file or directory)", "check the path")

    def test_which_are_links(self, tmp_path: Path) -> None:
        path = write_classifier(tmp_path / "a.onnx")
        (tmp_path / "b.onnx").symlink_to(path)

        expected = Problem(str(tmp_path / "b.onnx"), "is a symbolic link", "put a copy of the file itself there")
        assert refusal(tmp_path / "b.onnx") == expected

    def test_which_are_hard_linked(self, tmp_path: Path) -> None:
        path = write_classifier(tmp_path / "a.onnx")
        (tmp_path / "b.onnx").hardlink_to(path)

        assert refusal(path).what == "is hard-linked 2 times, so it can change under another name"

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
    def test_which_are_no_regular_files(self, tmp_path: Path, make: Callable[[Path], None]) -> None:
        make(tmp_path / "a.onnx")

        assert refusal(tmp_path / "a.onnx").what == "is not a regular file"

    def test_which_may_not_be_read(self) -> None:
        with as_nobody() as folder:
            path = write_classifier(folder / "a.onnx")
            path.chmod(0)

            assert refusal(path) == Problem(str(path), "cannot be read (Permission denied)", "check the path")

    @pytest.mark.parametrize("depth", ["graph", "if", "function"])
    @pytest.mark.parametrize("mode", [0, 1, None])
    def test_which_load_a_compiled_context_from_a_file_beside_them(self, tmp_path: Path, depth: str, mode: int | None) -> None:
        attributes: dict[str, Any] = {} if mode is None else {"embed_mode": mode}
        node = helper.make_node(
            "EPContext", ["x"], ["y"], "engine", domain="com.microsoft", ep_cache_context="../engine.bin", **attributes
        )
        functions = []
        if depth == "function":
            functions = [helper.make_function("local", "F", ["x"], ["y"], [node], [helper.make_opsetid("com.microsoft", 1)])]
            node = helper.make_node("F", ["x"], ["y"], domain="local")
        elif depth == "if":
            body = helper.make_graph([node], "body", [], [value("y")])
            node = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)
        weights = [numpy_helper.from_array(np.array(True), "yes")]
        path = save(tmp_path / "a.onnx", graph_of(node, weights=weights), functions, ["", "com.microsoft"])

        if mode == 0:
            problem = refusal(path)
            assert problem.where == str(path)
            assert problem.what == "node 'engine' loads a compiled provider context from a file beside the model"
            assert problem.remedy == "export it with the context embedded (ep.context_embed_mode = 1)"
        else:
            assert inspect(path).external_data == ()


def two_operator_sets() -> bytes:
    nodes = [
        helper.make_node("Scaler", ["x"], ["h"], domain="ai.onnx.ml", scale=[2.0], offset=[0.0]),
        helper.make_node("Neg", ["h"], ["y"]),
    ]
    model = helper.make_model(
        graph_of(*nodes), opset_imports=[helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)]
    )
    model.metadata_props.add(key="author", value="somebody")
    return model.SerializeToString()


@pytest.mark.parametrize("model", ["classifier", "with external data", "in a loop", "with two operator sets"])
def test_a_truncated_model_is_refused_wherever_it_was_cut(tmp_path: Path, model: str) -> None:
    path = tmp_path / "a.onnx"
    if model == "with two operator sets":
        path.write_bytes(two_operator_sets())
    elif model == "in a loop":
        save_in(path, "if in loop", external())
    else:
        write_classifier(path, external=DATA if model == "with external data" else None)
    whole, facts = path.read_bytes(), inspect(path)

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = outcome(path)
        if isinstance(found, OnnxFacts):  # only what describes the model stands behind its graph
            assert found == facts
            assert onnx.load_from_string(whole[:length]).graph == onnx.load_from_string(whole).graph
        else:
            assert [problem.where.startswith(str(path)) for problem in found] == [True]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_in(tmp_path_factory.mktemp("damaged") / "a.onnx", "if in loop", external(offset="0", length="8"))


@settings(max_examples=300, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_model_is_read_or_refused_and_never_breaks_the_reader(victim: Path, places: list[tuple[int, int]]) -> None:
    whole = bytearray(victim.read_bytes())
    for place, byte in places:
        whole[place % len(whole)] = byte
    damaged = victim.with_name("damaged.onnx")
    damaged.write_bytes(whole)

    found = outcome(damaged)
    if isinstance(found, OnnxFacts):
        assert set(found.external_data) <= {DATA}
    else:
        assert all(problem.what and problem.remedy for problem in found)
