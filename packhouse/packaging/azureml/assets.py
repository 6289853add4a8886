"""What models and data assets of Azure ML have in common: a folder for each ranked candidate, which becomes an asset.

The package is the folder of these folders. It is validated and scored as any package with a manifest, and so is each asset by
whoever downloads it, since each has a manifest of its own.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from importlib import metadata, resources
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import Field, field_validator

from packhouse.artifacts import measure
from packhouse.errors import PackagingFailed, Problem, RegistrationFailed
from packhouse.packaging import Packaging, PackagingJob, Workplace
from packhouse.packaging.archive import write_folder
from packhouse.packaging.azureml.registration import Asset, Kind, register_asset
from packhouse.packaging.azureml.versions import OnConflict
from packhouse.packaging.contents import Content, below
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest, PackagedCandidate, with_manifest
from packhouse.packaging.mlflow import format as mlflow_format
from packhouse.packaging.ranked_model import packed_model
from packhouse.packaging.seal import VERIFY_NAME, sealed
from packhouse.ranking import Ranked
from packhouse.records import digest_of

BLOCK_TYPE = "azureml-workspace"
SDK = "azure-ai-ml"
ASSET_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")  # of Azure's OpenAPI
# Files that Azure's SDK obeys: what they list would silently not be uploaded.
IGNORE_FILES = (".amlignore", ".gitignore")
MAX_TAG_LENGTH = 256


class AzureMLAssets(Packaging):
    """Base of the types whose candidates become assets of an Azure ML workspace, named ``<name>_<accelerator>_<rank>``."""

    workspace: str | None = Field(
        default=f"{BLOCK_TYPE}/default",
        description="Block of type `azureml-workspace` that the assets are registered with; null to register nowhere.",
        examples=[f"{BLOCK_TYPE}/production"],
    )
    version: str = Field(default="1", description="Version of each asset, or `auto` for the next one.", examples=["1", "auto"])
    on_conflict: OnConflict = Field(
        default="error",
        description="What to do where the version has other content: fail, take a version that has this content, or make the "
        "next version.",
    )
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
    def _version_may_be_a_number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("version")
    @classmethod
    def _version_is_one_of_azures(cls, value: str) -> str:
        if not ASSET_NAME.fullmatch(value):
            raise ValueError(f"{value!r} cannot be a version; use a number, or auto")
        return value

    @field_validator("workspace")
    @classmethod
    def _workspace_has_its_type(cls, value: str | None) -> str | None:
        if value is None or value.startswith(f"{BLOCK_TYPE}/"):
            return value
        if "/" in value:
            raise ValueError(f"{value!r} is no Azure ML workspace; write {BLOCK_TYPE}/<name of the block>")
        return f"{BLOCK_TYPE}/{value}"

    @property
    def output_name(self) -> str:
        """``<name>.azureml-models`` or ``<name>.azureml-data``."""
        return f"{self.name}.azureml-{self.kind}"

    def depends_on(self) -> Any:
        """Return the versions that MLflow's files name, if they are made."""
        return mlflow_format.depends_on() if self.export_in_mlflow_format else None

    def problems(self) -> Sequence[Problem]:
        """Say whether something that is needed is not installed."""
        found = list(mlflow_format.problems("export_in_mlflow_format")) if self.export_in_mlflow_format else []
        if self.workspace and not _is_installed(SDK):
            remedy = "pip install 'packhouse[azure]', or set workspace to null"
            found.append(Problem("type", "needs Azure's SDK, which is not installed", remedy))
        return found

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
            asset, described = self._asset(job, ranked, workplace)
            contents |= below(name, asset)
            packaged.append(_in_folder(described, name))
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

    def _asset(self, job: PackagingJob, ranked: Ranked, workplace: Workplace) -> tuple[dict[str, Content], PackagedCandidate]:
        """Return the files of an asset, and what its manifest says of its model."""
        beside = {VERIFY_NAME: Content.of((resources.files("packhouse.packaging") / VERIFY_NAME).read_bytes())}
        if self.export_in_mlflow_format:
            beside |= mlflow_format.description(job, ranked, workplace.store)
        contents, described = packed_model(job, ranked, workplace.store, beside=beside)
        if ignored := next((name for name in IGNORE_FILES if name in contents), None):
            raise PackagingFailed(
                f"candidate {described.name!r} brings a file {ignored}, by which Azure's SDK leaves files out; remove it"
            )
        return with_manifest(contents, (described,)), described

    def _assets(self, package: Path, flow_run: str | None) -> Iterator[Asset]:
        """Yield the assets of a package, whose files are those of its manifest."""
        manifest = Manifest.model_validate_json((package / MANIFEST_NAME).read_bytes())
        for packaged in manifest.candidates:
            name = PurePosixPath(packaged.model_path).parts[0]
            files = {
                file.removeprefix(f"{name}/"): known for file, known in manifest.files.items() if file.startswith(f"{name}/")
            }
            folder = package / name
            found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
            for file in sorted(found | files.keys()):
                if file not in found & files.keys() or measure(folder / file).sha256 != files[file].sha256:
                    raise RegistrationFailed(f"{name}/{file} is not what was validated; run again")
            yield Asset(
                kind=self.kind,
                name=name,
                folder=folder,
                digest=digest_of({file: known.sha256 for file, known in files.items()}),
                description=self.description,
                tags=_tags(packaged, flow_run),
                settings=self.settings,
            )


def _in_folder(described: PackagedCandidate, folder: str) -> PackagedCandidate:
    """Return what the manifest of the package says of a model that lies in one of its folders."""
    golden = described.golden_samples
    return described.model_copy(
        update={
            "model_path": f"{folder}/{described.model_path}",
            "settings_path": f"{folder}/{described.settings_path}",
            "golden_samples": golden and golden.model_copy(update={"path": f"{folder}/{golden.path}"}),
        }
    )


def _tags(packaged: PackagedCandidate, flow_run: str | None) -> dict[str, str]:
    """Return what a workspace can be searched by."""
    about = {
        "packhouse.candidate": packaged.name,
        "packhouse.candidate_digest": packaged.digest,
        "packhouse.accelerator": packaged.accelerator,
        "packhouse.rank": packaged.rank,
        "packhouse.overall_rank": packaged.overall_rank,
        "packhouse.decided_by": packaged.decided_by,
        "packhouse.flow_run": flow_run,
        **{name: repr(metric.value) for name, metric in packaged.metrics.items()},
    }
    return {key: str(value)[:MAX_TAG_LENGTH] for key, value in about.items() if value is not None}


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
