"""MLflow models, as a package of their own and inside the Zipfile: MLflow loads them, and they predict the same."""

import importlib.util
import json
import platform
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper
from pydantic import ValidationError

from packhouse.config import load_config
from packhouse.errors import InputError, PackagingFailed
from packhouse.packaging import Packaging
from packhouse.packaging.azureml.models import AzureMLModels
from packhouse.packaging.docker.dockerfile import Dockerfile
from packhouse.packaging.mlflow.model import MLflowModel
from packhouse.packaging.zipfile import Zipfile
from packhouse.plan import prepare
from tests.classifiers import points, write_classifier
from tests.jobs import write_job
from tests.packaging_jobs import CPU, EXACT, GPU, NEAR, ONE, Grades, Packing, make_packing, predict

MLFLOWS = {
    "MLmodel",
    "conda.yaml",
    "python_env.yaml",
    "requirements.txt",
    "input_example.json",
    "serving_input_example.json",
    "model.onnx",
}
OURS = {
    "manifest.json",
    "verify.py",
    "grading.html",
    "inference_config.json",
    "configurations.json",
    "metrics.json",
    "model_info.json",
    "golden_samples.npz",
    "sbom.cdx.json",
}
ANY_NAME = {CPU: {"model": (0.9, 1.0)}}


@pytest.fixture(scope="module")
def mlflow() -> Any:
    import mlflow.onnx
    import mlflow.pyfunc

    return mlflow


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def add_output(path: Path, node: onnx.NodeProto, output: onnx.ValueInfoProto) -> None:
    """Give the model at `path` one more output."""
    model = onnx.load(path)
    model.graph.node.append(node)
    model.graph.output.append(output)
    onnx.save(model, path)


def model_in_zip(packing: Packing, folder: Path) -> Path:
    with zipfile.ZipFile(packing.zip(export_in_mlflow_format=True)) as archive:
        archive.extractall(folder)
    return folder / "CandidateModels" / CPU / "BestCandidateModel_1" / "mlflow_model"


def model_alone(packing: Packing, _: Path) -> Path:
    return packing.create(MLflowModel(name="best"))


