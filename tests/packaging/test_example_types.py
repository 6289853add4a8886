"""The packaging types of the example distribution, made without installing it."""

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from packhouse.errors import RegistrationFailed
from packhouse.packaging import Workplace
from packhouse.verification import verify_package
from tests.packaging_jobs import EXACT, GRADES, NEAR, Packing, make_packing

MODULE = Path(__file__).parents[2] / "examples" / "packager" / "packhouse_tarball.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The module of the example."""
    spec = importlib.util.spec_from_file_location(MODULE.stem, MODULE)
    assert spec
    assert spec.loader
    module = sys.modules[MODULE.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[MODULE.stem]


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    """Three candidates on two accelerators."""
    return make_packing(tmp_path_factory.mktemp("packing"), GRADES)


def opened(packing: Packing, example: ModuleType, package: Path, **settings: object) -> list[str]:
    """Return what an open copy of a tar archive says its models are."""
    with example.Tarball(**settings).open(package, packing.job, packing.workplace) as found:
        return [f"{model.packaged.name} {model.packaged.model_path}" for model in found.models]


def test_a_folder_of_the_best_model_is_what_its_manifest_says(packing: Packing, example: ModuleType) -> None:
    verified = verify_package(packing.create(example.BestModel(name="best")))
    assert [model.model_path for model in verified.models] == ["model.onnx"]


def test_a_tar_archive_has_the_best_models_of_the_winners_accelerator(packing: Packing, example: ModuleType) -> None:
    package = packing.create(example.Tarball(top_k=2))
    assert package.name == "OutputModels.tar"
    assert opened(packing, example, package) == [f"{EXACT} 1/model.onnx", f"{NEAR} 2/model.onnx"]


def test_the_same_job_gives_the_same_tar_archive_at_another_time_and_umask(packing: Packing, example: ModuleType) -> None:
    first = packing.create(example.Tarball())
    time.sleep(1.1)
    before = os.umask(0o077)
    try:
        second = packing.create(example.Tarball())
    finally:
        os.umask(before)
    assert first.read_bytes() == second.read_bytes()


def test_a_tar_archive_is_copied_to_the_shared_folder_as_often_as_asked(
    packing: Packing, example: ModuleType, tmp_path: Path
) -> None:
    tarball = example.Tarball(copy_to=tmp_path / "shared")
    package = packing.create(tarball)
    for _ in range(2):
        assert tarball.register(package, packing.job, packing.workplace) == (str(tmp_path / "shared" / package.name),)
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [package.name]
    assert (tmp_path / "shared" / package.name).read_bytes() == package.read_bytes()


def test_a_shared_folder_that_cannot_be_written_may_be_there_later(
    packing: Packing, example: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    tarball = example.Tarball(copy_to=tmp_path / "file" / "shared")
    workplace: Workplace = packing.workplace
    with pytest.raises(RegistrationFailed, match="see whether the drive is mounted") as failed:
        tarball.register(packing.create(tarball), packing.job, workplace)
    assert failed.value.is_transient
