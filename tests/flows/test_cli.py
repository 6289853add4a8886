"""The command line: what it refuses before any work starts, and what it prints without a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import ExitCode, app
from packhouse.config.schema import schema_text
from tests.classifiers import write_classifier, write_points
from tests.jobs import job, write_job


def call(*arguments: str | Path) -> Any:
    """Return the result of a command: exit code, standard output, standard error."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def truncate(folder: Path) -> None:
    """Cut a candidate's file."""
    path = folder / "candidates" / "turned-0.0.onnx"
    path.write_bytes(path.read_bytes()[:-40])


def link_weights(folder: Path) -> None:
    """Replace a weight file by a link to one elsewhere."""
    write_classifier(folder / "candidates" / "linked.onnx", external="weights.bin")
    (folder / "candidates" / "weights.bin").rename(folder / "elsewhere.bin")
    (folder / "candidates" / "weights.bin").symlink_to(folder / "elsewhere.bin")


def empty(folder: Path) -> None:
    """Remove all candidates."""
    for path in (folder / "candidates").iterdir():
        path.unlink()


BAD_INPUT: dict[str, tuple[dict[str, Any], Callable[[Path], Any] | None, list[str]]] = {
    "an unknown key": ({"packageing": []}, None, ["packageing", "unknown key", "did you mean 'packaging'"]),
    "a missing label array": (
        {"data": {"path": "points.npz", "labels": "lable"}},
        None,
        ["data.labels", "no array 'lable'", "label, x"],
    ),
    "fewer labels than samples": (
        {},
        lambda folder: write_points(folder / "points.npz", label=np.zeros(3, dtype=np.int64)),
        ["data.labels", "3 entries for 90 samples"],
    ),
    "an input that no model has": (
        {"data": {"path": "points.npz", "labels": "label", "inputs": {"pixels": "x"}}},
        None,
        ["data.inputs.pixels", "no candidate has an input 'pixels'", "inputs are x"],
    ),
    "an empty candidate folder": ({}, empty, ["candidates.path", "has no candidates"]),
    "a file that is no ONNX": (
        {},
        lambda folder: (folder / "candidates" / "text.onnx").write_text("no model"),
        ["text.onnx", "is not an ONNX model"],
    ),
    "a truncated model": ({}, truncate, ["turned-0.0.onnx", "is truncated"]),
    "a linked weight file": ({}, link_weights, ["weights.bin", "symbolic link", "copy"]),
    "an unknown execution provider": (
        {"accelerators": [{"device": "gpu", "execution_provider": "CUDA"}]},
        None,
        ["accelerators[0]", "'CUDA'", "did you mean CUDAExecutionProvider"],
    ),
    "a name that cannot be a file name": (
        {"packaging": {"type": "Zipfile", "name": "a/b"}},
        None,
        ["packaging.name", "'a/b'"],
    ),
    "an output folder that cannot be written": ({"output_dir": "/proc/packages"}, None, ["output_dir", "cannot be written"]),
    "a baseline that is no candidate": ({"baseline": "fp32"}, None, ["baseline", "'fp32' is no candidate", "turned-0.0"]),
}


@pytest.mark.parametrize("name", BAD_INPUT)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_bad_input_is_refused_with_place_and_remedy_and_nothing_is_written(command: str, name: str, tmp_path: Path) -> None:
    changes, spoil, expected = BAD_INPUT[name]
    config = write_job(tmp_path, **changes)
    if spoil:
        spoil(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = call(command, config)
    assert result.exit_code == ExitCode.BAD_INPUT
    for text in expected:
        assert text in result.stderr
    assert "→" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_input_as_json_lists_every_problem(tmp_path: Path) -> None:
    config = write_job(tmp_path, packaging=[{"type": "Zipfile", "nme": "x"}], output=1)
    result = call("plan", config, "--json")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert {problem["where"] for problem in json.loads(result.stdout)["problems"]} == {"packaging[0].nme", "output"}


def test_plan_lists_what_registering_asks_of_others(tmp_path: Path) -> None:
    config = write_job(tmp_path, packaging={"type": "AzureMLModels", "workspace": "production", "version": 3})
    printed = call("plan", config).stdout
    assert "POST to log in, and GET azureml-workspace/production: whether it is there" in printed
    assert "PUT models/OutputModels_<accelerator>_<rank>/versions/3" in printed


def test_plan_tells_what_would_run_and_what_would_be_made(tmp_path: Path) -> None:
    planned = json.loads(call("plan", write_job(tmp_path), "--json").stdout)
    assert [(item["candidate"], item["accelerator"], item["is_cached"]) for item in planned["evaluations"]] == [
        ("turned-0.0", "cpu-cpu", False),
        ("turned-0.5", "cpu-cpu", False),
    ]
    assert [(item["type"], item["is_cached"]) for item in planned["packages"]] == [("Zipfile", None)]
    assert planned["estimate_s"] > 0
    assert not (tmp_path / "packages").exists()


def test_plan_warns_of_an_image_that_will_not_be_built_for_there_is_no_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = write_job(tmp_path, packaging={"type": "Dockerfile", "build": True})
    warning = "not built: no builder works here (docker is not installed; buildah"
    assert f"    {warning}" in call("plan", config).stdout
    (package,) = json.loads(call("plan", config, "--json").stdout)["packages"]
    assert package["caveat"].startswith(warning)


def test_plan_names_candidates_that_are_the_same(tmp_path: Path) -> None:
    config = write_job(tmp_path)
    write_classifier(tmp_path / "candidates" / "copy.onnx")
    assert "copy is the same as turned-0.0 and is evaluated once" in call("plan", config).stdout


def test_plan_tells_why_an_accelerator_does_not_run_and_nothing_of_one_that_does(tmp_path: Path) -> None:
    azure, cuda = ({"execution_provider": f"{name}ExecutionProvider"} for name in ("Azure", "CUDA"))
    config = write_job(tmp_path, accelerators=[{"device": "cpu"}, azure, cuda])
    doubts = json.loads(call("plan", config, "--json").stdout)["doubtful_accelerators"]
    assert [doubt.split()[0] for doubt in doubts] == ["cpu-azure", "cpu-cuda"]
    assert "does not take all of its nodes" in doubts[0]
    assert "CUDAExecutionProvider is not in this onnxruntime" in doubts[1]
    printed = " ".join(call("plan", config).stdout.split())
    assert "cpu-cuda does not run here, so all on it will fail and the run will end incomplete" in printed


def test_plan_installs_no_runtime_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packhouse.evaluation.runtimes.find_uv_bin", lambda: pytest.fail("uv was asked for"))
    accelerator = {"execution_provider": "OpenVINOExecutionProvider", "runtime": "onnxruntime-openvino==1.24.1"}
    config = write_job(tmp_path, accelerators=[accelerator])
    assert json.loads(call("plan", config, "--json").stdout)["doubtful_accelerators"] == [
        "cpu-openvino: a run will first install onnxruntime-openvino==1.24.1; whether it works shows then"
    ]


def test_schema_prints_what_is_committed() -> None:
    assert call("schema").stdout == schema_text()


@pytest.mark.parametrize("command", ["run", "plan", "rank", "verify"])
def test_a_missing_file_is_bad_input(command: str, tmp_path: Path) -> None:
    result = call(command, tmp_path / "missing")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "missing" in result.stderr


def test_rank_refuses_what_is_no_release_record(tmp_path: Path) -> None:
    (tmp_path / "release.json").write_text(json.dumps(job()))
    result = call("rank", tmp_path)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "is no release record" in result.stderr
