"""What every packaging type is given to work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packhouse.accelerators import Accelerator
from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.candidates import Candidate
from packhouse.errors import PackagingFailed
from packhouse.evaluation.fingerprint import Fingerprint
from packhouse.evaluation.records import Evaluation
from packhouse.evaluation.tournament import Summary
from packhouse.metrics import Metric
from packhouse.pins import Pin, distribution_of, parse_runtime
from packhouse.ranking import Ranked, Ranking
from packhouse.records import Record


class PackagingJob(Record):
    """Everything that a package may be made of: the same for all types of one release.

    `tournaments` has how timing went, by accelerator; those on which nothing was timed are left out. `io_binding` says whether
    inputs and outputs were bound to the device's memory there.
    """

    candidates: tuple[Candidate, ...]
    accelerators: tuple[Accelerator, ...]
    metrics: tuple[Metric, ...]
    baseline: str | None
    evaluations: tuple[Evaluation, ...]
    tournaments: dict[str, Summary]
    overall: Ranking
    by_accelerator: dict[str, Ranking]
    data: Artifact
    input_keys: dict[str, str]
    batch_size: int
    fingerprint: Fingerprint
    io_binding: bool = False

    def candidate(self, digest: str) -> Candidate:
        """Return the candidate with a digest."""
        return next(candidate for candidate in self.candidates if candidate.digest == digest)

    def candidate_on(self, digest: str, spec: str) -> Candidate:
        """Return the candidate with a digest as it is run on an accelerator, which may fix dimensions of its inputs."""
        candidate, sizes = self.candidate(digest), self.accelerator(spec).dimensions
        return candidate.model_copy(update={"inputs": tuple(value.with_sizes(sizes) for value in candidate.inputs)})

    def accelerator(self, spec: str) -> Accelerator:
        """Return the accelerator with a spec."""
        return next(accelerator for accelerator in self.accelerators if accelerator.spec == spec)

    def runtime_on(self, spec: str) -> tuple[str, str]:
        """Return name and version of the onnxruntime distribution that candidates were measured with on an accelerator."""
        if pins := parse_runtime(self.accelerator(spec).runtime):
            return distribution_of(pins).name, distribution_of(pins).version
        return self.fingerprint.runtime, self.fingerprint.runtime_version

    def runtime_pins(self, ranked: Ranked, extras: Sequence[str] = ()) -> tuple[Pin, ...]:
        """Return the runtime that a place in a ranking was measured with, pinned; what was found installed has these extras."""
        if pins := parse_runtime(self.accelerator(ranked.accelerator).runtime):
            return pins
        fingerprint = self.evaluation(ranked).fingerprint
        libraries = fingerprint.libraries if fingerprint else {}
        name, version = self.runtime_on(ranked.accelerator)
        return (Pin(name, version, tuple(sorted(extras))), *(Pin(*each) for each in sorted(libraries.items())))

    def evaluation(self, ranked: Ranked) -> Evaluation:
        """Return the evaluation that a place in a ranking stands for."""
        return self.evaluation_of(ranked.candidate, ranked.accelerator)

    def evaluation_of(self, digest: str, accelerator: str) -> Evaluation:
        """Return the evaluation of a candidate on an accelerator."""
        return next(item for item in self.evaluations if item.candidate == digest and item.accelerator == accelerator)

    @property
    def best(self) -> Ranked:
        """The first place across all accelerators."""
        return self.overall.ranked[0]


def _not_connected(name: str) -> Any:
    raise PackagingFailed(f"there is no block {name!r} here; blocks are known to a flow run only")


@dataclass(frozen=True)
class Workplace:
    """Where a package is made: the store that holds the bytes, a scratch folder, and a cache that outlives the run.

    `connect` gives the client or the connection of a block by its name, ``<type>/<name>``. `flow_run` is the id of the run that
    does it, where there is one; it must not go into a package.
    """

    store: ArtifactStore
    scratch: Path
    cache: Path
    connect: Callable[[str], Any] = _not_connected
    flow_run: str | None = None

    @property
    def runtimes(self) -> Path:
        """Folder of the environments of runtimes."""
        return self.cache / "runtimes"
