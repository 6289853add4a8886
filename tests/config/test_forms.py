"""The forms in which a configuration may be written, and what they mean."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from packhouse.candidates import FolderSource, ListSource, OliveSource
from packhouse.config import load_config
from packhouse.config.loading import parse_config
from packhouse.errors import InputError
from packhouse.packaging.azureml.data import AzureMLData
from packhouse.packaging.azureml.deployment import AzureMLDeployment
from packhouse.packaging.azureml.models import AzureMLModels
from packhouse.packaging.mlflow.model import MLflowModel
from packhouse.packaging.zipfile import Zipfile
from tests.config.documents import Document, document, documents, metric


def write(path: Path, content: Document) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content), encoding="utf-8")
    return path


@settings(deadline=None)
@given(documents)
def test_configuration_survives_a_round_trip_through_json(written: Document) -> None:
    config = parse_config(written)
    again = parse_config(json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False)))
    assert again == config
    assert again.content_digest == config.content_digest


@pytest.mark.parametrize("name", ["config.json", "config.yaml", "config.yml"])
def test_yaml_and_json_mean_the_same(tmp_path: Path, name: str) -> None:
    written = document(packaging=[{"type": "Zipfile", "name": "Größe"}], baseline="a", output_dir="out")
    expected = parse_config({**written, "candidates": {"type": "folder", "path": tmp_path / "models"}})
    assert load_config(write(tmp_path / name, written)) == expected.model_copy(update={"output_dir": tmp_path / "out"})


def test_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "config.json", document())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_config(path).metrics[0].name == "latency"


def test_yaml_may_merge_one_mapping_into_another(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    merged = "accelerators: [&one {device: cpu, session_options: {intra_op_num_threads: 1}}, {<<: *one, device: gpu}]"
    path.write_text(yaml.safe_dump(document()) + merged)
    first, second = load_config(path).accelerators
    assert (first.spec, second.spec) == ("cpu-cpu", "gpu-cpu")
    assert first.session_options == second.session_options


ZIP = Zipfile(name="digits", export_in_mlflow_format=True, include_runtime_packages=False)
FLAT: Document = {"name": "digits", "export_in_mlflow_format": True, "include_runtime_packages": False}


@pytest.mark.parametrize(
    ("packaging", "expected"),
    [
        pytest.param([], (), id="nothing"),
        pytest.param({"type": "Zipfile"}, (Zipfile(name="OutputModels"),), id="one object"),
        pytest.param([{"type": "Zipfile"}, {"type": "MLflowModel"}], (Zipfile(), MLflowModel()), id="a list"),
        pytest.param({"type": "Zipfile", **FLAT}, (ZIP,), id="flat"),
        pytest.param(
            {
                "type": "Zipfile",
                "name": "digits",
                "config": {"export_in_mlflow_format": True, "include_runtime_packages": False},
            },
            (ZIP,),
            id="nested",
        ),
        pytest.param(
            {
                "type": "Zipfile",
                "name": "digits",
                "include_runtime_packages": False,
                "config": {"export_in_mlflow_format": True},
            },
            (ZIP,),
            id="partly nested, as in Olive",
        ),
        pytest.param(
            {"type": "Zipfile", **FLAT, "config": {"export_in_mlflow_format": True}}, (ZIP,), id="the same value twice"
        ),
        pytest.param({"type": "Zipfile", "config": None}, (Zipfile(),), id="null config, as Olive writes it"),
        pytest.param([{"type": "zipfile"}, {"type": "MLFLOWMODEL"}], (Zipfile(), MLflowModel()), id="any case"),
    ],
)
def test_packaging_is_read_in_every_form(packaging: Any, expected: tuple[Any, ...]) -> None:
    assert parse_config(document(packaging=packaging)).packaging == expected


@pytest.mark.parametrize("spelled", ["Latency", "LATENCY"])
def test_metric_type_is_read_in_any_case(spelled: str) -> None:
    assert parse_config(document(metrics=[metric(type=spelled)])).metrics[0].type == "latency"


# The packaging_config of the requirement (Packaging Olive artifacts), word for word.
REQUIRED = [
    {"type": "Zipfile", "name": "OutputModels"},
    {"type": "AzureMLModels", "name": "OutputModels"},
    {"type": "AzureMLData", "name": "OutputModels"},
    {
        "type": "AzureMLDeployment",
        "model_package": {
            "inferencing_server": {"type": "AzureMLOnline", "code_folder": "code", "scoring_script": "score.py"},
            "base_environment_id": "azureml:olive-aml-packaging:1",
        },
    },
]


def test_packaging_of_the_requirement_is_read_from_an_olive_file(tmp_path: Path) -> None:
    write(tmp_path / "olive.json", {"engine": {"packaging_config": REQUIRED, "cache_dir": "cache"}})
    config = load_config(write(tmp_path / "config.yaml", document(packaging="olive.json")))
    name = "OutputModels"
    assert config.packaging[:3] == (Zipfile(name=name), AzureMLModels(name=name), AzureMLData(name=name))
    deployed = config.packaging[3]
    assert isinstance(deployed, AzureMLDeployment)
    assert deployed.model_package.base_environment_id == "azureml:olive-aml-packaging:1"
    assert deployed.model_package.inferencing_server.code_folder == tmp_path / "code"


def test_types_that_are_not_there_are_refused_one_by_one_with_those_that_are() -> None:
    with pytest.raises(InputError) as refused:
        parse_config(document(packaging=[*REQUIRED, {"type": "DockerCompose"}]))
    found = {problem.where: problem for problem in refused.value.problems}
    assert list(found) == ["packaging[4]"]
    assert found["packaging[4]"].what == "unknown type 'DockerCompose'"
    assert "'Zipfile'" in found["packaging[4]"].remedy


@pytest.mark.parametrize(
    "olive", [{"packaging_config": {"type": "Zipfile"}}, {"engine": {"packaging_config": [{"type": "Zipfile"}]}}]
)
def test_packaging_of_an_olive_file_is_taken_by_its_path(tmp_path: Path, olive: Document) -> None:
    write(tmp_path / "olive" / "run.json", olive)
    config = load_config(write(tmp_path / "here" / "config.json", document(packaging="../olive/run.json")))
    assert config.packaging == (Zipfile(),)


def test_olive_file_without_packaging_is_refused_where_its_packaging_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "olive.json", {"passes": {}})
    with pytest.raises(InputError) as refused:
        load_config(write(tmp_path / "config.yaml", document(packaging="olive.json")))
    assert refused.value.problems[0].where == "packaging"
    assert "olive.json has no packaging_config" in refused.value.problems[0].what


def test_relative_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    custom = metric(
        {"name": "own", "priority": 1, "higher_is_better": True},
        kind="custom",
        user_config={"function": "code/own.py:own"},
    )
    written = document(data={"path": "../data.npz"}, metrics=[custom], output_dir="out", signing={"key_file": "key.pem"})
    path = write(here / "config.yaml", written)
    monkeypatch.chdir(here)
    config = load_config(Path(path.name))
    assert isinstance(config.candidates, FolderSource)
    assert config.candidates.path == here / "models"
    assert config.data is not None
    assert config.data.path == here / "../data.npz"
    assert config.output_dir == here / "out"
    assert config.signing is not None
    assert config.signing.key_file == here / "key.pem"
    assert config.metrics[0].user_config is not None
    assert config.metrics[0].user_config.function == f"{here}/code/own.py:own"


def test_relative_paths_in_other_sources_and_functions_are_taken_from_there_too(tmp_path: Path) -> None:
    olive = {"type": "olive", "path": "out", "remap": {"/was": "cache"}, "input_model": "in.onnx"}
    listed = {"type": "list", "models": [{"name": "a", "path": "a.onnx"}]}
    first = load_config(write(tmp_path / "a.yaml", document(candidates=olive, data={"function": "load.py:load"})))
    second = load_config(write(tmp_path / "b.yaml", document(candidates=listed, data={"function": "own.load:load"})))
    assert first.candidates == OliveSource(
        path=tmp_path / "out", remap={"/was": tmp_path / "cache"}, input_model=tmp_path / "in.onnx"
    )
    assert isinstance(second.candidates, ListSource)
    assert second.candidates.models[0].path == tmp_path / "a.onnx"
    assert [config.data and config.data.function for config in (first, second)] == [
        f"{tmp_path}/load.py:load",
        "own.load:load",
    ]


def test_absolute_paths_stay_and_packages_go_beside_the_file_by_default(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "c.json", document(candidates={"type": "folder", "path": "/srv/models"})))
    assert config.candidates == FolderSource(path=Path("/srv/models"))
    assert config.output_dir == tmp_path / "packages"
