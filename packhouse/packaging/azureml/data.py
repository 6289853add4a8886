"""The AzureMLData package: a data asset of an Azure ML workspace for each ranked candidate."""

from typing import Any, ClassVar, Literal

from packhouse.packaging.azureml.assets import AzureMLAssets
from packhouse.packaging.azureml.registration import Kind


class AzureMLData(AzureMLAssets):
    """A data asset (`uri_folder`) for each ranked candidate of every accelerator, in an Azure ML workspace."""

    type: Literal["AzureMLData"] = "AzureMLData"

    kind: ClassVar[Kind] = "data"
    noun: ClassVar[str] = "data asset"

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing: a folder is a folder."""
        return {}