@pytest.mark.parametrize("external", [None, "weights.bin"], ids=["one file", "external data"])
@pytest.mark.parametrize("make", [model_alone, model_in_zip])
def test_mlflow_loads_the_model_and_it_predicts_like_onnxruntime(
    mlflow: Any, tmp_path: Path, make: Any, external: str | None
) -> None:
    original = write_classifier(tmp_path / "candidates" / "model.onnx", error=0.1, external=external)
    folder = make(make_packing(tmp_path, ANY_NAME), tmp_path / "unpacked")
    samples, _ = points(8)
    expected = predict(original, samples)["y"]
    for given in samples, {"x": samples}:
        np.testing.assert_array_equal(mlflow.pyfunc.load_model(str(folder)).predict(given)["y"], expected)
    loaded = mlflow.onnx.load_model(str(folder))
    session = onnxruntime.InferenceSession(loaded.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": samples})[0], expected)


def test_folder_holds_the_best_candidate_of_all_and_nothing_but_its_description(tmp_path: Path) -> None:
    grades: Grades = {CPU: {EXACT: (0.91, 1.0), NEAR: (0.90, 1.0)}, GPU: {EXACT: "out of memory", NEAR: (0.97, 1.0)}}
    packing = make_packing(tmp_path, grades)
    folder = packing.create(MLflowModel(name="best"))
    assert folder.name == "best"
    assert {path.name for path in folder.iterdir()} == MLFLOWS | OURS
    original = tmp_path / "candidates" / f"{NEAR}.onnx"
    assert (folder / "model.onnx").read_bytes() == original.read_bytes()
    assert read_yaml(folder / "MLmodel")["metadata"]["accelerator"] == GPU


def test_signature_names_types_and_shapes_are_the_models(mlflow: Any, tmp_path: Path) -> None:
    model = mlflow.models.Model.load(str(make_packing(tmp_path, ONE).create(MLflowModel())))
    (value,), (output,) = model.signature.inputs.inputs, model.signature.outputs.inputs
    assert (value.name, value.type, value.shape) == ("x", np.dtype("float32"), (-1, 2))
    assert (output.name, output.type, output.shape) == ("y", np.dtype("float32"), (-1, 3))


@pytest.mark.parametrize(
    "kind",
    [TensorProto.FLOAT16, TensorProto.STRING, TensorProto.BOOL, TensorProto.INT64, TensorProto.UINT8, TensorProto.DOUBLE],
    ids=TensorProto.DataType.Name,
)
def test_outputs_of_every_type_have_a_signature_that_mlflow_reads(mlflow: Any, tmp_path: Path, kind: int) -> None:
    path = write_classifier(tmp_path / "candidates" / "model.onnx")
    add_output(path, helper.make_node("Cast", ["y"], ["cast"], to=kind), helper.make_tensor_value_info("cast", kind, ["n", 3]))
    model = mlflow.models.Model.load(str(make_packing(tmp_path, ANY_NAME).create(MLflowModel())))
    assert model.signature.inputs.input_names() == ["x"]
    assert model.signature.outputs.input_names() == ["y", "cast"]
    assert model.signature.outputs.inputs[1].type.kind == helper.tensor_dtype_to_np_dtype(kind).kind.replace("O", "U")


def test_an_output_that_is_no_tensor_is_left_out_of_the_signature(mlflow: Any, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "candidates" / "model.onnx")
    sequence = helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, None)
    add_output(path, helper.make_node("SequenceConstruct", ["y", "y"], ["all"]), sequence)
    packing = make_packing(tmp_path, ANY_NAME)
    folder = packing.create(MLflowModel())
    model = mlflow.models.Model.load(str(folder))
    assert model.signature.inputs.input_names() == ["x"]
    assert model.signature.outputs is None
    samples, _ = points(4)
    predicted = mlflow.pyfunc.load_model(str(folder)).predict(samples)
    np.testing.assert_array_equal(predicted["all"][1], predict(path, samples)["y"])


def test_session_options_and_provider_are_those_that_it_was_graded_with(mlflow: Any, tmp_path: Path) -> None:
    accelerators = [
        {
            "session_options": {
                "intra_op_num_threads": 3,
                "inter_op_num_threads": 2,
                "execution_mode": 1,
                "graph_optimization_level": 1,
                "extra_session_config": {"session.intra_op.allow_spinning": "0"},
            }
        }
    ]
    folder = make_packing(tmp_path, ONE, accelerators=accelerators).create(MLflowModel())
    flavor = read_yaml(folder / "MLmodel")["flavors"]["onnx"]
    assert flavor["providers"] == ["CPUExecutionProvider"]
    assert flavor["onnx_session_options"] == {**accelerators[0]["session_options"], "execution_mode": "PARALLEL"}
    options = mlflow.pyfunc.load_model(str(folder)).get_raw_model().get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 2)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_options_of_the_provider_are_where_mlflow_passes_them_on(tmp_path: Path) -> None:
    folder = make_packing(tmp_path, {CPU: {EXACT: (0.5, 1.0)}, GPU: {EXACT: (0.9, 1.0)}}).create(MLflowModel())
    assert read_yaml(folder / "MLmodel")["flavors"]["onnx"]["providers"] == [["CUDAExecutionProvider", {"device_id": "0"}]]


@pytest.mark.parametrize("mode", [0, 1])
def test_execution_mode_is_written_as_mlflow_names_it(tmp_path: Path, mode: int) -> None:
    accelerators = [{"session_options": {"execution_mode": mode}}]
    folder = make_packing(tmp_path, ONE, accelerators=accelerators).create(MLflowModel())
    options = read_yaml(folder / "MLmodel")["flavors"]["onnx"]["onnx_session_options"]
    assert options == {"execution_mode": ("SEQUENTIAL", "PARALLEL")[mode]}


