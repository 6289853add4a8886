"""The digits example on three accelerators that are here and one that is not."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.real.conftest import ROOT, Packhouse

pytestmark = pytest.mark.real

EXAMPLE = ROOT / "examples" / "digits"
SAMPLES = 150
HERE = ("cpu-cpu", "cpu-openvino", "cpu-qnn")


def test_accelerators_have_winners_of_their_own_and_failures_their_reasons(packhouse: Packhouse, tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLE / "make_candidates.py", tmp_path], check=True)
    use_fewer_samples(tmp_path / "evaluation.npz")
    config = tmp_path / "accelerators.yaml"
    # What is nearly alike may stay undecided here.
    config.write_text((EXAMPLE / config.name).read_text() + "timing: {seconds_per_candidate: 3}\n")

    job = packhouse.release(config, code=3)["job"]

    names = {candidate["digest"]: candidate["name"] for candidate in job["candidates"]}
    rankings = job["by_accelerator"]
    winners = {spec: names[rankings[spec]["ranked"][0]["candidate"]] for spec in HERE}
    assert len(set(winners.values())) > 1, winners
    failed = {(spec, names[item["candidate"]]): item["reason"] for spec in rankings for item in rankings[spec]["unranked"]}
    assert "not acyclic" in failed["cpu-openvino", "wide-int8-dynamic"]
    assert {name for spec, name in failed if spec == "gpu-cuda"} == set(names.values())
    assert all("CUDAExecutionProvider is not in this onnxruntime" in failed["gpu-cuda", name] for name in names.values())
    assert {spec for spec, _ in failed} == {"cpu-openvino", "gpu-cuda"}
    placements = {item["accelerator"]: set(item["placement"]) for item in job["evaluations"] if item["placement"]}
    assert placements == {
        "cpu-cpu": {"CPUExecutionProvider"},
        "cpu-openvino": {"OpenVINOExecutionProvider"},
        "cpu-qnn": {"QNNExecutionProvider"},
    }
    with zipfile.ZipFile(tmp_path / "packages-everywhere" / "digits-everywhere.zip") as package:
        ranked = json.loads(package.read("models_rank.json"))
    assert len(ranked) == sum(len(rankings[spec]["ranked"]) for spec in HERE)


def use_fewer_samples(data: Path) -> None:
    """Keep the first samples: what simulates an NPU takes 15 ms for each, in every process that runs a model."""
    with np.load(data) as samples:
        kept = {name: samples[name][:SAMPLES] for name in samples.files}
    np.savez(data, **kept)
