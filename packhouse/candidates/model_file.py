"""Look into an ONNX file without loading its weights or trusting what it says.

External data is the part of an ONNX file that can point anywhere. Every reference is checked before any loader sees the
model: it must stay in the model's folder, name a regular file that is not a link, and lie within that file.
"""

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError

from packhouse.errors import InputError
from packhouse.records import Record

EXTERNAL_DATA_KEYS = {"location", "offset", "length", "checksum"}
RE_EXPORT = "export the model again"


class TensorInfo(Record):
    """An input or output: name, numpy type name, and shape with numbers, names or None for what is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class OnnxFacts:
    """What a model file says of itself: signature, operator set, and the files that hold its weights."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    external_data: tuple[str, ...]


def inspect(path: Path) -> OnnxFacts:
    """Read and check the ONNX file at `path`.

    Raises:
        InputError: the file is no ONNX model, is truncated, or refers to data that it must not refer to.
    """
    require_regular_file(path)
    model = _parse(path)
    for node in _nodes(model):
        if node.op_type == "EPContext" and not _attribute(node, "embed_mode", 1):
            raise InputError.at(
                str(path),
                f"node {node.name!r} loads a compiled provider context from a file beside the model",
                "export it with the context embedded (ep.context_embed_mode = 1)",
            )
    external = {_check_external(path, tensor) for tensor in _tensors(model) if tensor.data_location == tensor.EXTERNAL}
    weights = {initializer.name for initializer in model.graph.initializer}
    return OnnxFacts(
        inputs=tuple(_tensor_info(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_tensor_info(value) for value in model.graph.output),
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        external_data=tuple(sorted(external)),
    )


def require_regular_file(path: Path) -> os.stat_result:
    """Return the file's status, or raise InputError where it is missing, a link, or not a regular file."""
    try:
        status = path.lstat()
    except OSError as error:
        raise InputError.at(str(path), f"cannot be read ({error.strerror})", "check the path") from error
    if stat.S_ISLNK(status.st_mode):
        raise InputError.at(str(path), "is a symbolic link", "put a copy of the file itself there")
    if not stat.S_ISREG(status.st_mode):
        raise InputError.at(str(path), "is not a regular file", "put the file itself there")
    if status.st_nlink > 1:
        raise InputError.at(
            str(path),
            f"is hard-linked {status.st_nlink} times, so it can change under another name",
            "put a copy there",
        )
    return status


def _parse(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise InputError.at(
            str(path), "is not an ONNX model, or is truncated (protobuf cannot be decoded)", RE_EXPORT
        ) from error
    if not model.ir_version or not model.opset_import or not (model.graph.node and model.graph.output):
        raise InputError.at(str(path), "is not an ONNX model, or is truncated (no graph, outputs or operator set)", RE_EXPORT)
    return model


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    stack = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            stack.extend(attribute.g.node)
            stack.extend(inner for graph in attribute.graphs for inner in graph.node)


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for training in model.training_info:
        yield training.initialization
        yield training.algorithm
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield sparse.values
                yield sparse.indices


def _check_external(path: Path, tensor: onnx.TensorProto) -> str:
    """Return the location of the tensor's data, relative to the model, or raise InputError."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where = f"{path}, tensor {tensor.name!r}"
    if unknown := set(entries) - EXTERNAL_DATA_KEYS:
        raise InputError.at(where, f"has unknown external data keys {sorted(unknown)}", RE_EXPORT)
    location = entries.get("location", "")
    pure = PurePosixPath(location)
    if not location or pure.is_absolute() or ".." in pure.parts or set(location) & set("\\:\0") or str(pure) != location:
        raise InputError.at(
            where,
            f"keeps its data in {location!r}, which is not a plain path inside the model's folder",
            "save the model with its external data beside it",
        )
    for parent in list(pure.parents)[:-1]:
        if (path.parent / parent).is_symlink():
            raise InputError.at(str(path.parent / parent), "is a symbolic link", "put the folder itself there")
    available = require_regular_file(path.parent / location).st_size
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError as error:
        raise InputError.at(where, f"has an offset or length that is no number ({error})", RE_EXPORT) from error
    needed = _size_bytes(tensor)
    length = length or needed
    if offset < 0 or length < 0 or length < needed or offset + length > available:
        raise InputError.at(
            where,
            f"declares {length} bytes at offset {offset} for {needed} bytes of values, but {location} has {available}",
            "copy the data file again, it may be truncated",
        )
    return str(location)


def _size_bytes(tensor: onnx.TensorProto) -> int:
    bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    if name in ("INT4", "UINT4", "FLOAT4E2M1"):
        bits = 4
    elif name in ("INT2", "UINT2"):
        bits = 2
    return math.ceil(math.prod(tensor.dims) * bits / 8)


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.STRING:
        dtype = "str"
    elif tensor.elem_type:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    else:
        dtype = "unknown"
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim)
    return TensorInfo(name=value.name, dtype=dtype, shape=shape)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)
