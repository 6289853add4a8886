"""The Zipfile package: its layout, what unpacks from it, and that the same job gives the same bytes."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from packhouse.errors import PackagingFailed
from packhouse.evaluation.fingerprint import runtime_distribution
from packhouse.evaluation.tournament import Summary
from packhouse.packaging.zipfile import Zipfile
from packhouse.verification import verify_package
from tests.classifiers import points, write_classifier, write_points
from tests.packaging.test_runtime_packages import make_index
from tests.packaging_jobs import (
    CPU,
    EXACT,
    FAR,
    GPU,
    METRICS,
    NEAR,
    ONE,
    Grades,
    Packing,
    make_packing,
    predict,
)

BESIDE = {"configurations.json", "inference_config.json", "metrics.json", "model_info.json", "golden_samples.npz"}
FIRST = "CandidateModels/cpu-cpu/BestCandidateModel_1"
SAME = "loads on CPUExecutionProvider; 1 golden samples are what they were"
ANY_NAME = {CPU: {"model": (0.9, 1.0)}}

CREATE = """
import hashlib, os, sys
from pathlib import Path
from packhouse.artifacts import ArtifactStore
from packhouse.packaging import PackagingJob, Workplace
from packhouse.packaging.zipfile import Zipfile
os.umask(int(sys.argv[2], 8))
folder = Path(sys.argv[1])
job = PackagingJob.model_validate_json((folder / "job.json").read_bytes())
made = Zipfile(include_runtime_packages=False, export_in_mlflow_format=sys.argv[3] == "mlflow").create(
    job, Workplace(ArtifactStore(folder / "results"), folder / "scratch", folder / "cache")
)
print(hashlib.sha256(made.read_bytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    """Three candidates on two accelerators, of which the GPU ran out of memory once; not to be changed."""
    return make_packing(tmp_path_factory.mktemp("packing"), baseline=NEAR)


@pytest.fixture(scope="module")
def package(packing: Packing) -> Path:
    return packing.zip()


def names_in(package: Path) -> list[str]:
    with zipfile.ZipFile(package) as archive:
        return archive.namelist()


def unpack(package: Path, folder: Path) -> Path:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def read(package: Path, name: str) -> Any:
    """Return the content of a JSON file in a package."""
    with zipfile.ZipFile(package) as archive:
        return json.loads(archive.read(name))


def create_session(root: Path, config: dict[str, Any]) -> onnxruntime.InferenceSession:
    """Create a session as an entry of models_rank.json says."""
    settings = config["inference_settings"]
    options = onnxruntime.SessionOptions()
    chosen = {name: value for name, value in settings["session_options"].items() if value is not None}
    for key, value in chosen.pop("extra_session_config", {}).items():
        options.add_session_config_entry(key, value)
    if "graph_optimization_level" in chosen:
        level = chosen.pop("graph_optimization_level")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
    if "execution_mode" in chosen:
        options.execution_mode = onnxruntime.ExecutionMode(chosen.pop("execution_mode"))
    for name, value in chosen.items():
        setattr(options, name, value)
    model = root / config["model_path"]
    return onnxruntime.InferenceSession(model, options, settings["execution_provider"], settings["provider_options"])


def test_layout_is_olives_with_a_folder_per_accelerator_and_rank(package: Path) -> None:
    folders = [f"CandidateModels/{CPU}/BestCandidateModel_{rank}" for rank in (1, 2, 3)]
    folders += [f"CandidateModels/{GPU}/BestCandidateModel_{rank}" for rank in (1, 2)]
    models = {f"{folder}/{name}" for folder in folders for name in {"model.onnx", *BESIDE}}
    others = {name for name in names_in(package) if not name.startswith("SampleCode/")} - models
    assert others == {"models_rank.json", "manifest.json", "sbom.cdx.json", "verify.py", "grading.html"}
    assert models <= set(names_in(package))
    assert {"SampleCode/README.md", "SampleCode/sample_input.json", "SampleCode/python/sample.py"} <= set(names_in(package))


def test_folders_of_each_accelerator_follow_its_own_ranking_from_one(packing: Packing, package: Path) -> None:
    for spec, ranking in packing.job.by_accelerator.items():
        for place, ranked in enumerate(ranking.ranked, start=1):
            with zipfile.ZipFile(package) as archive:
                content = archive.read(f"CandidateModels/{spec}/BestCandidateModel_{place}/model.onnx")
            candidate = packing.job.candidate(ranked.candidate)
            assert hashlib.sha256(content).hexdigest() == candidate.files[candidate.entry].sha256


def test_models_rank_lists_every_accelerator_from_the_best_of_all_down(package: Path) -> None:
    entries = read(package, "models_rank.json")
    assert [entry["rank"] for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry["metrics"]["accuracy-accuracy_score"]["value"] for entry in entries] == [0.97, 0.95, 0.91, 0.90, 0.60]
    paths = [entry["model_config"]["config"]["model_path"] for entry in entries]
    assert [path.split("/")[1:3] for path in paths] == [
        [CPU, "BestCandidateModel_1"],
        [GPU, "BestCandidateModel_1"],
        [CPU, "BestCandidateModel_2"],
        [GPU, "BestCandidateModel_2"],
        [CPU, "BestCandidateModel_3"],
    ]


def test_every_model_loads_from_where_models_rank_says_with_its_recorded_settings(
    packing: Packing, package: Path, tmp_path: Path
) -> None:
    root = unpack(package, tmp_path)
    samples, _ = points(8)
    for ranked, entry in zip(packing.job.overall.ranked, read(package, "models_rank.json"), strict=True):
        config = entry["model_config"]["config"]
        provider = config["inference_settings"]["execution_provider"]
        if provider == ["CUDAExecutionProvider"]:
            assert (root / config["model_path"]).is_file()
            continue
        session = create_session(root, config)
        assert session.get_providers() == provider == ["CPUExecutionProvider"]
        assert session.get_session_options().intra_op_num_threads == 1
        name = packing.job.candidate(ranked.candidate).name
        expected = predict(packing.workplace.scratch.parent / "candidates" / f"{name}.onnx", samples)
        np.testing.assert_array_equal(session.run(None, {"x": samples})[0], expected["y"])


def test_model_info_is_the_entry_in_models_rank(package: Path) -> None:
    for entry in read(package, "models_rank.json"):
        folder = entry["model_config"]["config"]["model_path"].rpartition("/")[0]
        assert read(package, f"{folder}/model_info.json") == entry


def test_model_info_has_olives_keys_and_the_settings_of_the_session(package: Path) -> None:
    assert read(package, f"CandidateModels/{GPU}/BestCandidateModel_1/model_info.json") == {
        "rank": 2,
        "model_config": {
            "type": "ONNXModel",
            "config": {
                "model_path": f"CandidateModels/{GPU}/BestCandidateModel_1/model.onnx",
                "onnx_file_name": None,
                "inference_settings": {
                    "execution_provider": ["CUDAExecutionProvider"],
                    "provider_options": [{"device_id": "0"}],
                    "io_bind": False,
                    "session_options": dict.fromkeys(
                        [
                            "execution_mode",
                            "graph_optimization_level",
                            "extra_session_config",
                            "inter_op_num_threads",
                            "intra_op_num_threads",
                        ]
                    ),
                },
                "use_ort_extensions": False,
                "external_initializers_file_name": None,
                "constant_inputs_file_name": None,
                "model_attributes": None,
            },
        },
        "metrics": {
            "accuracy-accuracy_score": {"value": 0.95, "priority": 1, "higher_is_better": True},
            "latency-p50": {"value": 0.5, "priority": 2, "higher_is_better": False},
            "latency-max": {"value": 5.0, "priority": -1, "higher_is_better": False},
        },
    }


@pytest.mark.parametrize("is_bound", [False, True])
def test_model_info_says_whether_inputs_and_outputs_were_bound_where_it_was_timed(packing: Packing, is_bound: bool) -> None:
    timed = {"io_binding": is_bound, "tournaments": {CPU: Summary(state="decided")}}
    package = replace(packing, job=packing.job.model_copy(update=timed)).zip()

    entries = [read(package, f"CandidateModels/{spec}/BestCandidateModel_1/model_info.json") for spec in (CPU, GPU)]

    found = [entry["model_config"]["config"]["inference_settings"]["io_bind"] for entry in entries]
    assert found == [is_bound, False]


def test_inference_config_pairs_the_provider_with_its_options(package: Path) -> None:
    assert read(package, f"{FIRST}/inference_config.json") == {
        "execution_provider": [["CPUExecutionProvider", {}]],
        "session_options": {
            "execution_mode": None,
            "graph_optimization_level": 99,
            "extra_session_config": None,
            "inter_op_num_threads": None,
            "intra_op_num_threads": 1,
        },
    }
    on_gpu = read(package, f"CandidateModels/{GPU}/BestCandidateModel_1/inference_config.json")
    assert on_gpu["execution_provider"] == [["CUDAExecutionProvider", {"device_id": "0"}]]


def test_a_candidates_own_session_options_are_what_the_package_records(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "model.onnx")
    own = {"execution_mode": 1, "inter_op_num_threads": 2, "extra_session_config": {"session.intra_op.allow_spinning": "0"}}
    source = {"type": "list", "models": [{"name": "model", "path": str(path), "session_options": own}]}
    package = make_packing(tmp_path, ANY_NAME, candidates=source).zip()
    recorded = {"graph_optimization_level": 99, "intra_op_num_threads": 1, **own}
    assert read(package, f"{FIRST}/inference_config.json")["session_options"] == recorded
    config = read(package, "models_rank.json")[0]["model_config"]["config"]
    assert config["inference_settings"]["session_options"] == recorded
    session = create_session(unpack(package, tmp_path / "unpacked"), config)
    assert session.get_session_options().execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert verify_package(package).models[0].outcome == SAME


def test_metrics_file_compares_with_the_baseline_on_the_same_accelerator(package: Path) -> None:
    def metrics(accuracy: float, latency_ms: float) -> dict[str, Any]:
        return {
            "accuracy-accuracy_score": {"value": accuracy, "priority": 1, "higher_is_better": True},
            "latency-p50": {"value": latency_ms, "priority": 2, "higher_is_better": False},
            "latency-max": {"value": 10 * latency_ms, "priority": -1, "higher_is_better": False},
        }

    for spec, accuracy, latency_ms, of_baseline in ((CPU, 0.97, 3.0, (0.91, 2.0)), (GPU, 0.95, 0.5, (0.90, 0.4))):
        assert read(package, f"CandidateModels/{spec}/BestCandidateModel_1/metrics.json") == {
            "input_model_metrics": metrics(*of_baseline),
            "candidate_model_metrics": metrics(accuracy, latency_ms),
        }


@pytest.mark.parametrize("grades", [ONE, {CPU: {**ONE[CPU], NEAR: "it crashed"}}], ids=["no baseline", "a failed baseline"])
def test_metrics_file_has_null_for_a_baseline_without_values(tmp_path: Path, grades: Any) -> None:
    baseline = {"baseline": NEAR} if NEAR in grades[CPU] else {}
    metrics = read(make_packing(tmp_path, grades, **baseline).zip(), f"{FIRST}/metrics.json")
    assert list(metrics) == ["input_model_metrics", "candidate_model_metrics"]
    assert metrics["input_model_metrics"] is None
    assert metrics["candidate_model_metrics"]["accuracy-accuracy_score"]["value"] == 0.97


def test_configurations_tell_the_history_from_the_input_model_in_order(tmp_path: Path) -> None:
    def node(parent: str | None, config: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
        return {"parent_model_id": parent, "pass_run_config": config, **more}

    write_classifier(tmp_path / "olive" / "cache" / "model.onnx")
    model = {"type": "ONNXModel", "config": {"model_path": str(tmp_path / "olive" / "cache" / "model.onnx")}}
    nodes = {
        "b_quantized": node("z_converted", {"weight_type": "QUInt8"}, model_config_data=model, metrics={"value": {}}),
        "m_input": node(None, None),
        "z_converted": node("m_input", {"target_opset": 17}),
    }
    (tmp_path / "olive" / "footprint.json").write_text(json.dumps(nodes))
    source = {"type": "olive", "path": str(tmp_path / "olive")}
    package = make_packing(tmp_path, {CPU: {"b_quantized": (0.9, 1.0)}}, candidates=source).zip()
    history = read(package, f"{FIRST}/configurations.json")
    assert list(history.items()) == [
        ("m_input", None),
        ("z_converted", {"target_opset": 17}),
        ("b_quantized", {"weight_type": "QUInt8"}),
    ]


def test_configurations_of_a_candidate_without_history_name_it_as_the_input_model(package: Path) -> None:
    assert read(package, f"{FIRST}/configurations.json") == {EXACT: None}


def test_top_k_packs_the_best_of_every_accelerator_under_their_ranks_across_all(packing: Packing) -> None:
    package = packing.zip(top_k=1)
    models = [name for name in names_in(package) if name.endswith(".onnx")]
    assert models == [f"CandidateModels/{spec}/BestCandidateModel_1/model.onnx" for spec in (CPU, GPU)]
    assert [entry["rank"] for entry in read(package, "models_rank.json")] == [1, 2]


def test_top_k_that_leaves_out_the_middle_keeps_the_ranks_across_all(tmp_path: Path) -> None:
    grades = {CPU: {EXACT: (0.97, 3.0), NEAR: (0.96, 2.0)}, GPU: {EXACT: (0.95, 0.5), NEAR: (0.90, 0.4)}}
    entries = read(make_packing(tmp_path, grades).zip(top_k=1), "models_rank.json")
    assert [entry["rank"] for entry in entries] == [1, 3]


def test_failed_and_rejected_candidates_are_in_no_file_of_the_package(tmp_path: Path) -> None:
    goal = {"type": "threshold", "value": 0.9}
    sub_type = {"name": "accuracy_score", "priority": 1, "goal": goal}
    accuracy = {"name": "accuracy", "type": "accuracy", "sub_types": [sub_type]}
    packing = make_packing(tmp_path, metrics=[accuracy, METRICS[1]])
    package = packing.zip()
    assert {item.status for item in packing.job.overall.unranked} == {"failed", "rejected"}
    assert len(read(package, "models_rank.json")) == 4
    with zipfile.ZipFile(package) as archive:
        texts = b"".join(archive.read(name) for name in archive.namelist())
    assert packing.candidate(NEAR).digest.encode() in texts
    assert packing.candidate(FAR).digest.encode() not in texts
    assert FAR.encode() not in texts


def test_an_accelerator_on_which_nothing_is_ranked_has_no_folder(tmp_path: Path) -> None:
    grades: Grades = {CPU: {EXACT: (0.97, 3.0)}, GPU: {EXACT: "no such device"}}
    assert not [name for name in names_in(make_packing(tmp_path, grades).zip()) if GPU in name]


def test_external_data_keep_their_name_and_load_after_unpacking(tmp_path: Path) -> None:
    original = write_classifier(tmp_path / "candidates" / "net.onnx", error=0.2, external="weights of net.bin")
    package = make_packing(tmp_path, {CPU: {"net": (0.9, 1.0)}}).zip()
    assert {f"{FIRST}/model.onnx", f"{FIRST}/weights of net.bin"} <= set(names_in(package))
    samples, _ = points(8)
    (entry,) = read(package, "models_rank.json")
    session = create_session(unpack(package, tmp_path / "unpacked"), entry["model_config"]["config"])
    np.testing.assert_array_equal(session.run(None, {"x": samples})[0], predict(original, samples)["y"])
    assert verify_package(package).models[0].outcome == SAME


def test_further_files_of_a_candidates_folder_are_packed_at_their_places(tmp_path: Path) -> None:
    folder = tmp_path / "candidates" / "model"
    (folder / "data").mkdir(parents=True)
    write_classifier(folder / "any name.onnx", external="data/weights.bin")
    (folder / "tokenizer" / "deep").mkdir(parents=True)
    (folder / "tokenizer" / "deep" / "vocab — größe.txt").write_text("a b c")
    (folder / "labels.json").write_text("{}")
    packing = make_packing(tmp_path, ANY_NAME)
    for in_mlflow_format, prefix in (False, FIRST), (True, f"{FIRST}/mlflow_model"):
        package = packing.zip(export_in_mlflow_format=in_mlflow_format)
        with zipfile.ZipFile(package) as archive:
            assert archive.read(f"{prefix}/tokenizer/deep/vocab — größe.txt") == b"a b c"
            assert archive.read(f"{prefix}/labels.json") == b"{}"
        assert f"{prefix}/data/weights.bin" in names_in(package)
        assert verify_package(package).models[0].outcome == SAME


def test_mlflow_format_puts_the_model_below_mlflow_model_and_its_other_files_beside_it(packing: Packing) -> None:
    package = packing.zip(export_in_mlflow_format=True, top_k=1)
    below = {name.removeprefix(f"{FIRST}/") for name in names_in(package) if name.startswith(f"{FIRST}/")}
    mlflow = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "model.onnx"}
    mlflow |= {"input_example.json", "serving_input_example.json"}
    assert below == BESIDE | {f"mlflow_model/{name}" for name in mlflow}
    paths = [entry["model_config"]["config"]["model_path"] for entry in read(package, "models_rank.json")]
    assert paths == [f"CandidateModels/{spec}/BestCandidateModel_1/mlflow_model/model.onnx" for spec in (CPU, GPU)]
    assert read(package, f"{FIRST}/model_info.json") == read(package, "models_rank.json")[0]


def test_without_runtime_packages_there_is_no_folder_for_them(package: Path) -> None:
    assert not [name for name in names_in(package) if name.startswith("ONNXRuntimePackages")]


def test_runtime_packages_are_what_pip_fetches_for_the_runtime_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_index(tmp_path / "index", monkeypatch)
    packing = make_packing(tmp_path, ONE)
    measured = packing.job.fingerprint.model_copy(update={"runtime": "engine", "runtime_version": "1.0"})
    packing = Packing(packing.job.model_copy(update={"fingerprint": measured}), packing.workplace)
    package = packing.zip(include_runtime_packages=True)
    wheels = [name for name in names_in(package) if name.startswith("ONNXRuntimePackages/")]
    names = ["engine-1.0-py3-none-any.whl", "numbers_lib-2.0-py3-none-any.whl", "requirements.txt"]
    assert wheels == [f"ONNXRuntimePackages/python/{name}" for name in names]
    assert verify_package(package).files == len(names_in(package)) - 1


@pytest.mark.parametrize("first", [0, 1])
def test_the_manifest_names_the_runtime_of_each_accelerator(tmp_path: Path, first: int) -> None:
    own = {"device": "gpu", "execution_provider": "CUDAExecutionProvider", "runtime": "onnxruntime-gpu==1.30.0"}
    accelerators = [{"device": "cpu"}, own]
    grades: Grades = {CPU: {EXACT: (0.97, 3.0)}, GPU: {EXACT: (0.95, 0.5)}}
    packing = make_packing(tmp_path, grades, accelerators=[accelerators[first], accelerators[1 - first]])
    packed = {item["accelerator"]: item["runtime"] for item in read(packing.zip(), "manifest.json")["candidates"]}
    assert packed == {CPU: runtime_distribution(), GPU: "onnxruntime-gpu"}
    assert packing.job.runtime_on(GPU) == ("onnxruntime-gpu", "1.30.0")


@pytest.mark.real
def test_runtime_packages_are_by_default_the_wheels_of_the_runtime_that_was_measured(tmp_path: Path) -> None:
    packing = make_packing(tmp_path, ONE)
    package = packing.create(Zipfile())
    names = {name.rpartition("/")[2] for name in names_in(package) if name.startswith("ONNXRuntimePackages/python/")}
    version = packing.job.fingerprint.runtime_version
    assert any(name.startswith(f"onnxruntime-{version}-") and name.endswith(".whl") for name in names)
    assert "requirements.txt" in names
    assert verify_package(package).files == len(names_in(package)) - 1
    assert packing.create(Zipfile()).read_bytes() == package.read_bytes()


@pytest.mark.parametrize("name", ["a/b", "../up", "two words", "größe 模型 🎉", "C:\\x", "nul", ".", "%s {0} $x", "a\nb", '"'])
def test_a_candidate_of_any_name_is_packed_under_its_rank_only(tmp_path: Path, name: str) -> None:
    path = write_classifier(tmp_path / "model.onnx")
    source = {"type": "list", "models": [{"name": name, "path": str(path)}]}
    packing = make_packing(tmp_path, {CPU: {name: (0.9, 1.0)}}, candidates=source)
    for in_mlflow_format in (False, True):
        package = packing.zip(export_in_mlflow_format=in_mlflow_format)
        assert read(package, "manifest.json")["candidates"][0]["name"] == name
        assert read(package, f"{FIRST}/configurations.json") == {name: None}
        assert all(re.fullmatch(r"[\w./ -]+", packed) for packed in names_in(package))
        unpack(package, tmp_path / "unpacked")
        assert verify_package(package).models[0].outcome == SAME


@pytest.mark.parametrize("name", ["metrics.json", "inference_config.json", "configurations.json", "model_info.json"])
def test_a_candidates_file_that_is_called_like_one_of_ours_is_refused_and_named(tmp_path: Path, name: str) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx")
    (tmp_path / "candidates" / "model" / name).write_text("the candidate's own")
    with pytest.raises(PackagingFailed, match=rf"(?s)model.*{re.escape(repr(name))}.*rename"):
        make_packing(tmp_path, ANY_NAME).zip()


@pytest.mark.parametrize("name", ["MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"])
def test_a_candidates_file_that_is_called_like_one_of_mlflows_is_refused_only_in_that_format(tmp_path: Path, name: str) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx")
    (tmp_path / "candidates" / "model" / name).write_text("the candidate's own")
    packing = make_packing(tmp_path, ANY_NAME)
    with zipfile.ZipFile(packing.zip()) as archive:
        assert archive.read(f"{FIRST}/{name}") == b"the candidate's own"
    with pytest.raises(PackagingFailed, match=rf"(?s)model.*{re.escape(repr(name))}.*rename"):
        packing.zip(export_in_mlflow_format=True)


def test_a_candidates_metrics_json_is_kept_in_mlflow_format_where_it_is_in_no_ones_way(tmp_path: Path) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx")
    (tmp_path / "candidates" / "model" / "metrics.json").write_text("the candidate's own")
    package = make_packing(tmp_path, ANY_NAME).zip(export_in_mlflow_format=True)
    with zipfile.ZipFile(package) as archive:
        assert archive.read(f"{FIRST}/mlflow_model/metrics.json") == b"the candidate's own"
    assert "candidate_model_metrics" in read(package, f"{FIRST}/metrics.json")


@pytest.mark.parametrize(
    "files",
    [
        ["Metrics.json"],
        ["MODEL.ONNX"],
        ["Model.ONNX/readme.txt"],
        ["model_info.json/readme.txt"],
        ["notes.txt", "Notes.txt"],
        ["straße.txt", "STRASSE.TXT"],
        ["/".join([*["n" * 240] * 4, "n" * 30])],
        ["back\\slash.txt"],
        ["drive:c.txt"],
    ],
    ids=lambda files: " ".join(files)[:20],
)
def test_files_that_could_not_all_be_unpacked_everywhere_are_refused_before_a_package_is_made(
    tmp_path: Path, files: list[str]
) -> None:
    folder = tmp_path / "candidates" / "model"
    write_classifier(folder / "net.onnx")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("the candidate's own")
    packing = make_packing(tmp_path, ANY_NAME)
    with pytest.raises(PackagingFailed, match="rename"):
        packing.zip()
    assert not list(packing.workplace.scratch.rglob("*.zip"))


def test_sample_input_is_the_first_sample_with_the_best_candidates_outputs(packing: Packing, package: Path) -> None:
    sample = read(package, "SampleCode/sample_input.json")
    samples, _ = points()
    assert sample["inputs"]["x"] == {"dtype": "float32", "shape": [1, 2], "data": samples[:1].ravel().tolist()}
    expected = predict(packing.workplace.scratch.parent / "candidates" / f"{EXACT}.onnx", samples[:1])["y"]
    assert sample["outputs"] == {"y": {"dtype": "float32", "shape": [1, 3], "data": expected.ravel().tolist()}}


@pytest.mark.parametrize("count", [3, 4, 9])
def test_sample_input_of_a_fixed_batch_is_a_whole_batch_of_inputs_and_outputs(tmp_path: Path, count: int) -> None:
    model = write_classifier(tmp_path / "candidates" / f"{EXACT}.onnx", batch=4)
    write_points(tmp_path / "points.npz", count=count)
    sample = read(make_packing(tmp_path, ONE).zip(), "SampleCode/sample_input.json")
    x, y = (
        np.array(tensor["data"], tensor["dtype"]).reshape(tensor["shape"])
        for tensor in (sample["inputs"]["x"], sample["outputs"]["y"])
    )
    assert x.shape == (4, 2)
    np.testing.assert_allclose(y, predict(model, x)["y"], rtol=1e-6)


def test_outputs_that_json_cannot_hold_are_left_out_of_the_sample(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "candidates" / "model.onnx")
    model = onnx.load(path)
    for name in ("zero", "lost"):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]))
    model.graph.node.append(onnx.helper.make_node("Sub", ["y", "y"], ["zero"]))
    model.graph.node.append(onnx.helper.make_node("Log", ["zero"], ["lost"]))
    onnx.save(model, path)
    package = make_packing(tmp_path, ANY_NAME).zip()
    assert list(read(package, "SampleCode/sample_input.json")["outputs"]) == ["y", "zero"]


