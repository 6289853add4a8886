"""Versions of models, data assets and environments."""

from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.constants import AssetTypes, ListViewType
from azure.ai.ml.entities import (
    AzureMLOnlineInferencingServer,
    BaseEnvironment,
    BuildContext,
    CodeConfiguration,
    Data,
    Environment,
    Model,
    ModelConfiguration,
    ModelPackage,
)
from azure.core.exceptions import ResourceNotFoundError

MODEL_TYPES = {"custom": AssetTypes.CUSTOM_MODEL, "mlflow": AssetTypes.MLFLOW_MODEL}


class Assets:
    """The assets of a workspace."""

    def __init__(self, client: MLClient) -> None:
        """Use a client that has logged in."""
        self._client = client

    def versions(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Return version, tags and identity of every version of an asset, archived ones too; none where it is not there."""
        operations = getattr(self._client, kind)
        try:
            found = list(operations.list(name=name, list_view_type=ListViewType.ALL))
        except ResourceNotFoundError:  # not the workspace: that was there
            return []
        return [_described(asset) for asset in found]

    def environment(self, name: str, version: str) -> dict[str, Any] | None:
        """Return a version of an environment; None where it is not there."""
        try:
            return _described(self._client.environments.get(name, version))
        except ResourceNotFoundError:
            return None

    def register_model(self, form: str, **asset: Any) -> dict[str, Any]:
        """Upload a folder and make a version of a model of it; `form` is custom or mlflow."""
        return _described(self._client.models.create_or_update(Model(type=MODEL_TYPES[form], **asset)))

    def register_data(self, **asset: Any) -> dict[str, Any]:
        """Upload a folder and make a version of a data asset of it."""
        return _described(self._client.data.create_or_update(Data(type=AssetTypes.URI_FOLDER, **asset)))

    def register_environment(self, path: str, image: str | None, conda_file: str | None, **asset: Any) -> dict[str, Any]:
        """Make a version of an environment of an image and a conda file; without an image, of the Dockerfile in a folder."""
        made_of = {"image": image, "conda_file": conda_file} if image else {"build": BuildContext(path=path)}
        return _described(self._client.environments.create_or_update(Environment(**made_of, **asset)))

    def package(
        self, model: str, version: str, *, base: str, code: dict[str, str], mode: dict[str, Any], **wanted: Any
    ) -> dict[str, Any]:
        """Pack a model version, its code and a base environment into an image, and return the environment that stands for it.

        This is a preview operation of the service. It blocks until the image is built.
        """
        request = ModelPackage(
            base_environment_source=BaseEnvironment(type="EnvironmentAsset", resource_id=base),
            inferencing_server=AzureMLOnlineInferencingServer(code_configuration=CodeConfiguration(**code)),
            model_configuration=ModelConfiguration(**mode),
            **wanted,
        )
        return _described(self._client.models.package(model, version, request))


def _described(asset: Any) -> dict[str, Any]:
    return {"id": asset.id, "version": str(asset.version), "tags": dict(asset.tags or {})}
