"""The artifact store of a run: it lies in the result storage that Prefect uses for the run."""

from pathlib import Path

from prefect.filesystems import LocalFileSystem
from prefect.results import get_result_store
from prefect.settings import get_current_settings

from packhouse.artifacts import ArtifactStore
from packhouse.errors import ArtifactError


def artifact_store() -> ArtifactStore:
    """Return the store in the result storage in force. Raises ArtifactError where it is not a local folder."""
    storage = get_result_store().result_storage
    if storage is None:
        return ArtifactStore(default_result_folder())
    if not isinstance(storage, LocalFileSystem) or storage.basepath is None:
        raise ArtifactError(f"artifacts cannot be stored in {type(storage).__name__} yet; use a local folder as result storage")
    return ArtifactStore(Path(storage.basepath).expanduser())


def default_result_folder() -> Path:
    """Return the folder of Prefect's default result storage on this machine."""
    return get_current_settings().results.local_storage_path


def package_cache() -> Path:
    """Return the folder for downloads that outlive a run."""
    return get_current_settings().home / "packhouse-cache"
