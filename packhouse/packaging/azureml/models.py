"""The AzureMLModels package: a model of an Azure ML workspace for each ranked candidate."""

from typing import Any, ClassVar, Literal

from packhouse.packaging.azureml.assets import AzureMLAssets
from packhouse.packaging.azureml.registration import Kind


class AzureMLModels(AzureMLAssets):
    """A registered model for each ranked candidate of every accelerator, in an Azure ML workspace."""

    type: Literal["AzureMLModels"] = "AzureMLModels"

    kind: ClassVar[Kind] = "models"
    noun: ClassVar[str] = "model"

    @property
    def settings(self) -> dict[str, Any]:
        """The form of the model."""
        return {"form": "mlflow" if self.export_in_mlflow_format else "custom"}
