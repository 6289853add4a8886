"""The folders that become assets: each has a ranked model, what describes it, and a manifest of its own.

So whoever downloads an asset can check it as any package.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from packhouse.artifacts import ArtifactStore, measure
from packhouse.errors import PackagingFailed, RegistrationFailed
from packhouse.packaging import PackagingJob
from packhouse.packaging.azureml.names import IGNORE_FILES
from packhouse.packaging.azureml.registration import Asset, Kind
from packhouse.packaging.azureml.versions import FLOW_RUN_TAG
from packhouse.packaging.contents import Content, Contents
from packhouse.packaging.manifest import Manifest, PackagedCandidate, with_manifest
from packhouse.packaging.ranked_model import packed_model
from packhouse.packaging.seal import VERIFY_NAME
from packhouse.ranking import Ranked
from packhouse.records import digest_of

MAX_TAG_LENGTH = 256


def asset_folder(
    job: PackagingJob, ranked: Ranked, store: ArtifactStore, folder: str, beside: Contents
) -> tuple[dict[str, Content], PackagedCandidate]:
    """Return the files of an asset, and what the manifest of a package is to say of its model, if they lie in a folder of it.

    Raises:
        PackagingFailed: a candidate has a file that would keep others from being uploaded.
    """
    verify = Content.of((resources.files("packhouse.packaging") / VERIFY_NAME).read_bytes())
    contents, described = packed_model(job, ranked, store, beside={VERIFY_NAME: verify, **beside})
    if ignored := next((name for name in IGNORE_FILES if name in contents), None):
        raise PackagingFailed(
            f"candidate {described.name!r} brings a file {ignored}, by which Azure's SDK leaves files out; remove it"
        )
    golden = described.golden_samples
    moved = described.model_copy(
        update={
            "model_path": f"{folder}/{described.model_path}",
            "settings_path": f"{folder}/{described.settings_path}",
            "golden_samples": golden and golden.model_copy(update={"path": f"{folder}/{golden.path}"}),
        }
    )
    return with_manifest(contents, (described,)), moved


def validated_digest(package: Path, manifest: Manifest, folder: str) -> str:
    """Return the digest of a folder of a package whose files are those of the manifest. Raises RegistrationFailed."""
    files = {file.removeprefix(f"{folder}/"): known for file, known in manifest.files.items() if file.startswith(f"{folder}/")}
    found = {path.relative_to(package / folder).as_posix() for path in (package / folder).rglob("*") if not path.is_dir()}
    for file in sorted(found | files.keys()):
        if file not in found & files.keys() or measure(package / folder / file).sha256 != files[file].sha256:
            raise RegistrationFailed(f"{folder}/{file} is not what was validated; run again")
    return digest_of({file: known.sha256 for file, known in files.items()})


def asset_of(
    package: Path,
    manifest: Manifest,
    folder: str,
    *,
    kind: Kind,
    name: str,
    description: str | None,
    tags: dict[str, str],
    settings: dict[str, Any],
) -> Asset:
    """Return the asset that a folder of a package becomes. Raises RegistrationFailed where it is not what was validated."""
    return Asset(
        kind=kind,
        name=name,
        folder=package / folder,
        digest=validated_digest(package, manifest, folder),
        description=description,
        tags=tags,
        settings=settings,
    )


def tags_of(packaged: PackagedCandidate, flow_run: str | None) -> dict[str, str]:
    """Return what a workspace can be searched by."""
    about = {
        "packhouse.candidate": packaged.name,
        "packhouse.candidate_digest": packaged.digest,
        "packhouse.accelerator": packaged.accelerator,
        "packhouse.rank": packaged.rank,
        "packhouse.overall_rank": packaged.overall_rank,
        "packhouse.decided_by": packaged.decided_by,
        FLOW_RUN_TAG: flow_run,
        **{name: repr(metric.value) for name, metric in packaged.metrics.items()},
    }
    return {key: str(value)[:MAX_TAG_LENGTH] for key, value in about.items() if value is not None}
