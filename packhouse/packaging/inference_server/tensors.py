"""Tensors of the Open Inference Protocol v2: as JSON, or as bytes behind the JSON (the binary tensor data extension).

Both ends use it: `decode` reads what `encode` wrote. BYTES are texts in UTF-8, as ONNX's are.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Json = dict[str, Any]
DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
LENGTH_BYTES = 4  # before each element of BYTES
KINDS_FOR = {"b": "b", "u": "iu", "i": "iu", "f": "fiu"}  # of JSON values, by that of the tensor


class BadRequest(Exception):
    """The request is not one that can be answered; the message says why, and `status` is that of HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def datatype_of(array: Array) -> str:
    """Return the protocol's name for the type of an array."""
    name = "object" if array.dtype.kind in "USO" else array.dtype.name
    return next(datatype for datatype, dtype in DATATYPES.items() if dtype == name)


def encode(name: str, array: Array, *, as_bytes: bool) -> tuple[Json, bytes]:
    """Return the description of a tensor, which has its data unless they are in the bytes that come with it.

    Raises:
        ValueError: JSON cannot hold one of its values, NaN or an infinity.
    """
    described: Json = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array)}
    if as_bytes:
        content = _texts_as_bytes(array) if described["datatype"] == "BYTES" else _little_endian(array).tobytes()
        return {**described, "parameters": {"binary_data_size": len(content)}}, content
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name!r} has values that are not finite, which JSON cannot hold; ask for binary_data")
    return {**described, "data": array.ravel().tolist()}, b""


def decode(described: Json, content: bytes) -> Array:
    """Return the array that a tensor's description stands for; `content` are its bytes, where it has no data.

    Raises:
        BadRequest: type, shape and data do not go together.
    """
    name, shape = described["name"], tuple(described["shape"])
    datatype = DATATYPES.get(described["datatype"])
    if datatype is None:
        raise BadRequest(f"{name!r} has the datatype {described['datatype']!r}; there are {', '.join(DATATYPES)}")
    if "data" in described:
        array = _of_json(name, datatype, described["data"])
    else:
        array = _texts_of_bytes(name, content) if datatype == "object" else _of_bytes(name, datatype, content)
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:  # of another size; or more dimensions, or larger ones, than arrays can have
        raise BadRequest(f"{name!r} has {array.size} values, which do not make its shape {list(shape)}") from error


def binary_size(described: Json) -> int | None:
    """Return how many of the bytes behind the JSON belong to a tensor; None where it has its data in the JSON."""
    size = (described.get("parameters") or {}).get("binary_data_size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise BadRequest(f"binary_data_size of {described['name']!r} is {size!r}, and should be a number of bytes")
    if (size is None) == ("data" not in described):
        raise BadRequest(f"{described['name']!r} needs either data or binary_data_size")
    return size


def _of_json(name: str, datatype: str, data: Any) -> Array:
    if datatype == "object":
        texts = np.array(data, dtype=object).ravel()
        if not all(isinstance(text, str) for text in texts):
            raise BadRequest(f"{name!r} is of BYTES, and its data are not all texts")
        if any("\ud800" <= character <= "\udfff" for text in texts if not text.isascii() for character in text):
            raise BadRequest(f"a text of {name!r} is not in UTF-8")
        return texts
    wanted = np.dtype(datatype)
    try:
        given = np.array(data)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"the data of {name!r} are neither flat nor nested like its shape") from error
    if not given.size:
        return np.zeros(0, wanted)
    is_right = given.dtype.kind in KINDS_FOR[wanted.kind]
    if wanted.kind in "iu" and given.dtype.kind in "fO":  # what numpy makes of large integers as well
        given = np.array(data, dtype=object)
        is_right = all(type(value) is int for value in given.ravel())
    if not is_right:
        raise BadRequest(f"the data of {name!r} are not all of its datatype")
    if wanted.kind in "iu" and (given.min() < np.iinfo(wanted).min or given.max() > np.iinfo(wanted).max):
        raise BadRequest(f"the data of {name!r} have values that its datatype cannot hold")
    with np.errstate(over="ignore"):
        array = given.astype(wanted).ravel()
    if wanted.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(f"the data of {name!r} have values that its datatype cannot hold")
    return array


def _of_bytes(name: str, datatype: str, content: bytes) -> Array:
    dtype = np.dtype(datatype)
    if len(content) % dtype.itemsize:
        raise BadRequest(f"{name!r} has {len(content)} bytes, and each of its values has {dtype.itemsize}")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype)


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _texts_as_bytes(array: Array) -> bytes:
    texts = [str(text).encode() for text in array.ravel()]
    return b"".join(len(text).to_bytes(LENGTH_BYTES, "little") + text for text in texts)


def _texts_of_bytes(name: str, content: bytes) -> Array:
    texts, position = [], 0
    while position < len(content):
        start = position + LENGTH_BYTES
        position = start + int.from_bytes(content[start - LENGTH_BYTES : start], "little")
        if start > len(content) or position > len(content):
            raise BadRequest(f"the bytes of {name!r} end within a text")
        try:
            texts.append(content[start:position].decode())
        except UnicodeDecodeError as error:
            raise BadRequest(f"a text of {name!r} is not in UTF-8") from error
    return np.array(texts, dtype=object)
