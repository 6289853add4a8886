"""The Dockerfile package: a Dockerfile with all that it needs, whose image serves the best candidate over HTTP."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from packhouse.errors import PackagingFailed, Problem
from packhouse.packaging import Packaging, PackagingJob, Workplace
from packhouse.packaging.archive import write_folder
from packhouse.packaging.candidate_files import SETTINGS_NAME
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.contents import Content, below, joined
from packhouse.packaging.docker import image_requirements
from packhouse.packaging.docker.base_images import PYTHON_IMAGE, REPOSITORY, TAG, BaseImage, base_image_for, check_image
from packhouse.packaging.docker.builders import source_date_epoch, why_no_builder
from packhouse.packaging.docker.check import DOCKERFILE
from packhouse.packaging.docker.image_content import CONTENT, installed, model_path, served_model
from packhouse.packaging.docker.options import check_options
from packhouse.packaging.docker.text import dockerfile_text
from packhouse.packaging.golden import GOLDEN_NAME
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.mlflow import format as mlflow_format
from packhouse.packaging.runtime_packages import RUNTIME_FOLDER
from packhouse.packaging.seal import sealed
from packhouse.pins import Pin
from packhouse.ranking import Ranked

if TYPE_CHECKING:
    from packhouse.verification.opened import OpenPackage


class Dockerfile(Packaging):
    """A Dockerfile and its content; the image serves the candidate that ranks first across all accelerators."""

    type: Literal["Dockerfile"] = "Dockerfile"
    base_image: str | None = Field(
        default=None,
        description="Image to begin with, best by digest; it has Python and pip, and the libraries of the execution provider. "
        "By default the official Python image, in the version that Packhouse runs in.",
        examples=["python:3.11-slim", "registry.example.com/python@sha256:" + 64 * "0"],
    )
    requirements_file: Path | None = Field(
        default=None, description="Further packages for the image, as pinned lines `name==version`."
    )
    include_runtime_packages: bool = Field(
        default=True, description="Include the wheels of all that is installed, so that building needs no network."
    )
    export_in_mlflow_format: bool = Field(
        default=False, description="Package the model as an MLflow model folder, from which the image serves it."
    )
    build: bool = Field(
        default=False,
        description="Build the image and run it, to validate and score the package through its HTTP interface. Where no "
        "builder works, its server is run without an image, and the package is marked `not built`.",
    )
    builder: Literal["docker", "buildah", "podman"] | None = Field(
        default=None, description="Program to build and run with, which has to work; by default the first of these that works."
    )
    build_options: tuple[str, ...] = Field(
        default=(),
        description="Further options of the builder's `build`. A variable is only named, as `--build-arg=NAME`; "
        "its value comes from the environment.",
        examples=[["--secret=id=pip.conf,src=/etc/pip.conf"]],
    )
    run_options: tuple[str, ...] = Field(
        default=("--memory=4g",),
        description="Options to run the container with while it is validated. A variable is only named, as `--env=NAME`; "
        "its value comes from the environment.",
        examples=[["--memory=8g", "--gpus=all"]],
    )
    repository: str | None = Field(
        default=None, description="Repository of the image, with its registry.", examples=["registry.example.com/models/digits"]
    )
    tag: str | None = Field(default=None, description="Tag of the image; by default the beginning of the candidate's digest.")
    push: bool = Field(default=False, description="Push the image that was validated to `repository`.")

    @field_validator("base_image")
    @classmethod
    def _base_image_is_fixed(cls, value: str | None) -> str | None:
        return value if value is None else check_image(value)

    @field_validator("build_options", "run_options")
    @classmethod
    def _options_have_no_secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_options(value)
        return value

    @field_validator("repository")
    @classmethod
    def _repository_is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not REPOSITORY.fullmatch(value):
            raise ValueError(
                f"{value!r} is no name of a repository; write it in lower case, without a tag, as in host/folder/name"
            )
        return value

    @field_validator("tag")
    @classmethod
    def _tag_is_a_tag(cls, value: str | None) -> str | None:
        if value is not None and not TAG.fullmatch(value):
            raise ValueError(f"{value!r} is no tag; use letters, digits, dots, dashes, underscores")
        return value

    @model_validator(mode="after")
    def _pushes_what_is_built(self) -> Self:
        if self.push and not self.build:
            raise ValueError("push needs build: true, for only an image that was validated is pushed")
        if self.push and self.repository is None:
            raise ValueError("push needs repository, the name to push the image under")
        return self

    def depends_on(self) -> Any:
        """Return what is installed, with the pins of a requirements file that can be read, and the time of its files.

        In MLflow's format, the versions that MLflow's files name are among it.
        """
        try:
            own = self._own_requirements()
        except PackagingFailed as error:
            return str(error)
        mlflow = mlflow_format.depends_on() if self.export_in_mlflow_format else None
        return [image_requirements.depends_on(own), source_date_epoch() if self.build else None, mlflow]

    def problems(self) -> Sequence[Problem]:
        """Say what is wrong with requirements or time, and what is missing: MLflow, or a builder that is named, or pushes."""
        found = list(mlflow_format.problems("export_in_mlflow_format")) if self.export_in_mlflow_format else []
        try:
            self._own_requirements()
        except PackagingFailed as error:
            found.append(Problem("requirements_file", str(error)))
        try:
            source_date_epoch()
        except ValueError as error:
            if self.build:
                found.append(Problem("build", str(error), "set it to seconds since 1970, or unset it"))
        if self.build and self.builder and (reason := why_no_builder(self.builder)):
            found.append(Problem("builder", f"does not work here: {reason}", "install or start it, or leave the setting out"))
        elif self.push and (reason := why_no_builder()):
            what = f"needs a builder, for only an image that was validated is pushed, and none works here: {reason}"
            found.append(Problem("push", what, "install or start one, or set push: false"))
        return found

    def caveat(self) -> Caveat | None:
        """Say that the image is not built, where it should be and nothing works that could; not where that is a problem."""
        if not self.build or self.builder or self.push or not (reason := why_no_builder()):
            return None
        remedy = "install or start one of them and run again, or set build: false"
        return Caveat(what="not built", reason=f"no builder works here ({reason})", remedy=remedy)

    def plan(self) -> str:
        """Say what is made, and what is not certain about it."""
        where = f"by {self.builder}" if self.builder else "" if self.push else "if a builder works here"
        done = f"built {where}".rstrip() + ", and run to validate it" if self.build else "not built"
        pushed = f", pushed to {self.repository}" if self.push else ""
        base = self.base_image or PYTHON_IMAGE
        drifts = "" if "@" in base else f"; {base} may become another image, name base_image by its digest to prevent that"
        form = " as an MLflow model" if self.export_in_mlflow_format else ""
        return f"{self.output_name}/: a Dockerfile that serves the best candidate{form} over HTTP, {done}{pushed}{drifts}"

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Write the folder."""
        best = next(item for item in job.by_accelerator[job.best.accelerator].ranked if item.candidate == job.best.candidate)
        accelerator = job.accelerator(best.accelerator)
        base = base_image_for(accelerator.execution_provider, accelerator.plugin, self.base_image)
        requirements = image_requirements.of_best(job, self._own_requirements(), base.extras)
        model = model_path(self.export_in_mlflow_format)
        content = joined(
            installed(requirements, workplace.cache, with_wheels=self.include_runtime_packages),
            served_model(self.name, job, best, workplace.store, in_mlflow_format=self.export_in_mlflow_format),
        )
        contents = {
            DOCKERFILE: Content.of(self._text(job, best, base, content[model]).encode()),
            **below(CONTENT, content),
        }
        packaged = PackagedCandidate.of(
            job,
            best,
            job.best,
            model_path=f"{CONTENT}/{model}",
            settings_path=f"{CONTENT}/{SETTINGS_NAME}",
            golden_path=f"{CONTENT}/{GOLDEN_NAME}",
        )
        folder = workplace.scratch / self.output_name
        write_folder(folder, sealed(self.output_name, contents, (packaged,), job))
        return folder

    def open(self, package: Path, job: PackagingJob, workplace: Workplace) -> "AbstractContextManager[OpenPackage]":
        """Build the image of a copy and run it; or, without building, run the same server on what would be installed."""
        from packhouse.packaging.docker.served import opened_image, opened_server

        caveat = self.caveat()
        if self.build and not caveat:
            return opened_image(package, job, workplace, self)
        return opened_server(package, job, workplace, self, caveat)

    def register(self, package: Path, job: PackagingJob, workplace: Workplace) -> Sequence[str]:
        """Push the image that was validated, and return its name by digest; nothing where it is not to be pushed.

        Raises:
            RegistrationFailed: that image is not here any more, or it cannot be pushed.
        """
        if not self.push:
            return ()
        from packhouse.packaging.docker.image_registry import push_validated

        return (push_validated(package, self, job, workplace),)

    def image_name(self, candidate: str) -> str:
        """Return repository and tag of the image of a candidate."""
        repository = self.repository or re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-") or "model"
        return f"{repository}:{self.tag or candidate[:12]}"

    def _own_requirements(self) -> tuple[Pin, ...]:
        if self.requirements_file is None:
            return ()
        try:
            return image_requirements.read_requirements(self.requirements_file)
        except ValueError as error:
            raise PackagingFailed(str(error)) from error

    def _text(self, job: PackagingJob, best: Ranked, base: BaseImage, model: Content) -> str:
        candidate = job.candidate(best.candidate)
        labels = {
            "org.opencontainers.image.title": self.name,
            "org.opencontainers.image.description": f"{candidate.name} on {best.accelerator}, Open Inference Protocol v2",
            "org.opencontainers.image.version": candidate.digest,
            "packhouse.accelerator": best.accelerator,
            "packhouse.candidate.digest": f"sha256:{candidate.digest}",
            "packhouse.data.digest": f"sha256:{job.data.sha256}",
            "packhouse.model.digest": f"sha256:{model.artifact.sha256}",
        }
        wheels = RUNTIME_FOLDER if self.include_runtime_packages else None
        return dockerfile_text(self.name, self.image_name(candidate.digest), base, labels, wheels)
