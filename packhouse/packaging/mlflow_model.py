"""The MLflowModel package: the best candidate as an MLflow model folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from packhouse.candidates import MODEL_NAME
from packhouse.errors import Problem
from packhouse.packaging import Packaging, PackagingJob, Workplace, mlflow_format
from packhouse.packaging.archive import write_folder
from packhouse.packaging.candidate_files import SETTINGS_NAME, candidate_files
from packhouse.packaging.contents import model_contents
from packhouse.packaging.golden import GOLDEN_NAME
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.olive_files import model_info
from packhouse.packaging.sealed import sealed


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
        best = next(item for item in job.by_accelerator[job.best.accelerator].ranked if item.candidate == job.best.candidate)
        described = {
            **candidate_files(job, best, model_info(job, job.best, MODEL_NAME), workplace.store),
            **mlflow_format.description(job, best),
        }
        contents = model_contents(job.candidate(best.candidate), workplace.store, described)
        packaged = PackagedCandidate.of(
            job, best, job.best, model_path=MODEL_NAME, settings_path=SETTINGS_NAME, golden_path=GOLDEN_NAME
        )
        folder = workplace.scratch / self.output_name
        write_folder(folder, sealed(self.output_name, contents, (packaged,), job))
        return folder
