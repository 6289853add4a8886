"""Evaluate one candidate on one accelerator: one worker, one session, all metrics but those that have to be timed."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from packhouse.accelerators import Accelerator
from packhouse.artifacts import Artifact, ArtifactStore
from packhouse.candidates import Candidate, lay_out
from packhouse.errors import EvaluationFailed
from packhouse.evaluation.data import LABELS_KEY, Array
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.fingerprint import this_machine
from packhouse.evaluation.idle_workers import IdleWorkers
from packhouse.evaluation.latency import NS_PER_MS
from packhouse.evaluation.quality import quality, quality_interval
from packhouse.evaluation.records import Evaluation, EvaluationRequest, MetricValue
from packhouse.evaluation.session_host import SessionHost
from packhouse.evaluation.sessions import session_arguments
from packhouse.metrics import QUALITY_TYPES, Metric

Say = Callable[[str], None]
# How many of the first samples are predicted one by one, as what a package is compared with later.
GOLDEN_SAMPLES = 4


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
        measure: Callable[[Metric], MetricValue] = getattr(self, f"_{metric.type}")
        return measure(metric)

    def _accuracy(self, metric: Metric) -> MetricValue:
        assert self.labels is not None
        value = quality(metric, self.outputs, self.labels)
        interval = quality_interval(metric, self.outputs, self.labels) if math.isfinite(value) else None
        return MetricValue(value=value, unit=metric.unit, n=len(self.labels), interval=interval)

    _custom = _accuracy

    def _size_on_disk(self, metric: Metric) -> MetricValue:
        return MetricValue(value=float(self.size_bytes), unit=metric.unit, n=1)

    def _peak_memory(self, metric: Metric) -> MetricValue:
        return MetricValue(value=float(self.peak_memory_bytes), unit=metric.unit, n=1)

    def _startup(self, metric: Metric) -> MetricValue:
        return MetricValue(value=self.startup_ms[metric.sub_type], unit=metric.unit, n=1)


def evaluate(
    request: EvaluationRequest,
    store: ArtifactStore,
    say: Say = lambda _: None,
    python: str = sys.executable,
    *,
    idle: IdleWorkers | None = None,
) -> Evaluation:
    """Measure what the request asks for with the onnxruntime of the interpreter `python`; `say` is told what is going on.

    The device is shared with other candidates, and not with a tournament. The worker is left to `idle`, if given.

    Raises:
        EvaluationFailed: with the reason, where the candidate cannot be evaluated.
    """
    began = time.monotonic()
    with (
        store.staging() as scratch,
        device_locks(
            request.accelerator.devices([request.candidate.settings]),
            exclusive=False,
            waiting=lambda: say("waiting for the device"),
        ),
    ):
        say("creating the session")
        with ExitStack() as owned:
            host = owned.enter_context(SessionHost(owned.enter_context(store.staging()), python))
            evaluation = _compute(request, host, store, scratch, say)
            if idle:
                idle.keep(host, owned.pop_all(), request.candidate, request.accelerator, python)
    return evaluation.model_copy(update={"duration_s": time.monotonic() - began})


def _compute(request: EvaluationRequest, host: SessionHost, store: ArtifactStore, scratch: Path, say: Say) -> Evaluation:
    """Return the evaluation without what has to be timed."""
    candidate, data = request.candidate, store.path(request.data.sha256)
    created = open_session(
        host,
        candidate,
        request.accelerator,
        data=data,
        input_keys=request.input_keys,
        model=lay_out(candidate, store, scratch / "model"),
    )
    first = host.ask("prepare_timing", batch_size=request.timing_batch_size)
    say("running the samples")
    judged = any(metric.type in QUALITY_TYPES for metric in request.metrics)
    predictions = _predict(host, store, scratch, batch_size=request.batch_size)[0] if judged else None
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
    values = {item.name: computed.value_of(item) for item in request.metrics}
    golden, golden_count = _golden(host, store, scratch)
    return Evaluation(
        candidate=candidate.digest,
        accelerator=request.accelerator.spec,
        metrics={name: value for name, value in values.items() if math.isfinite(value.value)},
        placement=created["placement"],
        startup_ms=dict(computed.startup_ms),
        peak_memory_bytes=memory,
        timing_batch_size=first["batch_size"],
        predictions=predictions,
        sample_outputs=golden,
        sample_count=golden_count,
        runtime_version=created["onnxruntime"],
        fingerprint=request.fingerprint,
        computer=this_machine(),
    )


def open_session(
    host: SessionHost,
    candidate: Candidate,
    accelerator: Accelerator,
    *,
    data: Path,
    input_keys: Mapping[str, str],
    model: Path,
    extra_session_config: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Let a worker read the samples that a candidate takes, and create its session; return what it tells of that.

    `extra_session_config` has entries that take precedence over what accelerator and candidate say.

    Raises:
        EvaluationFailed: the session cannot be created, or not wholly on the provider.
    """
    arguments = session_arguments(accelerator, candidate.settings, model)
    options = arguments["session_options"]
    options["extra_session_config"] = {**options.get("extra_session_config", {}), **(extra_session_config or {})}
    host.ask("read_data", path=str(data), inputs={value.name: input_keys[value.name] for value in candidate.inputs})
    return host.ask("create_session", **arguments)


def _golden(host: SessionHost, store: ArtifactStore, scratch: Path) -> tuple[Artifact, int]:
    """Predict the first samples one by one; only one of them where their outputs have sizes that differ."""
    try:
        return _predict(host, store, scratch, batch_size=1, samples=GOLDEN_SAMPLES)
    except EvaluationFailed:
        return _predict(host, store, scratch, batch_size=1, samples=1)


def _predict(
    host: SessionHost, store: ArtifactStore, scratch: Path, *, batch_size: int, samples: int | None = None
) -> tuple[Artifact, int]:
    """Return the outputs, and of how many samples they are."""
    output = scratch / "predictions.npz"
    answer = host.ask("predict", batch_size=batch_size, output=str(output), samples=samples)
    return store.adopt(output), int(answer["samples"])


def _read(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
