"""``manifest.json``: what is in a package, by digest, so that anybody can tell whether it is still what was made."""

from typing import Literal

from packhouse.errors import PackagingFailed
from packhouse.packaging.contents import Content, Contents, unfit_name
from packhouse.packaging.job import PackagingJob
from packhouse.ranking import Ranked
from packhouse.records import Record

MANIFEST_NAME = "manifest.json"


class ManifestFile(Record):
    """Size and digest of a file in the package."""

    sha256: str
    size_bytes: int


class PackagedCandidate(Record):
    """A candidate in the package: its rank on its accelerator and across all, why, and where its model is."""

    name: str
    digest: str
    accelerator: str
    rank: int
    overall_rank: int
    decided_by: str
    model_path: str
    runtime: str
    runtime_version: str | None

    @classmethod
    def of(cls, job: PackagingJob, ranked: Ranked, overall: Ranked, model_path: str) -> "PackagedCandidate":
        """Describe a ranked candidate of a job."""
        return cls(
            name=job.candidate(ranked.candidate).name,
            digest=ranked.candidate,
            accelerator=ranked.accelerator,
            rank=ranked.rank,
            overall_rank=overall.rank,
            decided_by=ranked.decided_by,
            model_path=model_path,
            runtime=job.runtime_on(ranked.accelerator)[0],
            runtime_version=job.evaluation(ranked).runtime_version,
        )


class Manifest(Record):
    """Content of ``manifest.json``. `files` has every file of the package but the manifest itself."""

    schema_version: Literal[1] = 1
    candidates: tuple[PackagedCandidate, ...]
    files: dict[str, ManifestFile]


def with_manifest(contents: Contents, candidates: tuple[PackagedCandidate, ...]) -> dict[str, Content]:
    """Return `contents` with the manifest that describes them.

    Raises:
        PackagingFailed: there are names among them that not every system can have.
    """
    if unfit := unfit_name([MANIFEST_NAME, *contents]):
        raise PackagingFailed(f"{unfit}; rename the candidate's file")
    files = {
        name: ManifestFile(sha256=contents[name].artifact.sha256, size_bytes=contents[name].artifact.size_bytes)
        for name in sorted(contents)
    }
    manifest = Manifest(candidates=candidates, files=files)
    return {**contents, MANIFEST_NAME: Content.of_json(manifest.model_dump(mode="json"))}