def test_the_packed_sample_program_finds_what_it_expects(package: Path, tmp_path: Path) -> None:
    root = unpack(package, tmp_path)
    done = subprocess.run(
        [sys.executable, root / "SampleCode" / "python" / "sample.py"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as expected" in done.stdout


def test_manifest_describes_every_file_and_every_candidate(packing: Packing, package: Path) -> None:
    manifest = read(package, "manifest.json")
    with zipfile.ZipFile(package) as archive:
        contents = {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}
    assert manifest["schema_version"] == 2
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)} for name, content in contents.items()
    }
    places = [(item["accelerator"], item["rank"], item["overall_rank"]) for item in manifest["candidates"]]
    assert places == [(CPU, 1, 1), (GPU, 1, 2), (CPU, 2, 3), (GPU, 2, 4), (CPU, 3, 5)]
    assert manifest["candidates"][0] == {
        "name": EXACT,
        "digest": packing.candidate(EXACT).digest,
        "accelerator": CPU,
        "rank": 1,
        "overall_rank": 1,
        "decided_by": packing.job.by_accelerator[CPU].ranked[0].decided_by,
        "model_path": f"{FIRST}/model.onnx",
        "settings_path": f"{FIRST}/inference_config.json",
        "runtime": "onnxruntime",
        "runtime_version": "1.24.0",
        "provider_libraries": {},
        "opset": 17,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 2]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 3]}],
        "dimensions": {},
        "metrics": {
            "accuracy-accuracy_score": {
                "value": 0.97,
                "unit": "",
                "n": 90,
                "interval": None,
                "priority": 1,
                "higher_is_better": True,
            },
            "latency-p50": {"value": 3.0, "unit": "ms", "n": 90, "interval": None, "priority": 2, "higher_is_better": False},
            "latency-max": {"value": 30.0, "unit": "ms", "n": 90, "interval": None, "priority": -1, "higher_is_better": False},
        },
        "golden_samples": {
            "path": f"{FIRST}/golden_samples.npz",
            "samples": 1,
            "batch_size": 1,
            "atol": 1e-3,
            "rtol": 1e-3,
        },
    }


