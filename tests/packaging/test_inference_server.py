"""The server in Dockerfile packages: what it answers by the Open Inference Protocol v2, and what it refuses, and how."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from onnx import TensorProto
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from packhouse.packaging.inference_server.messages import read_answer, read_request, write_request
from packhouse.packaging.inference_server.tensors import DATATYPES, BadRequest, decode, encode
from tests.classifiers import points, write_classifier
from tests.evaluation.models import write_identity
from tests.inference_servers import ended, free_port, serving, start_server, wait_until_ready, write_served_model
from tests.packaging_jobs import predict

INFER = "/v2/models/points/infer"
BINARY = {"binary_data_size": 8}
MAX_BODY_BYTES = 100_000
KINDS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = write_served_model(tmp_path_factory.mktemp("served"), model)
    with serving(folder, "--max-body-bytes", str(MAX_BODY_BYTES)) as client:
        yield client


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 0.0], **changes}


def test_server_is_live_and_ready_and_says_what_it_is(server: httpx.Client) -> None:
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert server.get("/v2/models/points/ready").json() == {"name": "points", "ready": True}


def test_model_tells_its_signature_and_the_provider_of_its_nodes(server: httpx.Client) -> None:
    told = server.get("/v2/models/points").json()
    assert (told["name"], told["versions"]) == ("points", ["1"])
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert told["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
    assert told["parameters"]["placement"] == {"CPUExecutionProvider": 2}
    assert server.get("/v2/models/points/versions/1").json() == told


@pytest.mark.parametrize("nested", [False, True])
def test_answers_are_what_onnxruntime_gives_and_the_id_comes_back(server: httpx.Client, model: Path, nested: bool) -> None:
    samples, _ = points(5)
    data = samples.tolist() if nested else samples.ravel().tolist()
    request = {"id": "42", "parameters": {"any": 1}, "inputs": [tensor(shape=[5, 2], data=data)]}
    answer = server.post(INFER, json=request).json()
    (output,) = answer["outputs"]
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "points", "1")
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [5, 3])
    expected = predict(model, samples)["y"]
    np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(5, 3), expected)


@pytest.mark.parametrize("as_bytes", [False, True], ids=["JSON", "bytes"])
def test_a_client_of_somebody_else_gets_an_answer(tmp_path: Path, model: Path, as_bytes: bool) -> None:
    port = free_port()
    folder = write_served_model(tmp_path, model, name="Größe 1/2 (final)".replace("/", " "))
    process = start_server(folder, "--host", "127.0.0.1", "--port", str(port))
    with ended(process), httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as probe:
        wait_until_ready(probe, process)
        client = InferenceServerClient(f"127.0.0.1:{port}")
        assert client.is_server_live()
        assert client.is_model_ready("Größe 1 2 (final)")
        samples, _ = points(4)
        given_input = InferInput("x", list(samples.shape), "FP32")
        given_input.set_data_from_numpy(samples, binary_data=as_bytes)
        wanted = InferRequestedOutput("y", binary_data=as_bytes)
        result = client.infer("Größe 1 2 (final)", [given_input], outputs=[wanted], request_id="7")
        np.testing.assert_array_equal(result.as_numpy("y"), predict(model, samples)["y"])
        assert result.get_response()["id"] == "7"
        client.close()


@pytest.mark.parametrize("as_bytes", [False, True], ids=["JSON", "bytes"])
def test_tensors_of_every_type_go_through_the_server_unchanged(tmp_path: Path, as_bytes: bool) -> None:
    model = write_identity(tmp_path / "model.onnx", {name: (kind, ("n",)) for name, kind in KINDS.items()})
    values: dict[str, Any] = {
        name: np.array([1, 0, 1]).astype(DATATYPES[name]) for name in KINDS if name not in ("BYTES", "UINT64", "INT8")
    }
    values |= {"BYTES": np.array(["", "ä b", "𝄞"], object), "UINT64": np.array([2**64 - 1, 0, 5], np.uint64)}
    values["INT8"] = np.array([-128, 0, 127], np.int8)
    outputs = [f"{name}_out" for name in KINDS]
    with serving(write_served_model(tmp_path / "served", model)) as client:
        if as_bytes:
            body, headers = write_request(values, outputs)
            answer = client.post(INFER, content=body, headers=headers)
        else:
            inputs = [encode(name, array, as_bytes=False)[0] for name, array in values.items()]
            answer = client.post(INFER, json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    given_back = read_answer(answer.content, answer.headers.get("Inference-Header-Content-Length"))
    assert list(given_back) == outputs
    for name, array in values.items():
        np.testing.assert_array_equal(given_back[f"{name}_out"], array)
        assert given_back[f"{name}_out"].dtype == array.dtype


def test_only_the_outputs_that_are_asked_for_are_given_in_their_order(tmp_path: Path) -> None:
    model = write_identity(tmp_path / "model.onnx", dict.fromkeys(("a", "b", "c"), (TensorProto.FLOAT, ("n",))))
    inputs = [tensor(name=name, shape=[1], data=[value]) for value, name in enumerate(("a", "b", "c"))]
    with serving(write_served_model(tmp_path / "served", model)) as client:
        answer = client.post(INFER, json={"inputs": inputs, "outputs": [{"name": "c_out"}, {"name": "a_out"}]}).json()
    assert [(output["name"], output["data"]) for output in answer["outputs"]] == [("c_out", [2.0]), ("a_out", [0.0])]


def test_values_that_json_cannot_hold_are_given_as_bytes_only(tmp_path: Path) -> None:
    model = write_identity(tmp_path / "model.onnx", {"x": (TensorProto.FLOAT, ("n",))})
    with serving(write_served_model(tmp_path / "served", model)) as client:
        body, headers = write_request({"x": np.array([np.nan, np.inf], np.float32)}, ["x_out"])
        answer = client.post(INFER, content=body, headers=headers)
        array = read_answer(answer.content, answer.headers["Inference-Header-Content-Length"])["x_out"]
        refused = client.post(INFER, content=body.replace(b"true", b"null"), headers=headers)
    np.testing.assert_array_equal(array, np.array([np.nan, np.inf], np.float32))
    assert refused.status_code == 422
    assert "ask for binary_data" in refused.json()["error"]


BAD_REQUESTS = {
    "malformed JSON": ('{"inputs": [', "not valid JSON"),
    "not UTF-8": (b"\xff\xfe{", "not valid JSON"),
    "NaN in JSON": ('{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', "NaN is no number of JSON"),
    "deeply nested": ("[" * 40_000, "not valid JSON"),
    "a list": ("[]", "no JSON object"),
    "no inputs": ({}, "there are no inputs"),
    "inputs that are no list": ({"inputs": {"x": 1}}, "inputs is not a list"),
    "no name": ({"inputs": [tensor(name=None)]}, "has no name"),
    "no shape": ({"inputs": [tensor(shape=None)]}, "the shape of 'x' is None"),
    "negative size": ({"inputs": [tensor(shape=[-1, 2])]}, "the shape of 'x' is"),
    "true as a size": ({"inputs": [tensor(shape=[True, 2])]}, "the shape of 'x' is"),
    "huge shape": ({"inputs": [tensor(shape=[2**40, 2**40])]}, "has 2 values, which do not make its shape"),
    "a size that no array has": ({"inputs": [tensor(shape=[0, 10**20], data=[])]}, "has 0 values, which do not make its shape"),
    "sizes whose product has no end": ({"inputs": [tensor(shape=[10**4000, 10**4000])]}, "which do not make its shape"),
    "more dimensions than arrays have": ({"inputs": [tensor(shape=[1] * 70 + [2])]}, "which do not make its shape"),
    "no datatype": ({"inputs": [tensor(datatype=None)]}, "'x' has no datatype"),
    "unknown datatype": ({"inputs": [tensor(datatype="BF16")]}, "the datatype 'BF16'; there are BOOL"),
    "another datatype": ({"inputs": [tensor(datatype="FP64")]}, "is FP64 and should be FP32"),
    "texts as numbers": ({"inputs": [tensor(data=["1", "2"])]}, "not all of its datatype"),
    "nulls": ({"inputs": [tensor(data=[None, 1])]}, "not all of its datatype"),
    "an object": ({"inputs": [tensor(data={"a": 1})]}, "not all of its datatype"),
    "an endless number": ({"inputs": [tensor(data=[10**400, 1])]}, "not all of its datatype"),
    "ragged": ({"inputs": [tensor(data=[[1], [2, 3]])]}, "neither flat nor nested"),
    "too many values": ({"inputs": [tensor(data=[1, 2, 3])]}, "has 3 values"),
    "another shape": ({"inputs": [tensor(shape=[1, 3], data=[1, 2, 3])]}, "has the shape [1, 3] and should have [-1, 2]"),
    "another rank": ({"inputs": [tensor(shape=[2])]}, "has the shape [2] and should have [-1, 2]"),
    "too large for its type": ({"inputs": [tensor(data=[1e39, 0])]}, "values that its datatype cannot hold"),
    "unknown input": ({"inputs": [tensor(), tensor(name="z")]}, "there is no input 'z'; there are 'x'"),
    "missing input": ({"inputs": [tensor(name="z")]}, "there is no input 'z'"),
    "the same input twice": ({"inputs": [tensor(), tensor()]}, "is there twice"),
    "unknown output": ({"inputs": [tensor()], "outputs": [{"name": "q"}]}, "there is no output 'q'; there are 'y'"),
    "output without name": ({"inputs": [tensor()], "outputs": [{}]}, "has no name"),
    "neither data nor bytes": (
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32"}]},
        "needs either data or binary_data_size",
    ),
    "both data and bytes": ({"inputs": [tensor(parameters=BINARY)]}, "needs either data or binary_data_size"),
    "bytes that are not there": (
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": BINARY}]},
        "the bytes end before those of 'x' do",
    ),
    "negative number of bytes": ({"inputs": [tensor(parameters={"binary_data_size": -1})]}, "should be a number of bytes"),
}


@pytest.mark.parametrize(("request_body", "reason"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_is_refused_with_its_reason_and_the_server_goes_on(
    server: httpx.Client, request_body: Any, reason: str
) -> None:
    content = json.dumps(request_body) if isinstance(request_body, dict) else request_body
    answer = server.post(INFER, content=content)
    assert (answer.status_code, reason in answer.json()["error"]) == (400, True), answer.text
    assert server.post(INFER, json={"inputs": [tensor()]}).status_code == 200


def test_a_header_that_does_not_fit_the_body_is_refused(server: httpx.Client) -> None:
    for length in ("-1", "x", "99999", "9" * 5000, "²"):
        answer = server.post(
            INFER,
            content=b"{}",
            headers={b"Inference-Header-Content-Length": length.encode()},
        )
        assert answer.status_code == 400
    body, headers = write_request({"x": np.zeros((1, 2), np.float32)}, ["y"])
    answer = server.post(INFER, content=body + b"more", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "4 bytes belong to no input")


def test_an_unknown_model_version_or_path_is_not_found(server: httpx.Client) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/points/versions/2", "/v3"):
        answer = server.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])
    assert server.post("/v2/models/other/infer", json={"inputs": [tensor()]}).status_code == 404
    assert server.get(INFER).status_code == 405
    assert "error" in server.get(INFER).json()


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_body_that_is_too_large_is_refused_and_not_kept(server: httpx.Client, is_streamed: bool) -> None:
    body = b"x" * (MAX_BODY_BYTES + 1)
    answer = server.post(INFER, content=iter([body]) if is_streamed else body)
    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["error"]


def test_a_compressed_body_is_refused(server: httpx.Client) -> None:
    assert server.post(INFER, content=b"", headers={"Content-Encoding": "gzip"}).status_code == 415


def test_a_provider_that_is_not_here_ends_the_server_and_no_cpu_takes_over(tmp_path: Path, model: Path) -> None:
    folder = write_served_model(tmp_path, model)
    settings = {"execution_provider": [["CUDAExecutionProvider", {}]], "session_options": {}}
    (folder / "inference_config.json").write_text(json.dumps(settings))
    process = start_server(folder, "--uds", str(tmp_path / "socket"))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "not served: it does not run on CUDAExecutionProvider" in said


def test_health_check_asks_the_server_on_its_port(tmp_path: Path, model: Path) -> None:
    port = str(free_port())
    folder = write_served_model(tmp_path, model)
    check = start_server(folder, "--check", "--port", port)
    check.communicate(timeout=60)
    assert check.returncode == 1
    process = start_server(folder, "--host", "127.0.0.1", "--port", port)
    with ended(process), httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as probe:
        wait_until_ready(probe, process)
        check = start_server(folder, "--check", "--port", port)
        check.communicate(timeout=60)
        assert check.returncode == 0


numbers = st.sampled_from([dtype for dtype in DATATYPES.values() if dtype != "object"])
arrays = numbers.flatmap(
    lambda dtype: (
        numpy_strategies.arrays(
            dtype, numpy_strategies.array_shapes(min_dims=0, min_side=0), elements={"allow_nan": False, "allow_infinity": False}
        )
        if dtype.startswith("float")
        else numpy_strategies.arrays(dtype, numpy_strategies.array_shapes(min_dims=0, min_side=0))
    )
)


@given(arrays, st.booleans())
def test_what_is_encoded_is_decoded_to_the_same(array: Any, as_bytes: bool) -> None:
    described, content = encode("x", array, as_bytes=as_bytes)
    decoded = decode(json.loads(json.dumps(described)), content)
    assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(decoded, array)


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.booleans())
def test_texts_are_decoded_to_the_same(texts: list[str], as_bytes: bool) -> None:
    described, content = encode("x", np.array(texts, dtype=object), as_bytes=as_bytes)
    assert decode(described, content).tolist() == texts


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(BadRequest, match="a text of 'x' is not in UTF-8"):
        read_request(b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["\\ud800"]}]}', None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
tensors = st.fixed_dictionaries(
    {"name": st.just("x"), "shape": st.lists(st.integers(0, 3), max_size=2), "datatype": st.sampled_from(sorted(DATATYPES))},
    optional={"data": json_values, "parameters": json_values},
)


@given(st.fixed_dictionaries({"inputs": st.lists(tensors, max_size=2)}, optional={"outputs": json_values, "id": json_values}))
def test_whatever_comes_is_a_request_or_is_refused(document: Any) -> None:
    with contextlib.suppress(BadRequest):
        assert set(read_request(json.dumps(document).encode(), None).feed) <= {"x"}


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=5)))
def test_bytes_that_are_no_json_are_refused(body: bytes, json_length: str | None) -> None:
    with contextlib.suppress(BadRequest):
        assert read_request(body, json_length).feed
