"""Package: one task per configured type, cached by everything that the package is made of."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.context import TaskRunContext

import packhouse
from packhouse.artifacts import ArtifactStore
from packhouse.errors import PackagingFailed, PackhouseError
from packhouse.packaging import Packaging, PackagingJob, Workplace
from packhouse.records import digest_of
from packhouse.release import Package
from tasks.fan_out import fan_out
from tasks.storage import artifact_store, package_cache


def package_key(_: TaskRunContext | None, parameters: dict[str, Any]) -> str:
    """Return the address of the package's record in the result storage."""
    content = [parameters["job"].content_digest, parameters["packaging"].content_digest, packhouse.__version__]
    return "package-" + digest_of(content)


@task(
    task_run_name="package {packaging.type} {packaging.name}",
    cache_key_fn=package_key,
    persist_result=True,
    result_serializer="json",
)
def make_package(job: PackagingJob, packaging: Packaging) -> Package:
    """Make a package and take its files into the result storage.

    Raises:
        PackagingFailed: with the reason, which no later run takes from the cache.
    """
    logger, store = get_run_logger(), artifact_store()
    try:
        with store.staging() as scratch:
            made = packaging.create(job, Workplace(store, scratch, package_cache()))
            package = _adopt(packaging, made, store)
    except (PackhouseError, OSError) as error:
        raise PackagingFailed(f"{packaging.output_name} was not made: {error}") from error
    logger.info(
        "made %s: %.1f MB",
        packaging.output_name,
        package.size_bytes / 1e6,
        extra={"step": f"made {packaging.output_name}"},
    )
    return package


async def package_all(job: PackagingJob, packagings: Sequence[Packaging]) -> list[Package | PackagingFailed]:
    """Make all packages on the flow's task runner; one that fails gives its reason and stops no other."""
    store = artifact_store()
    outcomes = await fan_out(
        make_package,
        [(job, packaging) for packaging in packagings],
        expected=PackagingFailed,
        is_usable=partial(has_its_files, store=store),
    )
    return [outcome.value for outcome in outcomes]


def has_its_files(package: Package, store: ArtifactStore) -> bool:
    """Whether the files of a package are in the store, undamaged."""
    return all(store.is_intact(artifact) for artifact in package.files.values())


def _adopt(packaging: Packaging, made: Path, store: ArtifactStore) -> Package:
    paths = sorted(path for path in made.rglob("*") if path.is_file()) if made.is_dir() else [made]
    files = {path.relative_to(made.parent).as_posix(): store.adopt(path) for path in paths}
    return Package(type=packaging.type, name=packaging.output_name, files=files)
