"""``manifest.json``: what is in a package, by digest, and what is known of it, so that anybody can check both."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from packhouse.candidates import TensorInfo
from packhouse.errors import PackagingFailed
from packhouse.packaging.contents import Content, Contents, unfit_name
from packhouse.packaging.golden import ATOL, RTOL, fixed_batch
from packhouse.packaging.job import PackagingJob
from packhouse.ranking import Ranked
from packhouse.records import Record

MANIFEST_NAME = "manifest.json"
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ManifestFile(Record):
    """Size and digest of a file in the package."""

    sha256: str
    size_bytes: int


class PackagedMetric(Record):
    """What a candidate was measured to have: the value, how many samples it is of, and the interval it lies in (99 %)."""

    value: float
    unit: str
    n: int
    interval: tuple[float, float] | None
    priority: int
    higher_is_better: bool


class GoldenSamples(Record):
    """Where the golden samples of a model are, how they are run, and how far outputs may be off: ``atol + rtol·|expected|``."""

    path: str
    samples: PositiveInt
    batch_size: PositiveInt
    atol: Tolerance = ATOL
    rtol: Tolerance = RTOL


class PackagedCandidate(Record):
    """A candidate in the package: its rank on its accelerator and across all, why, where its model is and what it takes.

    `settings_path` is the file with its execution provider and session options; `dimensions` fixes the size of dynamic
    dimensions by name.
    """

    name: str
    digest: str
    accelerator: str
    rank: int
    overall_rank: int
    decided_by: str
    model_path: str
    settings_path: str
    runtime: str
    runtime_version: str | None
    provider_libraries: dict[str, str]
    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    dimensions: dict[str, int]
    metrics: dict[str, PackagedMetric]
    golden_samples: GoldenSamples | None

    @classmethod
    def of(
        cls, job: PackagingJob, ranked: Ranked, overall: Ranked, *, model_path: str, settings_path: str, golden_path: str
    ) -> "PackagedCandidate":
        """Describe a ranked candidate of a job, whose files have these names in the package."""
        candidate, evaluation = job.candidate(ranked.candidate), job.evaluation(ranked)
        batch_size = fixed_batch(job.candidate_on(ranked.candidate, ranked.accelerator))
        golden = GoldenSamples(path=golden_path, samples=evaluation.sample_count, batch_size=batch_size)
        measured = {
            metric.name: PackagedMetric(
                **evaluation.metrics[metric.name].model_dump(include={"value", "unit", "n", "interval"}),
                priority=metric.priority,
                higher_is_better=metric.higher_is_better,
            )
            for metric in job.metrics
            if metric.name in evaluation.metrics and evaluation.metrics[metric.name].is_supported
        }
        return cls(
            name=candidate.name,
            digest=ranked.candidate,
            accelerator=ranked.accelerator,
            rank=ranked.rank,
            overall_rank=overall.rank,
            decided_by=ranked.decided_by,
            model_path=model_path,
            settings_path=settings_path,
            runtime=job.runtime_on(ranked.accelerator)[0],
            runtime_version=evaluation.runtime_version,
            provider_libraries=evaluation.fingerprint.libraries if evaluation.fingerprint else {},
            opset=candidate.opset,
            inputs=candidate.inputs,
            outputs=candidate.outputs,
            dimensions=job.accelerator(ranked.accelerator).dimensions,
            metrics=measured,
            golden_samples=golden if evaluation.sample_outputs else None,
        )


class Manifest(Record):
    """Content of ``manifest.json``. `files` has every file of the package but the manifest itself."""

    schema_version: Literal[2] = 2
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
