"""Register folders as versions of assets: each is known by its digest, and where that is registered nothing is done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.failures import AzureFailed
from packhouse.packaging.azureml.versions import DIGEST_TAG, AssetVersion, OnConflict, choose_version
from packhouse.packaging.azureml.workspace import AzureMLSession

REGISTER = {
    "models": "assets.register_model",
    "data": "assets.register_data",
    "environments": "assets.register_environment",
}
LOOKS = 5  # at the versions, where others take them at the same time
Kind = Literal["models", "data", "environments"]


@dataclass(frozen=True)
class Asset:
    """A folder that becomes a version of an asset; `settings` are what only assets of its kind have."""

    kind: Kind
    name: str
    folder: Path
    digest: str
    description: str | None
    tags: dict[str, str]
    settings: dict[str, Any]


def register_asset(session: AzureMLSession, asset: Asset, wanted: str, on_conflict: OnConflict) -> AssetVersion:
    """Return the version that has the content of an asset; it is made if there is none.

    Raises:
        RegistrationFailed: the version that is wanted has other content, or Azure refused.
    """
    for look in range(1, LOOKS + 1):
        told = session.ask("assets.versions", kind=asset.kind, name=asset.name)
        registered = [AssetVersion.of(item) for item in told]
        chosen = choose_version(asset.name, asset.digest, registered, wanted, on_conflict)
        if isinstance(chosen, AssetVersion):
            return chosen
        try:
            return _made(session, asset, chosen)
        except AzureFailed as error:  # somebody else may have taken it meanwhile
            if not error.failure.is_conflict or look == LOOKS:
                raise
    raise AssertionError


def _made(session: AzureMLSession, asset: Asset, version: str) -> AssetVersion:
    do = REGISTER[asset.kind]
    made = AssetVersion.of(
        session.ask(
            do,
            name=asset.name,
            version=version,
            path=str(asset.folder),
            description=asset.description,
            tags={**asset.tags, DIGEST_TAG: asset.digest},
            **asset.settings,
        )
    )
    if made.digest != asset.digest:
        raise RegistrationFailed(
            f"version {version} of {asset.name} has the content {made.digest} after {asset.digest} was registered; "
            "something else registers under its name → give the package a name of its own"
        )
    return made
