"""The MLflowModel package: the best candidate as an MLflow model folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from packhouse.candidates import MODEL_NAME
from packhouse.errors import Problem
from packhouse.packaging import Packaging, PackagingJob, Workplace, mlflow_format
from packhouse.packaging.archive import write_folder
from packhouse.packaging.contents import Content, model_contents
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.provenance.ml_bom import ML_BOM_NAME, ml_bom


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
        candidate, store = job.candidate(job.best.candidate), workplace.store
        description = mlflow_format.description(job, job.best)
        here = next(
            ranked for ranked in job.by_accelerator[job.best.accelerator].ranked if ranked.candidate == candidate.digest
        )
        packaged = PackagedCandidate.of(job, here, job.best, MODEL_NAME)
        bom = ml_bom(self.output_name, job, [packaged], model_contents(candidate, store, description))
        folder = workplace.scratch / self.output_name
        write_folder(folder, model_contents(candidate, store, {**description, ML_BOM_NAME: Content.of_json(bom)}))
        return folder
