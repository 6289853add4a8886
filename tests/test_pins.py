"""The packages of a runtime: pinned to one version each, with exactly one distribution of onnxruntime."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.pins import DISTRIBUTIONS, Pin, distribution_of, parse_runtime

REFUSED = {
    "not a requirement": ("onnxruntime gpu", "is not a requirement"),
    "empty": ("", "is not a requirement"),
    "path": ("./onnxruntime-1.0-py3-none-any.whl", "is not a requirement"),
    "file address": ("file:///wheels/onnxruntime.whl", "is not a requirement"),
    "address": ("onnxruntime @ file:///wheels/onnxruntime.whl", "comes from an address"),
    "not pinned": ("onnxruntime", "is not pinned to one version"),
    "at least": ("onnxruntime>=1.24", "is not pinned to one version"),
    "compatible": ("onnxruntime~=1.24.0", "is not pinned to one version"),
    "arbitrary equality": ("onnxruntime===1.24.0", "is not pinned to one version"),
    "wildcard": ("onnxruntime==1.24.*", "is not pinned to one version"),
    "two versions": ("onnxruntime==1.24.0,==1.24.1", "is not pinned to one version"),
    "pinned and bounded": ("onnxruntime==1.24.0,<2", "is not pinned to one version"),
    "condition": ("onnxruntime==1.24.0; sys_platform == 'linux'", "has a condition"),
}


@pytest.mark.parametrize(("text", "what"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_pin_is_refused_with_a_remedy(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        parse_runtime([text])

    assert repr(text) in str(caught.value)
    assert "write name==version" in str(caught.value) or "leave it out" in str(caught.value)


def test_a_runtime_is_the_same_however_it_is_written() -> None:
    one = parse_runtime(["onnxruntime == 1.31.1", "onnxruntime-qnn==2.7.0"])
    other = parse_runtime(["ONNXRuntime_QNN==2.7.0", "OnnxRuntime==1.31.1"])

    assert one == other
    assert [str(pin) for pin in one] == ["onnxruntime==1.31.1", "onnxruntime-qnn==2.7.0"]


@given(st.permutations(["onnxruntime-gpu[cudnn,cuda]==1.31.0", "numpy==2.4.6", "nxrt-ep-cpu==0.1.0.dev6", "a==1+cu12"]))
def test_a_runtime_has_no_order_and_reads_as_it_was_written(texts: list[str]) -> None:
    pins = parse_runtime(texts)

    assert pins == parse_runtime([str(pin) for pin in pins]) == parse_runtime(texts[::-1])
    assert distribution_of(pins) == Pin("onnxruntime-gpu", "1.31.0", ("cuda", "cudnn"))


@pytest.mark.parametrize(
    "pair", [*itertools.combinations(["onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-webgpu"], 2)]
)
def test_two_distributions_of_onnxruntime_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=f"{pair[0]} and {pair[1]} are both distributions of onnxruntime"):
        parse_runtime([f"{name}==1.24.1" for name in pair])


@pytest.mark.parametrize("plugin", ["onnxruntime-qnn==2.7.0", "onnxruntime-ep-openvino==1.8.1", "nxrt-ep-cpu==0.1.0.dev6"])
def test_a_plugin_provider_is_no_second_distribution_and_not_enough_alone(plugin: str) -> None:
    assert distribution_of(parse_runtime(["onnxruntime==1.31.1", plugin])).name == "onnxruntime"
    with pytest.raises(ValueError, match=r"there is no distribution of onnxruntime in .*; add one, such as"):
        parse_runtime([plugin])


def test_qnn_was_a_distribution_before_it_became_a_plugin() -> None:
    assert distribution_of(parse_runtime(["onnxruntime-qnn==1.24.4"])).name == "onnxruntime-qnn"
    with pytest.raises(ValueError, match="are both distributions"):
        parse_runtime(["onnxruntime==1.24.4", "onnxruntime-qnn==1.24.4"])


def test_a_package_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="onnxruntime is listed twice; keep one of them"):
        parse_runtime(["onnxruntime==1.31.1", "OnnxRuntime==1.31.0"])


def test_no_runtime_is_no_runtime() -> None:
    assert parse_runtime([]) == ()


def test_names_of_distributions_are_canonical() -> None:
    assert all(Pin.parse(f"{name}==1").name == name for name in DISTRIBUTIONS)
