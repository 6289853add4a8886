"""Look into an ONNX file without loading its weights or trusting what it says.

External data is the part of an ONNX file that can point anywhere. Every reference is checked before any loader sees the
model: it must stay in the model's folder, name a regular file that is not a link, and lie within that file.
"""

import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from packhouse.errors import InputError
from packhouse.records import Record

DEFAULT_DOMAIN = ("", "ai.onnx")
EXTERNAL_DATA_KEYS = {"location", "offset", "length", "checksum"}
RE_EXPORT = "export the model again"
MAX_PROTOBUF_BYTES = (2 << 30) - 1  # what a protobuf can hold; larger models keep their weights in external data
SUB_BYTE_BITS = {"FLOAT4E2M1": 4, "INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2}


class TensorInfo(Record):
    """An input or output: name, numpy type name, and shape with numbers, names or None for what is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def with_sizes(self, sizes: Mapping[str, int]) -> Self:
        """Return it with the dimensions fixed whose names are among `sizes`."""
        shape = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in self.shape)
        return self.model_copy(update={"shape": shape})


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
    if (size_bytes := require_regular_file(path).st_size) > MAX_PROTOBUF_BYTES:
        raise InputError.at(
            str(path), f"is no ONNX model: it has {size_bytes} bytes, and a protobuf has 2 GB at most", RE_EXPORT
        )
    model = _parse(path)
    for node in _nodes(model):
        if node.op_type == "EPContext" and not _attribute(node, "embed_mode", 1):
            raise InputError.at(
                str(path),
                f"node {node.name!r} loads a compiled provider context from a file beside the model",
                "export it with the context embedded (ep.context_embed_mode = 1)",
            )
    external = {_check_external(path, tensor) for tensor in _tensors(model) if tensor.data_location == tensor.EXTERNAL}
    for tensor in _tensors(model):
        if tensor.HasField("raw_data") and tensor.data_location != tensor.EXTERNAL:
            _check_raw(path, tensor)
    weights = {initializer.name for initializer in model.graph.initializer}
    return OnnxFacts(
        inputs=tuple(_tensor_info(path, value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_tensor_info(path, value) for value in model.graph.output),
        opset=_opset(path, model),
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
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise InputError.at(str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except DecodeError as error:
        raise InputError.at(
            str(path), "is not an ONNX model, or is truncated (protobuf cannot be decoded)", RE_EXPORT
        ) from error
    if not model.ir_version or not model.opset_import or not (model.graph.node and model.graph.output):
        raise InputError.at(str(path), "is not an ONNX model, or is truncated (no graph, outputs or operator set)", RE_EXPORT)
    return model


def _opset(path: Path, model: onnx.ModelProto) -> int:
    """Return the version of the default operator set, 0 where no node is of it."""
    versions = [entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAIN]
    if not versions and any(node.domain in DEFAULT_DOMAIN for node in _nodes(model)):
        raise InputError.at(str(path), "does not say which ONNX operator set it uses, or is truncated", RE_EXPORT)
    return int(versions[0]) if versions else 0


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    stack = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    defaults = [attribute for function in model.functions for attribute in function.attribute_proto]
    stack.extend(inner for attribute in defaults for inner in _inner_nodes(attribute))
    while stack:
        node = stack.pop()
        yield node
        stack.extend(inner for attribute in node.attribute for inner in _inner_nodes(attribute))


def _inner_nodes(attribute: onnx.AttributeProto) -> Iterator[onnx.NodeProto]:
    for graph in (attribute.g, *attribute.graphs):
        yield from graph.node


def _attributes(model: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    """Yield the attributes of all nodes, and the defaults of those that a function leaves to its callers."""
    for node in _nodes(model):
        yield from node.attribute
    for function in model.functions:
        yield from function.attribute_proto


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for training in model.training_info:
        yield training.initialization
        yield training.algorithm
    for attribute in _attributes(model):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for attribute in _attributes(model):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield sparse.values
            yield sparse.indices


def _check_external(path: Path, tensor: onnx.TensorProto) -> str:
    """Return the location of the tensor's data, relative to the model, or raise InputError."""
    where = f"{path}, tensor {tensor.name!r}"
    entries = {_text(where, entry.key): _text(where, entry.value) for entry in tensor.external_data}
    if unknown := set(entries) - EXTERNAL_DATA_KEYS:
        raise InputError.at(where, f"has unknown external data keys {sorted(unknown)}", RE_EXPORT)
    if len(entries) < len(tensor.external_data):
        raise InputError.at(where, "has an external data key twice, and programs differ in which they take", RE_EXPORT)
    location = entries.get("location", "")
    pure = PurePosixPath(location)
    if not location or pure.is_absolute() or ".." in pure.parts or set(location) & set("\\:\0") or str(pure) != location:
        raise InputError.at(
            where,
            f"keeps its data in {location!r}, which is not a plain path inside the model's folder",
            "save the model with its external data beside it",
        )
    available = require_regular_file(path.parent / location).st_size
    for parent in list(pure.parents)[:-1]:
        if (path.parent / parent).is_symlink():
            raise InputError.at(str(path.parent / parent), "is a symbolic link", "put the folder itself there")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError as error:
        raise InputError.at(where, f"has an offset or length that is no number ({error})", RE_EXPORT) from error
    needed = _size_bytes(where, tensor)
    length = length or needed
    if offset < 0 or length < 0 or length < needed or offset + length > available:
        raise InputError.at(
            where,
            f"declares {length} bytes at offset {offset} for {needed} bytes of values, but {location} has {available}",
            "copy the data file again, it may be truncated",
        )
    return str(location)


def _check_raw(path: Path, tensor: onnx.TensorProto) -> None:
    """Refuse a tensor whose dimensions would have a loader reserve more memory than there are values for."""
    where = f"{path}, tensor {tensor.name!r}"
    needed, available = _size_bytes(where, tensor), len(tensor.raw_data)
    if available < needed:
        raise InputError.at(where, f"has dimensions for {needed} bytes of values, and holds {available}", RE_EXPORT)


def _size_bytes(where: str, tensor: onnx.TensorProto) -> int:
    whole_bytes = 8 * _numpy_type(where, tensor.data_type).itemsize
    bits = SUB_BYTE_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type), whole_bytes)
    return math.ceil(math.prod(tensor.dims) * bits / 8)


def _tensor_info(path: Path, value: onnx.ValueInfoProto) -> TensorInfo:
    where, tensor = f"{path}, {value.name!r}", value.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.STRING:
        dtype = "str"
    elif tensor.elem_type:
        dtype = _numpy_type(where, tensor.elem_type).name
    else:
        dtype = "unknown"
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else _text(where, dim.dim_param) or None for dim in tensor.shape.dim
    )
    return TensorInfo(name=_text(where, value.name), dtype=dtype, shape=shape)


def _numpy_type(where: str, data_type: int) -> np.dtype[Any]:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(data_type)
    except KeyError as error:
        raise InputError.at(where, f"has the element type {data_type}, which ONNX does not define", RE_EXPORT) from error


def _text(where: str, value: str | bytes) -> str:
    """Return a text of the model, which protobuf hands out as bytes where it is not UTF-8."""
    if isinstance(value, bytes):
        raise InputError.at(where, f"has the text {value!r}, which is not UTF-8", RE_EXPORT)
    return value


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)
