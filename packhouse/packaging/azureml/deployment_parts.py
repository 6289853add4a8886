"""What a deployment is made of, from its package: a model and an environment that are registered, code, and settings."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packhouse.artifacts import measure
from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.asset_folders import asset_of, tags_of, validated_digest
from packhouse.packaging.azureml.layout import (
    CODE_FOLDER,
    CONDA_NAME,
    DEPLOYMENT_NAME,
    ENVIRONMENT_FOLDER,
    MODEL_FOLDER,
)
from packhouse.packaging.azureml.registration import Asset, register_asset
from packhouse.packaging.azureml.versions import DIGEST_TAG, AssetVersion
from packhouse.packaging.azureml.workspace import AzureMLSession
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest
from packhouse.records import digest_of

if TYPE_CHECKING:
    from packhouse.packaging.azureml.deployment import AzureMLDeployment

WORKSPACE_ID, REGISTRY_ID = "azureml:", "azureml://"
# What deployment.json says that is no setting of the SDK's entities.
NO_SETTINGS = frozenset({"inferencing_server", "strategy", "scoring_script", "environment"})
OF_BATCH_ENTITY = ("compute", "description", "properties", "tags")  # the others of a batch deployment are of its jobs
logger = logging.getLogger(__name__)


class DeploymentParts:
    """The parts of a package, which are those that were validated. `digest` is that of everything in it.

    `payload` is what a scoring script of the user's is asked, which lies outside of the package.
    """

    def __init__(self, packaging: "AzureMLDeployment", package: Path, flow_run: str | None) -> None:
        """Look at the package. Raises RegistrationFailed where it is not what was validated, or no payload can be read."""
        self._packaging, self._package, self._flow_run = packaging, package, flow_run
        self._manifest = Manifest.model_validate_json((package / MANIFEST_NAME).read_bytes())
        (self.packaged,) = self._manifest.candidates
        self._described: dict[str, Any] = json.loads((package / DEPLOYMENT_NAME).read_bytes())
        self.digest = measure(package / MANIFEST_NAME).sha256
        validated_digest(package, self._manifest, CODE_FOLDER)
        self.payload = self._payload()

    def _payload(self) -> bytes:
        test = self._packaging.smoke_test
        if test is None or test.payload is None:
            return b""
        try:
            content = test.payload.read_bytes()
            return json.dumps(json.loads(content)).encode() if self._packaging.is_online else content
        except (OSError, ValueError) as error:
            raise RegistrationFailed(f"smoke_test.payload cannot be read: {error} → put the file there again") from error

    def require_what_it_names(self, session: AzureMLSession) -> None:
        """Look for what is named and not made here. Raises RegistrationFailed where it is missing."""
        base = self._packaging.model_package.base_environment_id
        if base and not base.startswith(REGISTRY_ID):
            name, version = base.removeprefix(WORKSPACE_ID).split(":")
            if session.ask("assets.environment", name=name, version=version) is None:
                raise RegistrationFailed(
                    f"the workspace has no environment {name} with version {version} → check model_package.base_environment_id"
                )

    def registered_model(self, session: AzureMLSession) -> AssetVersion:
        """Return the version of the model, which is made where its content is new. Raises RegistrationFailed."""
        packaging = self._packaging
        asset = asset_of(
            self._package,
            self._manifest,
            MODEL_FOLDER,
            kind="models",
            name=packaging.model_name,
            description=packaging.description,
            tags=tags_of(self.packaged, self._flow_run),
            settings={"form": "custom"},
        )
        return register_asset(session, asset, packaging.model_version, packaging.on_conflict)

    def entity(self, session: AzureMLSession, model: AssetVersion) -> dict[str, Any]:
        """Return what the deployment of a model is made with. Its environment is made where its content is new.

        Raises:
            RegistrationFailed: Azure refused.
        """
        environment, settings = self._environment(session), self._settings()
        tags = {**tags_of(self.packaged, self._flow_run), **settings.pop("tags", {}), DIGEST_TAG: self.digest}
        code = {"code": str(self._package / CODE_FOLDER), "scoring_script": self._described["scoring_script"]}
        if self._packaging.strategy == "model_package":
            return {**settings, "tags": tags, "environment": self._image(session, model, environment, code), "code": None}
        return {**settings, "tags": tags, "model": model.id, "environment": environment, "code": code}

    def _environment(self, session: AzureMLSession) -> str:
        package = self._packaging.model_package
        if package.base_environment_id:
            return package.base_environment_id
        folder, image = self._package / ENVIRONMENT_FOLDER, self._described["environment"]["image"]
        asset = Asset(
            kind="environments",
            name=self._packaging.made_environment,
            folder=folder,
            digest=digest_of([validated_digest(self._package, self._manifest, ENVIRONMENT_FOLDER), image]),
            description=None,
            tags={},
            settings={"image": image, "conda_file": str(folder / CONDA_NAME) if image else None},
        )
        return register_asset(session, asset, self._packaging.made_environment_version, "next").id

    def _settings(self) -> dict[str, Any]:
        settings = {name: value for name, value in self._described.items() if name not in NO_SETTINGS}
        if self._packaging.is_online:
            return settings
        of_entity = {name: settings.pop(name) for name in OF_BATCH_ENTITY if name in settings}
        retry_settings = settings.pop("retry_settings", None)
        if not self._packaging.model_package.inferencing_server.code_folder:
            settings = {"output_action": "summary_only", **settings}  # the generated script writes its answers itself
        return {**of_entity, "retry_settings": retry_settings, "settings": settings}

    def _image(self, session: AzureMLSession, model: AssetVersion, base: str, code: dict[str, str]) -> str:
        """Have Azure ML pack everything into an image, and return the environment that stands for it."""
        package = self._packaging.model_package
        name, version = package.target_environment, package.target_environment_version
        logger.warning("packing model, code and environment into an image by a preview operation of Azure ML")
        packed = session.ask_once(
            "assets.package",
            model=self._packaging.model_name,
            version=model.version,
            target_environment=f"{WORKSPACE_ID}{name}:{version}" if version else name,
            base=base,
            code=code,
            mode=package.model_configurations.model_dump(),
            environment_variables=package.environment_variables,
        )
        return str(packed["id"])