@pytest.mark.parametrize("form", ["plain", pytest.param("mlflow", marks=pytest.mark.real)])
def test_the_same_job_gives_the_same_bytes_wherever_and_whenever_it_is_packed(tmp_path: Path, form: str) -> None:
    surroundings = [
        {"TZ": "UTC", "PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8"},
        {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2", "LC_ALL": "C"},
    ]
    digests = []
    packing = make_packing(tmp_path / "first")
    for number, environment in enumerate(surroundings):
        folder = tmp_path / f"copy {number}"
        shutil.copytree(tmp_path / "first" / "results", folder / "results")
        for path in folder.rglob("*"):
            os.utime(path, (1e9 * (number + 1), 1e9 * (number + 1)))
        (folder / "scratch").mkdir()
        (folder / "job.json").write_text(packing.job.model_dump_json())
        arguments = [sys.executable, "-c", CREATE, str(folder), ("022", "077")[number], form]
        done = subprocess.run(
            arguments, check=True, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment}
        )
        digests.append(done.stdout.strip())
    here = packing.zip(export_in_mlflow_format=form == "mlflow").read_bytes()
    assert digests == [hashlib.sha256(here).hexdigest()] * 2


def test_configured_order_of_candidates_and_accelerators_is_not_in_the_bytes(tmp_path: Path) -> None:
    packing = make_packing(tmp_path)
    job = packing.job
    reordered = job.model_copy(
        update={
            "candidates": job.candidates[::-1],
            "evaluations": job.evaluations[::-1],
            "accelerators": job.accelerators[::-1],
            "by_accelerator": dict(reversed(job.by_accelerator.items())),
        }
    )
    assert Packing(reordered, packing.workplace).zip().read_bytes() == packing.zip().read_bytes()


def test_plan_says_what_goes_in() -> None:
    assert (
        Zipfile(name="points").plan()
        == "points.zip: all ranked candidates of every accelerator, with the wheels of onnxruntime"
    )
    chosen = Zipfile(top_k=2, export_in_mlflow_format=True, include_runtime_packages=False)
    assert chosen.plan() == "OutputModels.zip: the best 2 of every accelerator in MLflow format"