def test_requirements_pin_the_runtime_that_was_measured_everywhere(tmp_path: Path) -> None:
    packing = make_packing(tmp_path, ONE)
    folder = packing.create(MLflowModel())
    requirements = (folder / "requirements.txt").read_text().splitlines()
    runtime = f"{packing.job.fingerprint.runtime}=={packing.job.fingerprint.runtime_version}"
    beside = [f"{name}=={metadata.version(name)}" for name in ("mlflow-skinny", "numpy", "onnx", "pandas")]
    assert requirements == sorted([*beside, runtime])
    assert read_yaml(folder / "conda.yaml")["dependencies"][-1] == {"pip": requirements}
    assert read_yaml(folder / "python_env.yaml")["dependencies"] == ["-r requirements.txt"]
    assert read_yaml(folder / "python_env.yaml")["python"] == platform.python_version()
    assert f"python={platform.python_version()}" in read_yaml(folder / "conda.yaml")["dependencies"]


def test_requirements_pin_the_runtime_of_the_accelerator_where_it_has_one(tmp_path: Path) -> None:
    accelerators = [{"device": "cpu", "runtime": ["onnxruntime-openvino==1.24.1", "numpy==2.1.0"]}]
    folder = make_packing(tmp_path, ONE, accelerators=accelerators).create(MLflowModel())
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert {"onnxruntime-openvino==1.24.1", "numpy==2.1.0"} < set(requirements)
    assert len([line for line in requirements if line.startswith(("numpy", "onnxruntime"))]) == 2


def test_input_example_is_the_first_sample_and_mlflow_predicts_it(mlflow: Any, tmp_path: Path) -> None:
    packing = make_packing(tmp_path, ONE)
    folder = packing.create(MLflowModel())
    loaded = mlflow.pyfunc.load_model(str(folder))
    example = loaded.input_example
    samples = np.load(tmp_path / "points.npz")["x"][:1]
    assert example["x"].dtype == np.float32
    np.testing.assert_array_equal(example["x"], samples)
    np.testing.assert_array_equal(loaded.predict(example)["y"], predict(folder / "model.onnx", samples)["y"])
    request = json.loads(loaded.metadata.get_serving_input(str(folder)))
    np.testing.assert_array_equal(np.float32(request["inputs"]["x"]), samples)


def test_mlflow_does_not_load_a_model_for_a_gpu_on_the_cpu(mlflow: Any, tmp_path: Path) -> None:
    folder = make_packing(tmp_path, {CPU: {EXACT: (0.5, 1.0)}, GPU: {EXACT: (0.9, 1.0)}}).create(MLflowModel())
    assert "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    with pytest.raises(Exception, match="fallback to the CPU"):
        mlflow.pyfunc.load_model(str(folder))


@pytest.mark.parametrize(
    "packaging",
    [
        MLflowModel(),
        Zipfile(export_in_mlflow_format=True),
        Dockerfile(export_in_mlflow_format=True),
        AzureMLModels(name="points", export_in_mlflow_format=True),
    ],
    ids=lambda packaging: packaging.type,
)
def test_a_model_that_needs_a_plug_in_is_refused_for_mlflow_would_not_load_it(packaging: Packaging, tmp_path: Path) -> None:
    plugin = {
        "device": "npu",
        "execution_provider": "QNNExecutionProvider",
        "runtime": ["onnxruntime==1.31.1", "onnxruntime-qnn==2.7.0"],
        "plugin": "onnxruntime_qnn",
    }
    packing = make_packing(tmp_path, {"npu-qnn": {EXACT: (0.9, 1.0)}}, accelerators=[plugin])
    with pytest.raises(PackagingFailed, match=r"plug-in onnxruntime_qnn, which MLflow does not load; package it as Zipfile"):
        packing.create(packaging)


def test_metadata_keep_a_name_of_any_characters(tmp_path: Path) -> None:
    name = "größe: 模型 {🎉} #1 'x'"
    path = write_classifier(tmp_path / "model.onnx")
    source = {"type": "list", "models": [{"name": name, "path": str(path)}]}
    folder = make_packing(tmp_path, {CPU: {name: (0.9, 1.0)}}, candidates=source).create(MLflowModel())
    assert read_yaml(folder / "MLmodel")["metadata"]["candidate"] == name


