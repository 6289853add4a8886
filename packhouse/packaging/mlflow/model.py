"""The MLflowModel package: the best candidate as an MLflow model folder, registered in an MLflow server if one is named."""

import re
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from packhouse.errors import Problem
from packhouse.packaging import Packaging, PackagingJob, Workplace, packed_model, sealed, write_folder
from packhouse.packaging.mlflow import format as mlflow_format

if TYPE_CHECKING:
    from packhouse.verification.opened import OpenPackage
    from packhouse.verification.score import Score

BLOCK_TYPE = "mlflow-server"
# MLflow forbids the first two; the others would end the name in its search language, or not be found again by it.
MODEL_FORBIDS = re.compile(r"[/:'\"`\\\x00-\x1f\x7f-\x9f]")
ALIAS = re.compile(r"(?!latest$|v\d+$)[A-Za-z0-9_-]{1,255}", re.IGNORECASE)


class MLflowModel(Packaging):
    """An MLflow model folder of the candidate that ranks first across all accelerators."""

    type: Literal["MLflowModel"] = "MLflowModel"
    server: str | None = Field(
        default=None,
        title="MLflow server",
        description="Block of type `mlflow-server` that the model is registered with; without it, it is not registered.",
        examples=["mlflow-server/production"],
    )
    registered_model_name: str | None = Field(
        default=None, description="Name of the registered model, and of the experiment; by default that of the package."
    )
    alias: str | None = Field(
        default="champion", description="Alias that the registered version gets; null for none.", examples=["champion"]
    )

    @field_validator("server")
    @classmethod
    def _server_has_its_type(cls, value: str | None) -> str | None:
        if value is None or value.startswith(f"{BLOCK_TYPE}/"):
            return value
        if "/" in value:
            raise ValueError(f"{value!r} is no MLflow server; write {BLOCK_TYPE}/<name of the block>")
        return f"{BLOCK_TYPE}/{value}"

    @field_validator("alias")
    @classmethod
    def _alias_is_one_of_mlflows(cls, value: str | None) -> str | None:
        if value is not None and not ALIAS.fullmatch(value):
            raise ValueError(
                f"{value!r} cannot be an alias in MLflow; use letters, digits, dashes, underscores, no 'latest' or 'v1'"
            )
        return value

    @model_validator(mode="after")
    def _name_is_one_of_mlflows(self) -> Self:
        if self.server and (MODEL_FORBIDS.search(self.model_name) or not self.model_name.strip()):
            raise ValueError(
                f"{self.model_name!r} cannot be registered with MLflow; "
                "set registered_model_name without / : \\ quotes or control characters"
            )
        return self

    @property
    def model_name(self) -> str:
        """Name of the registered model."""
        return self.name if self.registered_model_name is None else self.registered_model_name

    def depends_on(self) -> Any:
        """Return the versions that MLflow's files name."""
        return mlflow_format.depends_on()

    def problems(self) -> Sequence[Problem]:
        """Say whether MLflow is missing."""
        return mlflow_format.problems("type")

    def plan(self) -> str:
        """Say what the folder holds, and where it is registered."""
        made = f"{self.output_name}/: the best candidate as an MLflow model"
        alias = f"@{self.alias}" if self.alias else ""
        return f"{made}, registered with {self.server} as models:/{self.model_name}{alias}" if self.server else made

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Write the folder."""
        best, store = job.best, workplace.store
        contents, packaged = packed_model(job, best, store, beside=mlflow_format.description(job, best, store))
        folder = workplace.scratch / self.output_name
        write_folder(folder, sealed(self.output_name, contents, (packaged,), job))
        return folder

    def open(self, package: Path, job: PackagingJob, workplace: Workplace) -> "AbstractContextManager[OpenPackage]":
        """Open a copy of the folder with MLflow."""
        from packhouse.packaging.mlflow.opened import opened_by_mlflow

        return opened_by_mlflow(package, job, workplace)

    def register(self, package: Path, job: PackagingJob, workplace: Workplace) -> Sequence[str]:
        """Register the folder as a version of a model in the MLflow server, if one is named.

        What lies in the server is fetched back, run and scored before there is a version of it.
        """
        if self.server is None:
            return ()
        from packhouse.packaging.mlflow.registry import register_package

        with tempfile.TemporaryDirectory(prefix="fetched-", dir=workplace.scratch) as scratch:
            place = register_package(
                package,
                job,
                workplace.connect(self.server),
                name=self.model_name,
                alias=self.alias,
                scratch=Path(scratch),
                check=lambda copy: self._checked(copy, job, workplace),
            )
        return (place,)

    def _checked(self, copy: Path, job: PackagingJob, workplace: Workplace) -> "Score":
        from packhouse.verification.score import score
        from packhouse.verification.validate import validate

        with self.open(copy, job, workplace) as opened:
            validate(opened, job, workplace.store)
            return score(opened, job, workplace.store)
