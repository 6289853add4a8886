"""The release: everything that one run decided and made."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from packhouse.artifacts import Artifact
from packhouse.comparison import Compare, compare_intervals
from packhouse.errors import InputError
from packhouse.evaluation.records import Evaluation
from packhouse.evaluation.tournament import Summary
from packhouse.packaging.job import PackagingJob
from packhouse.plan import Plan
from packhouse.ranking import Objective, rank
from packhouse.records import Record

RELEASE_NAME = "release.json"
REPORT_NAME = "report.html"


class Grading(Record):
    """What the candidates did on one accelerator, and how timing them went; None where nothing was timed."""

    accelerator: str
    evaluations: tuple[Evaluation, ...]
    timing: Summary | None = None


class Package(Record):
    """A package that was made: its files by name relative to the output folder, in the artifact store."""

    type: str
    name: str
    files: dict[str, Artifact]

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files.values())


class Release(Record):
    """What one run decided and made. It is the flow's result, and `release.json` in the output folder.

    `failures` has one sentence for each package that could not be made.
    """

    job: PackagingJob
    packages: tuple[Package, ...] = ()
    failures: tuple[str, ...] = ()
    created_at: str
    flow_run: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether something was ranked on every accelerator and every package was made."""
        return all(ranking.ranked for ranking in self.job.by_accelerator.values()) and not self.failures

    @property
    def verdict(self) -> str:
        """One sentence per cause of failure, or one that says what was made."""
        causes = [
            f"no candidate could be ranked on {spec}: {'; '.join(sorted({item.reason for item in ranking.unranked}))}"
            for spec, ranking in self.job.by_accelerator.items()
            if not ranking.ranked
        ]
        if causes or self.failures:
            return ". ".join([*causes, *self.failures])
        best = self.job.best
        made = ", ".join(package.name for package in self.packages) or "no packages"
        return f"{self.job.candidate(best.candidate).name} ranks first ({best.accelerator}); made {made}"


def decide(plan: Plan, gradings: Sequence[Grading], compare: Compare = compare_intervals) -> PackagingJob:
    """Rank the evaluations per accelerator and across all of them; `compare` knows how sure differences are."""
    metrics, evaluations = plan.config.flat_metrics, tuple(item for grading in gradings for item in grading.evaluations)
    ranked = partial(
        rank,
        metrics=metrics,
        baseline=plan.baseline,
        compare=compare,
        objective=Objective(kind=plan.config.objective, weights=plan.config.weights),
    )
    here = next((request for request in plan.requests if not request.accelerator.runtime), plan.requests[0])
    return PackagingJob(
        candidates=plan.candidates,
        accelerators=plan.config.accelerators,
        metrics=metrics,
        baseline=plan.baseline,
        evaluations=evaluations,
        tournaments={item.accelerator: item.timing for item in gradings if item.timing},
        overall=ranked(evaluations),
        by_accelerator={grading.accelerator: ranked(grading.evaluations) for grading in gradings},
        data=plan.data,
        input_keys=plan.input_keys,
        fingerprint=here.fingerprint,
        io_binding=plan.timing.io_binding,
    )


def read_release(path: Path) -> Release:
    """Return the release record in a file, or in an output folder. Raises InputError."""
    file = path / RELEASE_NAME if path.is_dir() else path
    try:
        return Release.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError.at(str(file), f"cannot be read ({error.strerror})", "name the output folder of a run") from error
    except ValidationError as error:
        raise InputError.at(str(file), "is no release record of this version", "name the release.json of a run") from error
