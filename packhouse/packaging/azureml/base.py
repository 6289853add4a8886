"""What all packaging types of Azure ML have in common: the block of their workspace, and what is done about versions."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from pydantic import Field, field_validator, model_validator

from packhouse.errors import Problem
from packhouse.packaging import Packaging
from packhouse.packaging.azureml.versions import OnConflict

BLOCK_TYPE = "azureml-workspace"
SDK = "azure-ai-ml"


class AzureMLPackaging(Packaging):
    """Base of the types that register with an Azure ML workspace."""

    workspace: str | None = Field(
        default=f"{BLOCK_TYPE}/default",
        description="Block of type `azureml-workspace` to register with; null to register nowhere.",
        examples=[f"{BLOCK_TYPE}/production"],
    )
    on_conflict: OnConflict = Field(
        default="error",
        description="What to do where the version has other content: fail, take a version that has this content, or make the "
        "next version.",
    )

    @model_validator(mode="before")
    @classmethod
    def _registries_are_not_supported(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "registry_name" in data:
            raise ValueError(
                "registry_name is not supported: how Azure ML's registries are asked is not published; leave it out, and the "
                "workspace is registered with"
            )
        return data

    @field_validator("workspace")
    @classmethod
    def _workspace_has_its_type(cls, value: str | None) -> str | None:
        if value is None or (value.startswith(f"{BLOCK_TYPE}/") and value != f"{BLOCK_TYPE}/"):
            return value
        if "/" in value or not value.strip():
            raise ValueError(f"{value!r} is no Azure ML workspace; write {BLOCK_TYPE}/<name of the block>")
        return f"{BLOCK_TYPE}/{value}"

    def problems(self) -> Sequence[Problem]:
        """Say whether Azure's SDK is needed and not installed."""
        if self.workspace and not _is_installed(SDK):
            remedy = "pip install 'packhouse[azure]', or set workspace to null"
            return (Problem("type", "needs Azure's SDK, which is not installed", remedy),)
        return ()


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
