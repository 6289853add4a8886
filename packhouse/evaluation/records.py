"""What is asked of an evaluation, and what comes of it."""

from typing import Literal

from packhouse.accelerators import Accelerator
from packhouse.artifacts import Artifact
from packhouse.candidates import Candidate
from packhouse.evaluation.fingerprint import Fingerprint, Machine
from packhouse.metrics import Metric
from packhouse.records import Record, digest_of
from packhouse.user_code import code_digest

# Raised whenever the same request would give another evaluation than before.
PROTOCOL_VERSION = 3


class EvaluationRequest(Record):
    """Everything that an evaluation depends on. Its `key` is the evaluation's address in the result storage."""

    candidate: Candidate
    accelerator: Accelerator
    metrics: tuple[Metric, ...]
    data: Artifact
    input_keys: dict[str, str]
    batch_size: int
    timing_batch_size: int
    fingerprint: Fingerprint

    @property
    def key(self) -> str:
        """A digest of what is measured, how and where; priorities, goals, tolerances and the candidate's name have no part."""
        measured = [
            [
                metric.name,
                metric.type,
                metric.sub_type,
                metric.settings,
                metric.function and code_digest(metric.function),
            ]
            for metric in self.metrics
        ]
        return "evaluation-" + digest_of(
            {
                "protocol": PROTOCOL_VERSION,
                "candidate": self.candidate.digest,
                "accelerator": self.accelerator.identity,
                "metrics": measured,
                "data": self.data.sha256,
                "inputs": self.input_keys,
                "batch_size": self.batch_size,
                "timing_batch_size": self.timing_batch_size,
                "fingerprint": self.fingerprint.model_dump(mode="json"),
            }
        )


class MetricValue(Record):
    """A measured number: its unit, how many samples it was made of, and the interval that it lies in (99 %) if that is known.

    `ordering` stands for the value where candidates of one tournament are put in order: the value of the one that all are
    compared with, times the ratio to it that was found in pairs, by the clock that ranks. A value that is not supported is of
    too few samples to be known, and needs `needed_n`.
    """

    value: float
    unit: str
    n: int
    interval: tuple[float, float] | None = None
    ordering: float | None = None
    needed_n: int = 1

    @property
    def is_supported(self) -> bool:
        """Whether there are enough samples for the value to be known."""
        return self.n >= self.needed_n

    def rank_value(self, metric: Metric) -> float:
        """Return what candidates are put in order by: the plain value where the tolerance asks for that."""
        return self.value if self.ordering is None or not metric.tolerance.is_tested else self.ordering


class Evaluation(Record):
    """What a candidate did on an accelerator, or why it could not. A metric that came out as no finite number is left out.

    `placement` counts nodes per execution provider. `samples` are the raw latencies, as `latency.Timings` saves them; `clock`
    is what they are compared by with those of the same `tournament`, which is None where they cannot be; times that are not
    `is_stable` are not to be relied on. `predictions` are the outputs for all samples, as an .npz file with one array per
    output name; `sample_outputs` those for the first `sample_count` samples, one by one, which differ where what else is in a
    batch matters.
    `startup_ms` has `session_creation` and `first_inference`. `fingerprint` and `computer` are the environment. `duration_s`
    is what the evaluation took without the tournament.
    """

    candidate: str
    accelerator: str
    failure: str | None = None
    metrics: dict[str, MetricValue] = {}
    placement: dict[str, int] = {}
    startup_ms: dict[str, float] = {}
    peak_memory_bytes: int | None = None
    timing_batch_size: int = 1
    samples: Artifact | None = None
    clock: Literal["wall", "cpu"] = "wall"
    tournament: str | None = None
    is_stable: bool = True
    predictions: Artifact | None = None
    sample_outputs: Artifact | None = None
    sample_count: int = 1
    runtime_version: str | None = None
    fingerprint: Fingerprint | None = None
    computer: Machine | None = None
    duration_s: float = 0.0

    @property
    def values(self) -> dict[str, float]:
        """The metrics as plain numbers by name."""
        return {name: metric.value for name, metric in self.metrics.items()}

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files that it speaks of."""
        return tuple(item for item in (self.samples, self.predictions, self.sample_outputs) if item)
