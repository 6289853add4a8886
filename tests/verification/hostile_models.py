"""Models and settings that would make a loader read, reserve or run what is not the package's: by name, with the refusal.

Each is put in the place of a good model, with a manifest whose digests are right: what is refused is the content itself.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

DATA = "weights.bin"
VALUES = np.array([1.0, 2.0], np.float32)
# The files to add to the folder of the model, and what it is refused for.
Hostile = tuple[Callable[[], dict[str, bytes]], str]
SETTINGS = {"execution_provider": [["CPUExecutionProvider", {}]], "session_options": {}}


def external(*, dims: tuple[int, ...] = (2,), kind: int = TensorProto.FLOAT, **entries: str) -> TensorProto:
    """Return a tensor that keeps its values in a file, by default as it should."""
    tensor = TensorProto(name="w", dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": DATA, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def external_twice(**entries: str) -> TensorProto:
    """Return a tensor that says something else of where its values are before it says the truth."""
    tensor = external()
    truth = list(tensor.external_data)
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    tensor.external_data.extend(truth)
    return tensor


def inline(dims: tuple[int, ...], kind: int = TensorProto.FLOAT) -> TensorProto:
    return TensorProto(name="w", dims=dims, data_type=kind, raw_data=VALUES.tobytes())


def graph(nodes: list[NodeProto], weights: list[TensorProto]) -> GraphProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    return helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)


def model(nodes: list[NodeProto], weights: list[TensorProto], **changes: Any) -> ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("evil", 1)]
    return helper.make_model(graph(nodes, weights), **{"opset_imports": opsets, "ir_version": 9, **changes})


def add(tensor: TensorProto) -> ModelProto:
    """Return a model that adds `tensor` to its input."""
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor])


def constant(**attributes: Any) -> ModelProto:
    return model([helper.make_node("Constant", [], ["w"], **attributes), helper.make_node("Add", ["x", "w"], ["y"])], [])


def branch(weights: list[TensorProto], nodes: list[NodeProto]) -> GraphProto:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    return helper.make_graph([*nodes, helper.make_node("Add", ["x", "w"], ["y"])], "body", [], [y], weights)


def in_branch(tensor: TensorProto) -> ModelProto:
    """Return a model that hides `tensor` in a branch of an If in a branch of an If."""
    body = branch([tensor], [])
    for _ in range(2):
        node = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=branch([inline((2,))], []))
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
        body = helper.make_graph([node], "body", [], [y])
    return model([node], [numpy_helper.from_array(np.array(True), "yes")])


def in_function(tensor: TensorProto) -> ModelProto:
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("Add", ["x", "w"], ["y"])]
    function = helper.make_function("evil", "F", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])
    return model([helper.make_node("F", ["x"], ["y"], domain="evil")], [], functions=[function])


def in_training(tensor: TensorProto) -> ModelProto:
    made = add(inline((2,)))
    made.training_info.add().initialization.initializer.append(tensor)
    return made


def in_sparse(tensor: TensorProto) -> ModelProto:
    indices = numpy_helper.from_array(np.array([0, 1]), "i")
    made = add(inline((2,)))
    made.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, indices=indices, dims=[2]))
    return made


def files(made: ModelProto | bytes, settings: Any = SETTINGS, **more: bytes) -> dict[str, bytes]:
    """Return the files in the folder of a model: itself, two floats as its data, and its settings."""
    content = made if isinstance(made, bytes) else made.SerializeToString()
    text = settings if isinstance(settings, bytes) else json.dumps(settings).encode()
    return {"model.onnx": content, DATA: VALUES.tobytes(), "inference_config.json": text, **more}


def refers(**entries: Any) -> Callable[[], dict[str, bytes]]:
    return lambda: files(add(external(**entries)))


def settings(session: dict[str, Any] | None = None, provider: dict[str, str] | None = None, **more: Any) -> Callable[[], Any]:
    """Return a builder of a good model with settings that are not."""
    content = {"execution_provider": [["CPUExecutionProvider", provider or {}]], "session_options": session or {}, **more}
    return lambda: files(add(inline((2,))), content)


def text(content: str) -> Callable[[], dict[str, bytes]]:
    return lambda: files(add(inline((2,))), content.encode())


def context(**attributes: Any) -> ModelProto:
    return model([helper.make_node("EPContext", ["x"], ["y"], "context", domain="com.microsoft", **attributes)], [])


OUTSIDE = "which is not a plain path inside the model's folder"
MODELS: dict[str, Hostile] = {
    "data outside": (refers(location="../../../outside.bin"), rf"keeps its data in '\.\./\.\./\.\./outside\.bin', {OUTSIDE}"),
    "data of another model": (refers(location="../a/model.onnx"), rf"keeps its data in '\.\./a/model\.onnx', {OUTSIDE}"),
    "absolute data": (refers(location="/etc/passwd"), f"keeps its data in '/etc/passwd', {OUTSIDE}"),
    "data behind a detour": (refers(location="a/../../b"), rf"keeps its data in 'a/\.\./\.\./b', {OUTSIDE}"),
    "data on a drive": (refers(location="C:\\data"), r"keeps its data in 'C:\\\\data'"),
    "data with a NUL": (refers(location="weights.bin\0x"), r"keeps its data in 'weights\.bin\\x00x'"),
    "data nowhere": (refers(location=""), f"keeps its data in '', {OUTSIDE}"),
    "data in memory": (refers(location="*/_ORT_MEM_ADDR_/*", offset="4096"), "_ORT_MEM_ADDR_/\\*: cannot be read"),
    "data that are missing": (refers(location="other.bin"), "other.bin: cannot be read"),
    "data that are a folder": (
        lambda: files(add(external(location="folder")), **{"folder/file": b""}),
        "folder: is not a regular file",
    ),
    "data beyond the end": (refers(offset="4"), "declares 8 bytes at offset 4 for 8 bytes of values, but weights.bin has 8"),
    "a negative offset": (refers(offset="-8"), "declares 8 bytes at offset -8"),
    "a huge offset": (refers(offset=str(1 << 64)), "declares 8 bytes at offset 18446744073709551616"),
    "a huge length": (refers(length=str(1 << 62)), "declares 4611686018427387904 bytes at offset 0"),
    "a negative length": (refers(length="-1"), "declares -1 bytes at offset 0"),
    "a length that is too short": (refers(length="4"), "declares 4 bytes at offset 0 for 8 bytes"),
    "an offset that is no number": (refers(offset="0x0"), "has an offset or length that is no number"),
    "an offset of ten thousand digits": (refers(offset="9" * 10_000), "has an offset or length that is no number .*4300"),
    "an attribute of the loader": (refers(__class__="evil"), r"has unknown external data keys \['__class__'\]"),
    "two places": (
        lambda: files(add(external_twice(location="../../../outside.bin"))),
        "has an external data key twice, and programs differ in which they take",
    ),
    "a base folder": (refers(basepath="/etc"), r"has unknown external data keys \['basepath'\]"),
    "external data of huge dimensions": (
        refers(dims=(1 << 40, 1 << 20)),
        "for 4611686018427387904 bytes of values",
    ),
    "external data of negative dimensions": (refers(dims=(-2,)), "declares -8 bytes"),
    "external data of an unknown type": (refers(kind=99), "has the element type 99, which ONNX does not define"),
    "huge dimensions": (
        lambda: files(add(inline((1 << 40,)))),
        "tensor 'w': has dimensions for 4398046511104 bytes of values, and holds 8",
    ),
    "huge dimensions in a constant": (
        lambda: files(constant(value=inline((1 << 50,)))),
        "has dimensions for 4503599627370496 bytes of values, and holds 8",
    ),
    "external data in a constant": (
        lambda: files(constant(value=external(location="../constant"))),
        r"keeps its data in '\.\./constant'",
    ),
    "external data in a branch": (lambda: files(in_branch(external(location="../branch"))), r"keeps its data in '\.\./branch'"),
    "external data in a function": (
        lambda: files(in_function(external(location="../function"))),
        r"keeps its data in '\.\./function'",
    ),
    "external data for training": (
        lambda: files(in_training(external(location="../training"))),
        r"keeps its data in '\.\./training'",
    ),
    "external data of a sparse tensor": (
        lambda: files(in_sparse(external(location="../sparse"))),
        r"keeps its data in '\.\./sparse'",
    ),
    "a context in a file": (
        lambda: files(context(embed_mode=0, ep_cache_context="../evil.bin")),
        "node 'context' loads a compiled provider context from a file beside the model",
    ),
    "an operator of a library": (
        lambda: files(model([helper.make_node("Run", ["x"], ["y"], domain="evil")], []), **{"evil.so": b"\x7fELF"}),
        r"model\.onnx does not load on CPUExecutionProvider: .*evil:Run",
    ),
    "a truncated model": (lambda: files(add(inline((2,))).SerializeToString()[:-30]), "or is truncated"),
    "a model that is none": (lambda: files(b"PK\3\4 evil"), "is not an ONNX model"),
    "a pickle": (lambda: files(b"\x80\x04cos\nsystem\n(S'id'\ntR."), r"model\.onnx: is not an ONNX model"),
}
ENTRIES: dict[str, Hostile] = {
    "a library of operators": (settings({"custom_ops_library": "evil.so"}), "session_options.custom_ops_library: Extra inputs"),
    "a library among other settings": (settings(custom_op_libraries=["evil.so"]), "custom_op_libraries: Extra inputs"),
    "a profile": (settings({"enable_profiling": True}), "session_options.enable_profiling: Extra inputs"),
    "a model that would be written": (
        settings({"optimized_model_filepath": "/tmp/evil"}),
        "session_options.optimized_model_filepath: Extra inputs",
    ),
    "a context that would be written": (
        settings({"extra_session_config": {"ep.context_file_path": "evil"}}),
        r"has the session configuration entry 'ep\.context_file_path', which can name a file to read or write",
    ),
    "weights from another folder": (
        settings({"extra_session_config": {"session.model_external_initializers_file_folder_path": "evil"}}),
        r"entry 'session\.model_external_initializers_file_folder_path'",
    ),
    "weights that would be written": (
        settings({"extra_session_config": {"session.optimized_model_external_initializers_file_name": "evil"}}),
        r"entry 'session\.optimized_model_external_initializers_file_name'",
    ),
    "any other path": (
        settings({"extra_session_config": {"session.later": "../../evil"}}),
        r"entry 'session\.later', which can name a file",
    ),
    "a provider's library": (
        settings(provider={"backend_path": "./evil.so"}),
        r"has the provider option 'backend_path', which names a file: '\./evil\.so'",
    ),
    "a provider's folder": (settings(provider={"cache": "C:\\evil"}), "has the provider option 'cache', which names a file"),
    "a library beside the plug-in's": (
        settings(provider={"backend_path": "{plugin}/../evil.so"}),
        r"which names a file: '\{plugin\}/\.\./evil\.so'",
    ),
    "an option of threads below zero": (settings({"intra_op_num_threads": -1}), "session_options.intra_op_num_threads: Input"),
    "a key twice": (
        text('{"execution_provider": [["CPUExecutionProvider", {}]], "session_options": {}, "session_options": {}}'),
        r"inference_config\.json cannot be read: it has the key 'session_options' twice",
    ),
    "deep JSON": (text('{"execution_provider": ' + "[" * 100_000), "cannot be read: Invalid JSON: recursion limit exceeded"),
    "no number": (
        text('{"execution_provider": NaN, "session_options": {}}'),
        "execution_provider: Input should be a valid array",
    ),
    "no settings": (
        lambda: {name: content for name, content in files(add(inline((2,)))).items() if name != "inference_config.json"},
        r"inference_config\.json is missing",
    ),
}
