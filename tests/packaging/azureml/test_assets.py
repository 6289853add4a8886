"""The packages for Azure ML before anything is asked of it: what is in them, under which names, and what is refused."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from packhouse.config import load_config
from packhouse.errors import InputError, PackagingFailed, RegistrationFailed
from packhouse.packaging.azureml.data import AzureMLData
from packhouse.packaging.azureml.models import AzureMLModels
from packhouse.plan import prepare
from packhouse.verification import verify_package
from tests.classifiers import write_classifier
from tests.jobs import write_job
from tests.packaging_jobs import CPU, ONE, make_packing

AssetType = type[AzureMLModels] | type[AzureMLData]
BOTH = pytest.mark.parametrize("kind", [AzureMLModels, AzureMLData])
FILES = {
    "configurations.json",
    "golden_samples.npz",
    "inference_config.json",
    "manifest.json",
    "metrics.json",
    "model.onnx",
    "model_info.json",
    "verify.py",
}
MLFLOW = {
    "MLmodel",
    "conda.yaml",
    "input_example.json",
    "python_env.yaml",
    "requirements.txt",
    "serving_input_example.json",
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@BOTH
def test_every_ranked_candidate_of_every_accelerator_has_a_folder_with_all_its_files(tmp_path: Path, kind: AssetType) -> None:
    folder = make_packing(tmp_path).create(kind(name="out"))
    assets = {path.name for path in folder.iterdir() if path.is_dir()}
    assert assets == {"out_cpu-cpu_1", "out_cpu-cpu_2", "out_cpu-cpu_3", "out_gpu-cuda_1", "out_gpu-cuda_2"}
    assert all(names(folder / asset) == FILES for asset in assets)
    assert json.loads((folder / "out_cpu-cpu_1" / "model_info.json").read_text())["rank"] == 1


@BOTH
def test_only_the_best_are_in_it_where_that_is_asked_for(tmp_path: Path, kind: AssetType) -> None:
    folder = make_packing(tmp_path).create(kind(top_k=1))
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"OutputModels_cpu-cpu_1", "OutputModels_gpu-cuda_1"}


@BOTH
def test_the_package_and_each_asset_in_it_can_be_verified(tmp_path: Path, kind: AssetType) -> None:
    folder = make_packing(tmp_path).create(kind())
    assert len(verify_package(folder).models) == 5
    assert [model.model_path for model in verify_package(folder / "OutputModels_cpu-cpu_2").models] == ["model.onnx"]


def test_a_model_in_mlflow_format_has_mlmodel_at_its_root(tmp_path: Path) -> None:
    folder = make_packing(tmp_path, ONE).create(AzureMLModels(export_in_mlflow_format=True))
    assert names(folder / "OutputModels_cpu-cpu_1") == FILES | MLFLOW


@BOTH
def test_the_same_job_gives_the_same_files_twice(tmp_path: Path, kind: AssetType) -> None:
    packing = make_packing(tmp_path)
    made = [packing.create(kind()) for _ in range(2)]
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} for folder in made
    )
    assert first == second


@pytest.mark.parametrize("ignore_file", [".amlignore", ".gitignore"])
def test_a_file_by_which_azure_would_leave_files_out_is_refused(tmp_path: Path, ignore_file: str) -> None:
    write_classifier(tmp_path / "candidates" / "model" / "net.onnx")
    (tmp_path / "candidates" / "model" / ignore_file).write_text("*.json")
    packing = make_packing(tmp_path, {CPU: {"model": (0.9, 1.0)}})
    with pytest.raises(PackagingFailed, match=f"'model' brings a file {ignore_file}.*remove it"):
        packing.create(AzureMLModels())


@pytest.mark.parametrize("name", ["a b", "größe", "a.b", "_a", "-a"])
@BOTH
def test_a_name_that_azure_refuses_is_refused_before_anything_is_started(kind: AssetType, name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be in the name of an asset"):
        kind(name=name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(1, "1"), ("1", "1"), ("auto", "auto"), ("2026-01", "2026-01")],
)
def test_a_version_may_be_a_number_as_in_olive(given: Any, expected: str) -> None:
    assert AzureMLModels.model_validate({"config": {"version": given}}).version == expected


@pytest.mark.parametrize("given", ["", "1.0", "a/b", None, True, 1.5, [1]])
def test_other_versions_are_refused(given: Any) -> None:
    with pytest.raises(ValidationError, match="version"):
        AzureMLModels.model_validate({"version": given})


def test_a_workspace_is_named_with_or_without_its_type() -> None:
    assert AzureMLModels().workspace == "azureml-workspace/default"
    assert AzureMLModels(workspace="production").workspace == "azureml-workspace/production"
    assert AzureMLModels(workspace="azureml-workspace/production").workspace == "azureml-workspace/production"
    with pytest.raises(ValidationError, match="is no Azure ML workspace"):
        AzureMLModels(workspace="mlflow-server/production")


def test_packages_of_all_types_may_have_one_name() -> None:
    assert {AzureMLModels().output_name, AzureMLData().output_name} == {
        "OutputModels.azureml-models",
        "OutputModels.azureml-data",
    }


def test_plan_says_what_is_registered_where_and_as_what() -> None:
    planned = AzureMLData(version="auto", workspace="production", top_k=2, export_in_mlflow_format=True).plan()
    assert planned == (
        "OutputModels.azureml-data/: the best 2 of every accelerator in MLflow format, registered with "
        "azureml-workspace/production as data asset OutputModels_<accelerator>_<rank>, next version"
    )
    assert AzureMLModels(workspace=None).plan().endswith("of every accelerator, not registered")


def test_plan_lists_every_kind_of_request_that_is_made() -> None:
    calls = AzureMLModels(name="out", version="auto").remote_calls()
    assert [call.split()[0] for call in calls] == ["POST", "GET", "and", "HEAD,", "PUT"]
    assert calls[-1] == "PUT models/out_<accelerator>_<rank>/versions/<next>"
    assert AzureMLData(name="out").remote_calls()[-1] == "PUT data/out_<accelerator>_<rank>/versions/1"
    assert AzureMLModels(workspace=None).remote_calls() == ()


def test_without_a_workspace_nothing_is_registered(tmp_path: Path) -> None:
    packing, packaging = make_packing(tmp_path, ONE), AzureMLModels(workspace=None)
    assert packaging.register(packing.create(packaging), packing.job, packing.workplace) == ()


@pytest.mark.parametrize("spoil", ["changed", "added", "missing"])
def test_what_is_not_what_was_validated_is_not_uploaded(tmp_path: Path, spoil: str) -> None:
    packing, packaging = make_packing(tmp_path, ONE), AzureMLModels()
    package = packing.create(packaging)
    file = package / "OutputModels_cpu-cpu_1" / ("more.json" if spoil == "added" else "metrics.json")
    if spoil == "missing":
        file.unlink()
    else:
        file.write_text("{}")
    with pytest.raises(RegistrationFailed, match=rf"{file.name} is not what was validated"):
        packaging.register(package, packing.job, packing.workplace)


def test_without_the_sdk_the_plan_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    packaging = [{"type": "AzureMLModels"}, {"type": "AzureMLData", "workspace": None}]
    config = load_config(write_job(tmp_path, packaging=packaging))
    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(InputError) as caught:
        prepare(config)
    assert [problem.where for problem in caught.value.problems] == ["packaging[0].type"]
    assert "pip install 'packhouse[azure]'" in str(caught.value)


def test_azure_is_imported_by_its_own_process_only() -> None:
    program = (
        "import sys, flows.cli, flows.package_models, packhouse.plan, packhouse.packaging.registry as registry, blocks.azureml;"
        "registry.packaging_types(); print([name for name in sys.modules if name.split('.')[0] == 'azure'])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_making_a_package_for_azure_and_a_zip_imports_nothing_of_azure(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from packhouse.packaging.azureml.models import AzureMLModels
from tests.packaging_jobs import ONE, make_packing
packing = make_packing(Path(sys.argv[1]), ONE)
packing.zip()
packing.create(AzureMLModels())
print([name for name in sys.modules if name.split(".")[0] == "azure"])
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout == "[]\n"
