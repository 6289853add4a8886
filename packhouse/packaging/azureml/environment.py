"""The environment of a deployment: an image and a conda file, a folder with a Dockerfile, or one that the workspace has."""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from packhouse.errors import PackagingFailed, Problem
from packhouse.packaging.azureml.config_path import ConfigPath
from packhouse.packaging.azureml.layout import CONDA_NAME
from packhouse.packaging.azureml.names import IGNORE_FILES
from packhouse.packaging.contents import Content
from packhouse.packaging.docker.base_images import BASE_IMAGES, check_image
from packhouse.packaging.job import PackagingJob
from packhouse.pins import Pin
from packhouse.ranking import Ranked
from packhouse.records import Record

# Microsoft's base of inference and training images; CUDA comes with the wheels.
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
ONLINE_SERVER = Pin("azureml-inference-server-http", "1.5.1")
# What the service's own driver of batch jobs imports in the environment of the scoring script.
BATCH_DRIVER = ("azureml-core", "azureml-dataset-runtime[fuse]")
DOCKERFILE = "Dockerfile"


class EnvironmentSource(Record):
    """What the environment of a deployment is made of; by default it is generated from what the model was measured with."""

    image: str | None = Field(
        default=None,
        description="Image to begin with, best by digest; by default Microsoft's base image, whose tag may move.",
        examples=[f"{IMAGE}@sha256:" + 64 * "0"],
    )
    conda_file: ConfigPath | None = Field(
        default=None, description="Conda file of the packages; by default onnxruntime as measured, and the inference server."
    )
    build_context: ConfigPath | None = Field(
        default=None, description="Folder with a Dockerfile to build the environment from, instead of both."
    )

    @field_validator("image")
    @classmethod
    def _image_is_fixed(cls, value: str | None) -> str | None:
        return value if value is None else check_image(value)

    @model_validator(mode="after")
    def _is_made_in_one_way(self) -> Self:
        if self.build_context and (self.image or self.conda_file):
            raise ValueError("build_context has its own Dockerfile; leave out image and conda_file")
        return self

    @property
    def is_generated(self) -> bool:
        """Whether its packages are those that Packhouse chooses."""
        return self.conda_file is None and self.build_context is None

    def problems(self) -> Iterator[Problem]:
        """Say what is wrong with the files."""
        if self.conda_file:
            try:
                content = yaml.safe_load(self.conda_file.read_bytes())
            except OSError as error:
                yield Problem("conda_file", f"{self.conda_file} cannot be read ({error.strerror})", "name a conda file")
            except yaml.YAMLError as error:
                yield Problem("conda_file", f"{self.conda_file} is no YAML: {' '.join(str(error).split())}", "mend it")
            else:
                if not isinstance(content, dict) or not isinstance(content.get("dependencies"), list):
                    yield Problem("conda_file", f"{self.conda_file} has no list of dependencies", "name a conda file")
        if self.build_context:
            if not (self.build_context / DOCKERFILE).is_file():
                yield Problem("build_context", f"{self.build_context} has no {DOCKERFILE}", "name a folder that has one")
            for name in IGNORE_FILES:
                if (self.build_context / name).exists():
                    yield Problem("build_context", f"has a file {name}, by which Azure's SDK leaves files out", "remove it")

    def contents(self, requirements: tuple[str, ...]) -> dict[str, Content]:
        """Return the files of the environment. Raises PackagingFailed where one cannot be read."""
        if self.build_context:
            return files_below(self.build_context)
        if self.conda_file:
            return {CONDA_NAME: Content.of(_read(self.conda_file))}
        return {CONDA_NAME: Content.of(conda_text(requirements).encode())}


def requirements(job: PackagingJob, ranked: Ranked, *, is_online: bool) -> tuple[str, ...]:
    """Return what a generated environment has: what the model was measured with, and what Azure ML runs it in.

    Raises:
        PackagingFailed: the provider needs more than what is on the package index.
    """
    accelerator = job.accelerator(ranked.accelerator)
    known = BASE_IMAGES.get(accelerator.execution_provider)
    if known is None and not accelerator.plugin:
        raise PackagingFailed(
            f"no image is known that has what {accelerator.execution_provider} needs; set environment.conda_file and image, "
            "environment.build_context, or model_package.base_environment_id"
        )
    runtime = tuple(map(str, job.runtime_pins(ranked, known.extras if known else ())))
    if is_online:
        return (str(ONLINE_SERVER), *runtime, f"numpy=={metadata.version('numpy')}")
    return (*BATCH_DRIVER, *runtime, "numpy")


def conda_text(wanted: tuple[str, ...]) -> str:
    """Return a conda file that installs requirements with pip."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    described: dict[str, Any] = {
        "name": "packhouse",
        "channels": ["conda-forge"],
        "dependencies": [f"python={version}", "pip", {"pip": list(wanted)}],
    }
    return str(yaml.safe_dump(described, sort_keys=False))


def files_below(folder: Path) -> dict[str, Content]:
    """Return the files of a folder by name, without compiled Python.

    Raises:
        PackagingFailed: there is none, or one that is no regular file or cannot be read.
    """
    found: dict[str, Content] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if "__pycache__" in name.parts or (path.is_dir() and not path.is_symlink()):
            continue
        found[name.as_posix()] = Content.of(_read(path))
    if not found:
        raise PackagingFailed(f"{folder} has no files")
    return found


def _read(path: Path) -> bytes:
    from packhouse.regular_files import open_regular

    try:
        with open_regular(path) as file:
            return file.readall()
    except OSError as error:
        raise PackagingFailed(f"{path} cannot be packed: {error.strerror}") from error
