"""The Zipfile package: ranked models with their settings, sample code, and the runtime that they were measured with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from packhouse.artifacts import ArtifactStore
from packhouse.candidates import MODEL_NAME
from packhouse.errors import Problem
from packhouse.packaging import Packaging, PackagingJob, Workplace, runtime_packages, sample_code
from packhouse.packaging.archive import write_archive
from packhouse.packaging.candidate_files import SETTINGS_NAME, candidate_files
from packhouse.packaging.contents import Content, below, model_contents
from packhouse.packaging.golden import GOLDEN_NAME
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.mlflow import format as mlflow_format
from packhouse.packaging.olive_files import model_info
from packhouse.packaging.runtime_packages import RUNTIME_FOLDER
from packhouse.packaging.sample_input import sample_input
from packhouse.packaging.seal import sealed
from packhouse.ranking import Ranked

MODELS = "CandidateModels"
SAMPLES = "SampleCode"


class Zipfile(Packaging):
    """A ZIP file of the ranked candidates per accelerator, in Olive's layout."""

    type: Literal["Zipfile"] = "Zipfile"
    export_in_mlflow_format: bool = Field(default=False, description="Package each model as an MLflow model folder.")
    include_runtime_packages: bool = Field(
        default=True, description="Include the wheel of the onnxruntime that was used, and of all it depends on."
    )
    top_k: int | None = Field(
        default=None,
        ge=1,
        title="Top k",
        description="Candidates to package per accelerator; by default all ranked ones.",
    )

    @property
    def output_name(self) -> str:
        """``<name>.zip``."""
        return f"{self.name}.zip"

    def depends_on(self) -> Any:
        """Return the versions that MLflow's files name, and those of the wheels, as far as either is packed."""
        return {
            "mlflow": mlflow_format.depends_on() if self.export_in_mlflow_format else None,
            "wheels": runtime_packages.depends_on() if self.include_runtime_packages else None,
        }

    def problems(self) -> Sequence[Problem]:
        """Say whether something that the options need is not installed."""
        return mlflow_format.problems("export_in_mlflow_format") if self.export_in_mlflow_format else ()

    def plan(self) -> str:
        """Say what goes into the archive."""
        which = f"the best {self.top_k}" if self.top_k else "all ranked candidates"
        form = " in MLflow format" if self.export_in_mlflow_format else ""
        runtime = ", with the wheels of onnxruntime" if self.include_runtime_packages else ""
        return f"{self.output_name}: {which} of every accelerator{form}{runtime}"

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Write the archive."""
        contents: dict[str, Content] = {}
        packaged: list[PackagedCandidate] = []
        ranks: list[dict[str, Any]] = []
        chosen = {
            (ranked.candidate, ranked.accelerator): ranked
            for ranking in job.by_accelerator.values()
            for ranked in ranking.ranked[: self.top_k]
        }
        for overall in job.overall.ranked:
            ranked = chosen.get((overall.candidate, overall.accelerator))
            if ranked is None:
                continue
            folder = f"{MODELS}/{ranked.accelerator}/BestCandidateModel_{ranked.rank}"
            model_path = (
                f"{folder}/{mlflow_format.FOLDER}/{MODEL_NAME}" if self.export_in_mlflow_format else f"{folder}/{MODEL_NAME}"
            )
            info = model_info(job, overall, model_path)
            contents |= below(folder, self._candidate(job, ranked, info, workplace.store))
            ranks.append(info)
            packaged.append(
                PackagedCandidate.of(
                    job,
                    ranked,
                    overall,
                    model_path=model_path,
                    settings_path=f"{folder}/{SETTINGS_NAME}",
                    golden_path=f"{folder}/{GOLDEN_NAME}",
                )
            )
        contents["models_rank.json"] = Content.of_json(ranks)
        samples = {name: Content.of(source) for name, source in sample_code.files().items()}
        samples["sample_input.json"] = Content.of_json(sample_input(job, workplace.store))
        contents |= below(SAMPLES, samples)
        if self.include_runtime_packages:
            wheels = runtime_packages.fetch(*job.runtime_on(job.best.accelerator), workplace.cache)
            contents |= below(RUNTIME_FOLDER, {wheel.name: Content.of(wheel) for wheel in wheels})
        archive = workplace.scratch / self.output_name
        write_archive(archive, sealed(self.output_name, contents, tuple(packaged), job))
        return archive

    def _candidate(self, job: PackagingJob, ranked: Ranked, info: dict[str, Any], store: ArtifactStore) -> dict[str, Content]:
        candidate, described = job.candidate(ranked.candidate), candidate_files(job, ranked, info, store)
        if self.export_in_mlflow_format:
            return {**mlflow_format.model_folder(job, ranked, store), **described}
        return model_contents(candidate, store, described)
