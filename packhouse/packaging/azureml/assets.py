"""What models and data assets of Azure ML have in common: a folder for each ranked candidate, which becomes an asset.

The package is the folder of these folders. It is validated and scored as any package with a manifest, and so is each asset by
whoever downloads it, since each has a manifest of its own.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import Field, field_validator

from packhouse.errors import PackagingFailed, Problem, RegistrationFailed
from packhouse.packaging import PackagingJob, Workplace
from packhouse.packaging.archive import write_folder
from packhouse.packaging.azureml.asset_folders import asset_folder, asset_of, tags_of
from packhouse.packaging.azureml.base import AzureMLPackaging
from packhouse.packaging.azureml.names import ASSET_NAME, asset_version
from packhouse.packaging.azureml.registration import Asset, Kind, register_asset
from packhouse.packaging.contents import Content, below
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest, PackagedCandidate
from packhouse.packaging.mlflow import format as mlflow_format
from packhouse.packaging.seal import sealed
from packhouse.ranking import Ranked


class AzureMLAssets(AzureMLPackaging):
    """Base of the types whose candidates become assets of an Azure ML workspace, named ``<name>_<accelerator>_<rank>``."""

    version: str = Field(default="1", description="Version of each asset, or `auto` for the next one.", examples=["1", "auto"])
    description: str | None = Field(default=None, description="Description of each asset.")
    export_in_mlflow_format: bool = Field(default=False, description="Make each asset an MLflow model.")
    top_k: int | None = Field(
        default=None,
        ge=1,
        title="Top k",
        description="Candidates to register per accelerator; by default all ranked ones.",
    )

    kind: ClassVar[Kind]
    noun: ClassVar[str]

    @field_validator("name")
    @classmethod
    def _name_can_begin_that_of_an_asset(cls, value: str) -> str:
        if not ASSET_NAME.fullmatch(value):
            raise ValueError(f"{value!r} cannot be in the name of an asset; use letters, digits, dashes, underscores")
        return value

    @field_validator("version", mode="before")
    @classmethod
    def _version_is_one_of_azures(cls, value: Any) -> Any:
        return asset_version(value)

    @property
    def output_name(self) -> str:
        """``<name>.azureml-models`` or ``<name>.azureml-data``."""
        return f"{self.name}.azureml-{self.kind}"

    def depends_on(self) -> Any:
        """Return the versions that MLflow's files name, if they are made."""
        return mlflow_format.depends_on() if self.export_in_mlflow_format else None

    def problems(self) -> Sequence[Problem]:
        """Say whether something that is needed is not installed."""
        found = mlflow_format.problems("export_in_mlflow_format") if self.export_in_mlflow_format else ()
        return (*found, *super().problems())

    def plan(self) -> str:
        """Say what becomes an asset, and where."""
        which = f"the best {self.top_k}" if self.top_k else "all ranked candidates"
        form = " in MLflow format" if self.export_in_mlflow_format else ""
        made = f"{self.output_name}/: {which} of every accelerator{form}"
        version = "next version" if self.version == "auto" else f"version {self.version}"
        where = f"registered with {self.workspace} as {self.noun} {self.name}_<accelerator>_<rank>, {version}"
        return f"{made}, {where if self.workspace else 'not registered'}"

    def remote_calls(self) -> Sequence[str]:
        """Return the requests to Azure: the first once, the others for every asset."""
        if self.workspace is None:
            return ()
        versions = f"{self.kind}/{self.name}_<accelerator>_<rank>/versions"
        version = "<next>" if self.version == "auto" else self.version
        return (
            f"POST to log in, and GET {self.workspace}: whether it is there",
            f"GET {versions}: whether the content is registered",
            "and where it is not: GET datastores/workspaceblobstore, POST datastores/workspaceblobstore/listSecrets",
            "HEAD, PUT LocalUpload/<sha256>/… in its container, one request per file, more above 64 MiB",
            f"PUT {versions}/{version}",
        )

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Write a folder for each candidate."""
        contents: dict[str, Content] = {}
        packaged: list[PackagedCandidate] = []
        for ranked in self._chosen(job):
            name = f"{self.name}_{ranked.accelerator}_{ranked.rank}"
            if not ASSET_NAME.fullmatch(name):
                raise PackagingFailed(f"{name!r} is too long for the name of an asset; give the package a shorter name")
            beside = mlflow_format.description(job, ranked, workplace.store) if self.export_in_mlflow_format else {}
            asset, described = asset_folder(job, ranked, workplace.store, name, beside)
            contents |= below(name, asset)
            packaged.append(described)
        folder = workplace.scratch / self.output_name
        write_folder(folder, sealed(self.output_name, contents, tuple(packaged), job))
        return folder

    def register(self, package: Path, job: PackagingJob, workplace: Workplace) -> Sequence[str]:  # noqa: ARG002
        """Register each folder as a version of an asset, the best last; a version that has its content is left as it is.

        Assets that were registered before one fails stay, for Azure ML deletes none; doing it again goes on from there.
        """
        if self.workspace is None:
            return ()
        assets = list(self._assets(package, workplace.flow_run))
        places: list[str] = []
        with workplace.connect(self.workspace).session() as session:
            for asset in reversed(assets):
                try:
                    places.append(register_asset(session, asset, self.version, self.on_conflict).id)
                except RegistrationFailed as error:
                    done = f"; {len(places)} of {len(assets)} assets are registered, and stay" if places else ""
                    raise RegistrationFailed(f"{asset.name}: {error}{done}", is_transient=error.is_transient) from error
        return tuple(reversed(places))

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What only assets of this kind have."""

    def _chosen(self, job: PackagingJob) -> Iterator[Ranked]:
        """Yield the candidates that become assets, with their places on their accelerators, the best of all first."""
        here = {
            (ranked.candidate, ranked.accelerator): ranked
            for ranking in job.by_accelerator.values()
            for ranked in ranking.ranked[: self.top_k]
        }
        for overall in job.overall.ranked:
            if ranked := here.get((overall.candidate, overall.accelerator)):
                yield ranked

    def _assets(self, package: Path, flow_run: str | None) -> Iterator[Asset]:
        """Yield the assets of a package, whose files are those of its manifest."""
        manifest = Manifest.model_validate_json((package / MANIFEST_NAME).read_bytes())
        for packaged in manifest.candidates:
            name = PurePosixPath(packaged.model_path).parts[0]
            yield asset_of(
                package,
                manifest,
                name,
                kind=self.kind,
                name=name,
                description=self.description,
                tags=tags_of(packaged, flow_run),
                settings=self.settings,
            )
