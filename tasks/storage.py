"""Where runs keep things: the artifact store lies in the result storage that Prefect uses."""

from pathlib import Path

from prefect.filesystems import LocalFileSystem, WritableFileSystem
from prefect.results import get_default_result_storage, get_result_store
from prefect.settings import get_current_settings

from packhouse.artifacts import ArtifactStore
from packhouse.errors import ArtifactError
from packhouse.evaluation.runtimes import RuntimeEnvironments


def artifact_store() -> ArtifactStore:
    """Return the store in the result storage of the run. Raises ArtifactError where that is not a local folder."""
    storage = get_result_store().result_storage
    return ArtifactStore(result_folder() if storage is None else _folder_of(storage))


def result_folder() -> Path:
    """Return the folder of the result storage that a run would use. Raises ArtifactError where it is not a local folder.

    Only where a block is configured as the default is the Prefect API asked.
    """
    settings = get_current_settings().results
    if settings.default_storage_block is None:
        return settings.local_storage_path.expanduser()
    return _folder_of(get_default_result_storage(_sync=True))  # type: ignore[arg-type, call-arg]


def package_cache() -> Path:
    """Return the folder for downloads that outlive a run."""
    return get_current_settings().home / "packhouse-cache"


def runtime_environments() -> RuntimeEnvironments:
    """Return the environments of accelerators that bring their own onnxruntime; they outlive a run."""
    return RuntimeEnvironments(package_cache() / "runtimes")


def _folder_of(storage: WritableFileSystem) -> Path:
    if not isinstance(storage, LocalFileSystem) or storage.basepath is None:
        kind = type(storage).__name__
        raise ArtifactError(f"artifacts cannot be stored in {kind}; use a local folder (LocalFileSystem) as result storage")
    return Path(storage.basepath).expanduser()