def test_the_same_job_gives_the_same_files_twice(tmp_path: Path) -> None:
    packing = make_packing(tmp_path, ONE)
    made = [packing.create(MLflowModel()) for _ in range(2)]
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in made)
    assert made[0] != made[1]
    assert first == second


def test_a_candidates_file_that_is_called_like_mlflows_is_refused_and_named(tmp_path: Path) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx")
    (tmp_path / "candidates" / "model" / "requirements.txt").write_text("torch")
    with pytest.raises(PackagingFailed, match=r"(?s)'model'.*'requirements.txt' is there twice.*rename"):
        make_packing(tmp_path, ANY_NAME).create(MLflowModel())


@pytest.mark.parametrize("name", ["manifest.json", "verify.py", "grading.html", "sbom.cdx.json", "Verify.py"])
def test_a_candidates_file_that_is_called_like_one_that_every_package_has_is_refused_and_not_lost(
    tmp_path: Path, name: str
) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx")
    (tmp_path / "candidates" / "model" / name).write_text("the candidate's own")
    with pytest.raises(PackagingFailed, match=f"'{name}'.*; rename the candidate's file"):
        make_packing(tmp_path, ANY_NAME).create(MLflowModel())


def test_further_files_lie_beside_the_model(tmp_path: Path) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx")
    (tmp_path / "candidates" / "model" / "tokenizer").mkdir()
    (tmp_path / "candidates" / "model" / "tokenizer" / "vocab.txt").write_text("a b")
    folder = make_packing(tmp_path, ANY_NAME).create(MLflowModel())
    assert (folder / "tokenizer" / "vocab.txt").read_text() == "a b"
    assert not (folder / "net.onnx").exists()


def test_without_mlflow_the_plan_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "mlflow" else find(name, *more))
    packaging = [
        {"type": "MLflowModel", "name": "best"},
        {"type": "Zipfile", "name": "plain"},
        {"type": "Zipfile", "name": "all", "export_in_mlflow_format": True},
    ]
    config = load_config(write_job(tmp_path, packaging=packaging))
    with pytest.raises(InputError) as caught:
        prepare(config)
    assert [problem.where for problem in caught.value.problems] == ["packaging[0].type", "packaging[2].export_in_mlflow_format"]
    assert all("pip install 'packhouse[mlflow]'" in problem.remedy for problem in caught.value.problems)
    assert not Zipfile().problems()


def test_with_mlflow_there_is_no_problem() -> None:
    assert not MLflowModel().problems()
    assert not Zipfile(export_in_mlflow_format=True).problems()


def test_mlflow_is_imported_only_when_its_format_is_made() -> None:
    program = "import sys, flows.cli, packhouse.packaging.zipfile, packhouse.plan; print('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("alias", ["latest", "V12", "a b", "", "a/b", "ä", "a" * 256])
def test_an_alias_that_mlflow_does_not_allow_is_refused(alias: str) -> None:
    with pytest.raises(ValidationError, match="cannot be an alias in MLflow"):
        MLflowModel(alias=alias)
    assert MLflowModel(alias=None).alias is None


@pytest.mark.parametrize("name", ["a/b", "a:b", "it's", 'a"b', "a`b", " ", "a\nb", "a\x00", "a\x7f", "a\x85b", "a\\b"])
def test_a_registered_model_name_that_mlflow_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be registered with MLflow; set registered_model_name"):
        MLflowModel(server="prod", registered_model_name=name)


def test_the_server_may_be_named_without_its_type() -> None:
    assert MLflowModel(server="prod") == MLflowModel(server="mlflow-server/prod")
    with pytest.raises(ValidationError, match="is no MLflow server; write mlflow-server/<name of the block>"):
        MLflowModel(server="azure/prod")


def test_the_plan_says_where_the_model_is_registered() -> None:
    assert MLflowModel(name="best").plan() == "best/: the best candidate as an MLflow model"
    plan = MLflowModel(name="best", server="prod", registered_model_name="points", alias="staging").plan()
    assert plan.endswith("registered with mlflow-server/prod as models:/points@staging")
