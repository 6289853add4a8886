"""What packages take from the environment that they are made in: where it changes, they are made again."""

import platform
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import Tag

from packhouse.packaging import Packaging, runtime_packages
from packhouse.packaging.azureml.models import AzureMLModels
from packhouse.packaging.docker.dockerfile import Dockerfile
from packhouse.packaging.mlflow.model import MLflowModel
from packhouse.packaging.zipfile import Zipfile
from tests.wheels import metadata_text

PLAIN = Zipfile(include_runtime_packages=False)
WITH_WHEELS = {
    "Dockerfile": Dockerfile(),
    "Zipfile": Zipfile(),
    "requirements only": Dockerfile(include_runtime_packages=False),
}
IN_MLFLOW_FORMAT = {
    "MLflowModel": MLflowModel(),
    "Zipfile": Zipfile(export_in_mlflow_format=True, include_runtime_packages=False),
    "AzureMLModels": AzureMLModels(export_in_mlflow_format=True),
    "Dockerfile": Dockerfile(export_in_mlflow_format=True),
}


def install(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make another version of a distribution look installed."""
    info = folder / f"{name.replace('-', '_')}-99.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(metadata_text(name, "99.9"))
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "anyio", "numpy"])
@pytest.mark.parametrize("include", [True, False])
def test_an_image_is_described_again_where_what_it_installs_has_another_version_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, include: bool
) -> None:
    before = Dockerfile(include_runtime_packages=include).content_digest
    assert Dockerfile(include_runtime_packages=include).content_digest == before
    install(tmp_path, name, monkeypatch)
    assert Dockerfile(include_runtime_packages=include).content_digest != before


@pytest.mark.parametrize("packaging", WITH_WHEELS.values(), ids=WITH_WHEELS)
def test_wheels_are_packed_again_for_another_python(monkeypatch: pytest.MonkeyPatch, packaging: Packaging) -> None:
    before = packaging.content_digest
    monkeypatch.setattr(runtime_packages, "sys_tags", lambda: iter([Tag("cp399", "cp399", "any")]))
    assert packaging.content_digest != before


def test_wheels_are_packed_again_where_a_dependency_of_the_runtime_has_another_version_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plain = Zipfile().content_digest, PLAIN.content_digest
    install(tmp_path, "flatbuffers", monkeypatch)
    assert Zipfile().content_digest != before
    assert PLAIN.content_digest == plain


@pytest.mark.parametrize("name", ["mlflow-skinny", "numpy", "onnx", "pandas"])
@pytest.mark.parametrize("packaging", IN_MLFLOW_FORMAT.values(), ids=IN_MLFLOW_FORMAT)
def test_mlflows_files_are_written_again_where_a_version_that_they_name_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packaging: Packaging, name: str
) -> None:
    before, plain = packaging.content_digest, PLAIN.content_digest
    install(tmp_path, name, monkeypatch)
    assert packaging.content_digest != before
    assert PLAIN.content_digest == plain


@pytest.mark.parametrize("packaging", IN_MLFLOW_FORMAT.values(), ids=IN_MLFLOW_FORMAT)
def test_mlflows_files_are_written_again_for_another_python(monkeypatch: pytest.MonkeyPatch, packaging: Packaging) -> None:
    before = packaging.content_digest
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.1")
    assert packaging.content_digest != before


@pytest.mark.parametrize(("settings", "is_another"), [({"build": True}, True), ({}, False)], ids=["built", "not built"])
def test_an_image_is_validated_again_where_its_files_get_another_time(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], is_another: bool
) -> None:
    before = Dockerfile(**settings).content_digest
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert (Dockerfile(**settings).content_digest != before) == is_another
