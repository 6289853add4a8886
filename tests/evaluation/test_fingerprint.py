"""What a measurement is valid for: this machine, and the onnxruntime that runs it."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import onnxruntime
import pytest

from packhouse.evaluation import fingerprint as module
from packhouse.evaluation.fingerprint import Machine, fingerprint, runtime_distribution, this_machine

QNN = ("onnxruntime==1.31.0", "onnxruntime-qnn==2.7.0")


def test_it_is_of_this_machine_and_this_onnxruntime() -> None:
    found = fingerprint()

    assert found.runtime_version == onnxruntime.__version__
    assert (found.cpu_count, found.machine, found.system) == (os.cpu_count(), platform.machine(), platform.system())
    assert found.cpu_model
    assert found.libraries == {}


def test_a_pinned_runtime_is_that_of_the_pins_with_all_further_packages() -> None:
    found = fingerprint(QNN, "onnxruntime_qnn")

    assert (found.runtime, found.runtime_version) == ("onnxruntime", "1.31.0")
    assert found.libraries == {"onnxruntime-qnn": "2.7.0"}
    assert found.cpu_model == fingerprint().cpu_model


def test_a_pinned_runtime_has_the_same_fingerprint_in_any_order() -> None:
    assert fingerprint(QNN) == fingerprint(QNN[::-1])


def test_another_version_of_a_plugin_is_another_fingerprint() -> None:
    assert fingerprint(QNN) != fingerprint(("onnxruntime==1.31.0", "onnxruntime-qnn==2.6.0"))


@pytest.mark.parametrize("plugin", ["packaging", "packaging.version"])
def test_a_plugin_of_this_environment_counts_with_its_version(plugin: str) -> None:
    assert fingerprint((), plugin).libraries == {"packaging": metadata.version("packaging")}


def test_a_plugin_that_is_not_here_has_no_version() -> None:
    assert fingerprint((), "no_such_plugin").libraries == {}


@pytest.mark.parametrize(
    ("installed", "name"),
    [
        (["onnxruntime"], "onnxruntime"),
        (["onnxruntime-gpu"], "onnxruntime-gpu"),
        (["OnnxRuntime-OpenVINO"], "onnxruntime-openvino"),
        (["ort-nightly"], "ort-nightly"),
        (["zrt", "ort-nightly"], "ort-nightly"),
        (["ort-nightly", "onnxruntime-gpu"], "onnxruntime-gpu"),
        ([], "onnxruntime"),
    ],
)
def test_the_distribution_is_the_one_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installed: list[str], name: str
) -> None:
    for distribution in installed:
        install(tmp_path, distribution, module="onnxruntime")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    assert runtime_distribution() == name


def test_the_distribution_is_not_that_of_a_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-qnn", module="onnxruntime_qnn")
    install(tmp_path, "ort-nightly", module="onnxruntime")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    assert runtime_distribution() == "ort-nightly"


def install(folder: Path, distribution: str, module: str) -> None:
    """Write what an installer leaves of a distribution that has one module."""
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(f"{module}\n")


class TestMachine:
    def test_it_is_this_one(self) -> None:
        assert this_machine().kernel == platform.release()

    def test_it_has_the_microcode_and_the_governor_as_the_kernel_tells_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast: CPU\nmicrocode\t: 0xa201025\n\nprocessor\t: 1\n")
        (tmp_path / "governor").write_text("powersave\n")
        monkeypatch.setattr(module, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(module, "GOVERNOR", tmp_path / "governor")

        assert this_machine() == Machine(microcode="0xa201025", kernel=platform.release(), governor="powersave")

        (tmp_path / "governor").write_text("performance\n")
        assert this_machine().governor == "performance"

    def test_what_the_kernel_does_not_tell_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CPU_INFO", tmp_path / "absent")
        monkeypatch.setattr(module, "GOVERNOR", tmp_path / "absent")

        assert (this_machine().microcode, this_machine().governor) == ("none", "none")

    def test_it_has_no_part_in_the_fingerprint(self) -> None:
        assert not set(Machine.model_fields) & set(module.Fingerprint.model_fields)
