"""The MLflowModel package: the best candidate as an MLflow model folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from packhouse.errors import Problem
from packhouse.packaging import Packaging, PackagingJob, Workplace, mlflow_format
from packhouse.packaging.archive import write_folder
from packhouse.packaging.contents import model_contents


class MLflowModel(Packaging):
    """An MLflow model folder of the candidate that ranks first across all accelerators."""

    type: Literal["MLflowModel"] = "MLflowModel"

    def problems(self) -> Sequence[Problem]:
        """Say whether MLflow is missing."""
        return mlflow_format.problems("type")

    def plan(self) -> str:
        """Say what the folder holds."""
        return f"{self.output_name}/: the best candidate as an MLflow model"

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Write the folder."""
        description = mlflow_format.description(job, job.best)
        folder = workplace.scratch / self.output_name
        write_folder(folder, model_contents(job.candidate(job.best.candidate), workplace.store, description))
        return folder
