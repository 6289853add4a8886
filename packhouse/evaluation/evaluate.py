"""Evaluate one candidate on one accelerator: one worker, one session, all metrics."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.candidates import lay_out
from packhouse.evaluation.data import LABELS_KEY, Array
from packhouse.evaluation.device_lock import device_lock
from packhouse.evaluation.latency import NS_PER_MS, statistic, throughput, time_alone
from packhouse.evaluation.quality import quality
from packhouse.evaluation.records import Evaluation, EvaluationRequest, MetricValue
from packhouse.evaluation.session_host import SessionHost
from packhouse.evaluation.sessions import session_arguments
from packhouse.metrics import QUALITY_TYPES, TIMED_TYPES, Metric

Say = Callable[[str], None]


@dataclass(frozen=True)
class Computed:
    """What a candidate did when it was not timed, from which its metrics other than latency and throughput are made."""

    size_bytes: int
    peak_memory_bytes: int
    startup_ms: Mapping[str, float]
    outputs: Mapping[str, Array]
    labels: Array | None

    def value_of(self, metric: Metric) -> MetricValue:
        """Return the value of a metric. Raises EvaluationFailed where there is none."""
        value, n = getattr(self, f"_{metric.type}")(metric)
        return MetricValue(value=value, unit=metric.unit, n=n)

    def _accuracy(self, metric: Metric) -> tuple[float, int]:
        assert self.labels is not None
        return quality(metric, self.outputs, self.labels), len(self.labels)

    _custom = _accuracy

    def _size_on_disk(self, _: Metric) -> tuple[float, int]:
        return float(self.size_bytes), 1

    def _peak_memory(self, _: Metric) -> tuple[float, int]:
        return float(self.peak_memory_bytes), 1

    def _startup(self, metric: Metric) -> tuple[float, int]:
        return self.startup_ms[metric.sub_type], 1


def evaluate(
    request: EvaluationRequest, store: ArtifactStore, say: Say = lambda _: None, python: str = sys.executable
) -> Evaluation:
    """Measure what the request asks for with the onnxruntime of the interpreter `python`; `say` is told what is going on.

    All that computes shares the device with other candidates; what is timed has it to itself, on this whole machine.

    Raises:
        EvaluationFailed: with the reason, where the candidate cannot be evaluated.
    """
    began = time.monotonic()
    device = request.accelerator.device
    timed = [metric for metric in request.metrics if metric.type in TIMED_TYPES]
    with store.staging() as scratch, ExitStack() as running:
        with device_lock(device, exclusive=False):
            say("creating the session")
            host = running.enter_context(SessionHost(scratch, python))
            evaluation = _compute(request, host, store, scratch, say)
        samples: list[int] = []
        if timed:
            with device_lock(device, exclusive=True, waiting=lambda: say("waiting for the device")):
                say("timing")
                samples = time_alone(host, request.timing)
        kept = _keep_samples(samples, store, scratch) if samples else None
    values = evaluation.metrics | {metric.name: _timing(metric, samples, evaluation.timing_batch_size) for metric in timed}
    return evaluation.model_copy(
        update={
            "metrics": {item.name: values[item.name] for item in request.metrics if math.isfinite(values[item.name].value)},
            "samples": kept,
            "duration_s": time.monotonic() - began,
        }
    )


def _compute(request: EvaluationRequest, host: SessionHost, store: ArtifactStore, scratch: Path, say: Say) -> Evaluation:
    """Return the evaluation without what has to be timed."""
    candidate, data = request.candidate, store.path(request.data.sha256)
    host.ask("read_data", path=str(data), inputs={value.name: request.input_keys[value.name] for value in candidate.inputs})
    model = lay_out(candidate, store, scratch / "model")
    created = host.ask("create_session", **session_arguments(request.accelerator, candidate.settings, model))
    first = host.ask("prepare_timing", batch_size=request.timing.batch_size)
    say("running the samples")
    judged = any(metric.type in QUALITY_TYPES for metric in request.metrics)
    predictions = _predict(host, store, scratch, batch_size=request.batch_size) if judged else None
    memory = host.ask("peak_memory")["bytes"]
    computed = Computed(
        size_bytes=candidate.size_bytes,
        peak_memory_bytes=memory,
        startup_ms={
            "session_creation": created["duration_ns"] / NS_PER_MS,
            "first_inference": first["duration_ns"] / NS_PER_MS,
        },
        outputs=_read(store.path(predictions.sha256)) if predictions else {},
        labels=_read(data).get(LABELS_KEY),
    )
    return Evaluation(
        candidate=candidate.digest,
        accelerator=request.accelerator.spec,
        metrics={item.name: computed.value_of(item) for item in request.metrics if item.type not in TIMED_TYPES},
        placement=created["placement"],
        startup_ms=dict(computed.startup_ms),
        peak_memory_bytes=memory,
        timing_batch_size=first["batch_size"],
        predictions=predictions,
        sample_outputs=_predict(host, store, scratch, batch_size=1, samples=1),
        runtime_version=created["onnxruntime"],
    )


def _timing(metric: Metric, samples_ns: Sequence[int], batch_size: int) -> MetricValue:
    if metric.type == "latency":
        value = statistic(samples_ns, metric.sub_type)
    else:
        value = throughput(samples_ns, metric.sub_type, batch_size)
    return MetricValue(value=value, unit=metric.unit, n=len(samples_ns))


def _predict(
    host: SessionHost, store: ArtifactStore, scratch: Path, *, batch_size: int, samples: int | None = None
) -> Artifact:
    output = scratch / "predictions.npz"
    host.ask("predict", batch_size=batch_size, output=str(output), samples=samples)
    return store.adopt(output)


def _keep_samples(samples_ns: Sequence[int], store: ArtifactStore, scratch: Path) -> Artifact:
    path = scratch / "samples.npy"
    np.save(path, np.asarray(samples_ns, dtype=np.int64), allow_pickle=False)
    return store.adopt(path)


def _read(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
