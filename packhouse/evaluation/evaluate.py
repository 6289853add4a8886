"""Evaluate one candidate on one accelerator: one worker, one session, all metrics."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.candidates import lay_out
from packhouse.evaluation.data import LABELS_KEY, Array
from packhouse.evaluation.device_lock import device_lock
from packhouse.evaluation.latency import NS_PER_MS, statistic, throughput, time_alone
from packhouse.evaluation.quality import quality
from packhouse.evaluation.records import Evaluation, EvaluationRequest, MetricValue
from packhouse.evaluation.session_host import SessionHost
from packhouse.metrics import QUALITY_TYPES, TIMED_TYPES, Metric

Say = Callable[[str], None]


@dataclass(frozen=True)
class Observed:
    """Raw observations of one candidate on one accelerator, from which every metric is made."""

    size_bytes: int
    peak_memory_bytes: int
    startup_ms: Mapping[str, float]
    samples_ns: Sequence[int]
    timing_batch_size: int
    outputs: Mapping[str, Array]
    labels: Array | None

    def value_of(self, metric: Metric) -> MetricValue:
        """Return the value of a metric. Raises EvaluationFailed where the observations do not give one."""
        value, n = getattr(self, f"_{metric.type}")(metric)
        return MetricValue(value=value, unit=metric.unit, n=n)

    def _accuracy(self, metric: Metric) -> tuple[float, int]:
        assert self.labels is not None
        return quality(metric, self.outputs, self.labels), len(self.labels)

    _custom = _accuracy

    def _latency(self, metric: Metric) -> tuple[float, int]:
        return statistic(self.samples_ns, metric.sub_type), len(self.samples_ns)

    def _throughput(self, metric: Metric) -> tuple[float, int]:
        return throughput(self.samples_ns, metric.sub_type, self.timing_batch_size), len(self.samples_ns)

    def _size_on_disk(self, _: Metric) -> tuple[float, int]:
        return float(self.size_bytes), 1

    def _peak_memory(self, _: Metric) -> tuple[float, int]:
        return float(self.peak_memory_bytes), 1

    def _startup(self, metric: Metric) -> tuple[float, int]:
        return self.startup_ms[metric.sub_type], 1


def evaluate(request: EvaluationRequest, store: ArtifactStore, say: Say = lambda _: None) -> Evaluation:
    """Measure what the request asks for; `say` is told what is going on.

    Quality may be computed by several candidates at once; timing has the device to itself, on this whole machine.

    Raises:
        EvaluationFailed: with the reason, where the candidate cannot be evaluated.
    """
    began = time.monotonic()
    accelerator, data = request.accelerator, str(store.path(request.data.sha256))
    wanted = {metric.type for metric in request.metrics}
    with store.staging() as scratch, SessionHost(scratch) as host:
        host.ask(
            "read_data",
            path=data,
            inputs={name.name: request.input_keys[name.name] for name in request.candidate.inputs},
        )
        with device_lock(accelerator.device, exclusive=False):
            say("creating the session")
            created = host.ask("create_session", **_session(request, lay_out(request.candidate, store, scratch / "model")))
            first = host.ask("prepare_timing", batch_size=request.timing.batch_size)
            say("running the samples")
            predictions = _predict(host, request.batch_size, store, scratch) if wanted & QUALITY_TYPES else None
            memory = host.ask("peak_memory")["bytes"]
        samples: list[int] = []
        if wanted & TIMED_TYPES:
            with device_lock(accelerator.device, exclusive=True, waiting=lambda: say("waiting for the device")):
                say("timing")
                samples = time_alone(host, request.timing)
        kept = _keep_samples(samples, store, scratch) if samples else None
    startup = {
        "session_creation": created["duration_ns"] / NS_PER_MS,
        "first_inference": first["duration_ns"] / NS_PER_MS,
    }
    observed = Observed(
        size_bytes=request.candidate.size_bytes,
        peak_memory_bytes=memory,
        startup_ms=startup,
        samples_ns=samples,
        timing_batch_size=first["batch_size"],
        outputs=_read(store.path(predictions.sha256)) if predictions else {},
        labels=_read(Path(data)).get(LABELS_KEY),
    )
    return Evaluation(
        candidate=request.candidate.digest,
        accelerator=accelerator.spec,
        metrics={metric.name: observed.value_of(metric) for metric in request.metrics},
        placement=created["placement"],
        startup_ms=startup,
        peak_memory_bytes=memory,
        samples=kept,
        predictions=predictions,
        runtime_version=created["onnxruntime"],
        duration_s=time.monotonic() - began,
    )


def _session(request: EvaluationRequest, model: Path) -> dict[str, Any]:
    settings = request.accelerator.session_for(request.candidate.settings)
    return {
        "model": str(model),
        "provider": settings.execution_provider,
        "provider_options": settings.provider_options,
        "session_options": settings.session_options.model_dump(exclude_none=True),
    }


def _predict(host: SessionHost, batch_size: int, store: ArtifactStore, scratch: Path) -> Artifact:
    output = scratch / "predictions.npz"
    host.ask("predict", batch_size=batch_size, output=str(output))
    return store.adopt(output)


def _keep_samples(samples_ns: Sequence[int], store: ArtifactStore, scratch: Path) -> Artifact:
    path = scratch / "samples.npy"
    np.save(path, np.asarray(samples_ns, dtype=np.int64), allow_pickle=False)
    return store.adopt(path)


def _read(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
