"""What a measurement is valid for: this machine, and the onnxruntime that is installed."""

import os
import platform

import onnxruntime
import pytest

from packhouse.evaluation.fingerprint import fingerprint, runtime_distribution


def test_it_is_of_this_machine_and_this_onnxruntime() -> None:
    found = fingerprint()

    assert found.runtime_version == onnxruntime.__version__
    assert (found.cpu_count, found.machine, found.system) == (os.cpu_count(), platform.machine(), platform.system())
    assert found.cpu_model


@pytest.mark.parametrize(
    ("installed", "name"),
    [
        (["onnxruntime"], "onnxruntime"),
        (["onnxruntime-gpu"], "onnxruntime-gpu"),
        (["OnnxRuntime-OpenVINO"], "onnxruntime-openvino"),
        (["ort-nightly"], "ort-nightly"),
        (["zrt", "ort-nightly"], "ort-nightly"),
        ([], "onnxruntime"),
    ],
)
def test_the_distribution_is_the_one_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], name: str
) -> None:
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"onnxruntime": installed})

    assert runtime_distribution() == name
