"""Requests and answers of inference in the Open Inference Protocol v2: what is on the wire, and the arrays that it means."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tensors import Array, BadRequest, Json, binary_size, decode, encode

JSON_LENGTH = "Inference-Header-Content-Length"
LENGTH = re.compile("[0-9]{1,18}")  # more digits are no number of bytes, and thousands of them none that Python reads


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for, and whether its data shall be bytes."""

    name: str
    as_bytes: bool


@dataclass(frozen=True)
class Request:
    """What is to be inferred: the arrays by input, the outputs that are wanted (none: all), and the id to be given back."""

    feed: Mapping[str, Array]
    outputs: tuple[Wanted, ...]
    id: str | None
    as_bytes: bool


def read_request(body: bytes, json_length: str | None) -> Request:
    """Return what a request means; `json_length` is the header that says where its bytes begin.

    Raises:
        BadRequest: it is malformed, and the message says where.
    """
    document, content = _split(body, json_length)
    inputs = _list_of_objects(document, "inputs")
    if not inputs:
        raise BadRequest("there are no inputs")
    feed: dict[str, Array] = {}
    position = 0
    for described in inputs:
        _require_tensor(described)
        size = binary_size(described) or 0
        if described["name"] in feed:
            raise BadRequest(f"the input {described['name']!r} is there twice")
        if position + size > len(content):
            raise BadRequest(f"the bytes end before those of {described['name']!r} do")
        feed[described["name"]] = decode(described, content[position : position + size])
        position += size
    if position != len(content):
        raise BadRequest(f"{len(content) - position} bytes belong to no input")
    as_bytes = _flag(document, "binary_data_output", otherwise=False)
    outputs = tuple(_wanted(output, as_bytes) for output in _list_of_objects(document, "outputs"))
    given = document.get("id")
    return Request(feed, outputs, None if given is None else str(given), as_bytes)


def write_request(feed: Mapping[str, Array], outputs: Sequence[str], *, as_bytes: bool = True) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request for these outputs, with all data as bytes, or all in the JSON.

    Raises:
        ValueError: JSON cannot hold one of the values, NaN or an infinity.
    """
    tensors = [encode(name, array, as_bytes=as_bytes) for name, array in feed.items()]
    document = {
        "parameters": {"binary_data_output": as_bytes},
        "inputs": [described for described, _ in tensors],
        "outputs": [{"name": name} for name in outputs],
    }
    return _joined(document, tensors)


def write_answer(
    model: str, version: str, request: Request, names: Sequence[str], values: Sequence[Any]
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of the answer with these outputs. Raises BadRequest where one cannot be written as asked."""
    as_bytes = {output.name: output.as_bytes for output in request.outputs}
    tensors = []
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, np.ndarray):
            raise BadRequest(f"the output {name!r} is no tensor; ask for others by name in outputs")
        try:
            tensors.append(encode(name, value, as_bytes=as_bytes.get(name, request.as_bytes)))
        except ValueError as error:
            raise BadRequest(f"the output {error}", status=422) from error
    document: Json = {"model_name": model, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    return _joined({**document, "outputs": [described for described, _ in tensors]}, tensors)


def read_answer(body: bytes, json_length: str | None) -> dict[str, Array]:
    """Return the outputs in an answer. Raises BadRequest where it is none."""
    document, content = _split(body, json_length)
    arrays: dict[str, Array] = {}
    position = 0
    for described in _list_of_objects(document, "outputs"):
        _require_tensor(described)
        size = binary_size(described) or 0
        arrays[described["name"]] = decode(described, content[position : position + size])
        position += size
    return arrays


def _joined(document: Json, tensors: Sequence[tuple[Json, bytes]]) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(document, allow_nan=False).encode()
    content = b"".join(part for _, part in tensors)
    if not content:
        return head, {"Content-Type": "application/json"}
    return head + content, {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}


def _split(body: bytes, json_length: str | None) -> tuple[Json, bytes]:
    """Return the JSON object that a body begins with, and the bytes behind it."""
    length = len(body)
    if json_length is not None:
        if not LENGTH.fullmatch(json_length) or int(json_length) > length:
            raise BadRequest(f"{JSON_LENGTH} is {json_length!r}, and the body has {length} bytes")
        length = int(json_length)
    try:
        document = json.loads(body[:length], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest("the body is no JSON object")
    return document, body[length:]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _list_of_objects(document: Json, key: str) -> list[Json]:
    items = document.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadRequest(f"{key} is not a list of objects")
    return items


def _require_tensor(described: Json) -> None:
    name, shape = described.get("name"), described.get("shape")
    if not isinstance(name, str):
        raise BadRequest("a tensor has no name")
    if not isinstance(shape, list) or any(not isinstance(size, int) or isinstance(size, bool) or size < 0 for size in shape):
        raise BadRequest(f"the shape of {name!r} is {shape!r}, and should be a list of sizes")
    if not isinstance(described.get("datatype"), str):
        raise BadRequest(f"{name!r} has no datatype")
    if not isinstance(described.get("parameters") or {}, dict):
        raise BadRequest(f"the parameters of {name!r} are no object")


def _wanted(output: Json, as_bytes: bool) -> Wanted:
    if not isinstance(output.get("name"), str):
        raise BadRequest("an output that is asked for has no name")
    return Wanted(output["name"], _flag(output, "binary_data", otherwise=as_bytes))


def _flag(document: Json, name: str, *, otherwise: bool) -> bool:
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest("parameters are no object")
    return bool(parameters.get(name, otherwise))
