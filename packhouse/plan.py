"""What a run will do, worked out before it does anything; `packhouse plan` prints it and the flow carries it out.

Everything that can be wrong with the input is found here: nothing is written.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packhouse.artifacts import Artifact, ArtifactStore, measure, storing
from packhouse.candidates import Candidate, FoundModel, identify, receive
from packhouse.config import PackhouseConfig
from packhouse.errors import InputError, Problem
from packhouse.evaluation.data import DataConfig, Dataset, input_keys, select
from packhouse.evaluation.fingerprint import fingerprint, this_machine
from packhouse.evaluation.generated import generate
from packhouse.evaluation.latency import TimingPlan
from packhouse.evaluation.records import Evaluation, EvaluationRequest
from packhouse.evaluation.timing import TimingRequest, in_question
from packhouse.metrics import QUALITY_TYPES, TIMED_TYPES
from packhouse.packaging import Packaging
from packhouse.packaging.registry import asking
from packhouse.provenance.keys import read_signing_key
from packhouse.records import Record
from packhouse.user_code import load_function


class Plan(Record):
    """A configuration with everything in it identified: the candidates and the data by digest.

    `requests` has one evaluation per candidate and accelerator, grouped by accelerator in the order of the configuration.
    """

    config: PackhouseConfig
    candidates: tuple[Candidate, ...]
    baseline: str | None
    data: Artifact
    input_keys: dict[str, str]
    timing: TimingPlan
    requests: tuple[EvaluationRequest, ...]

    def requests_on(self, spec: str) -> tuple[EvaluationRequest, ...]:
        """Return the evaluations to do on an accelerator."""
        return tuple(request for request in self.requests if request.accelerator.spec == spec)

    @property
    def is_timed(self) -> bool:
        """Whether there are metrics that have to be timed."""
        return any(metric.type in TIMED_TYPES for metric in self.config.flat_metrics)

    def timing_on(self, spec: str, evaluations: Sequence[Evaluation]) -> TimingRequest | None:
        """Return the tournament to hold on an accelerator after these evaluations of it; None if there is nothing to time."""
        metrics = self.config.flat_metrics
        timed = tuple(metric for metric in metrics if metric.type in TIMED_TYPES)
        others = [metric for metric in metrics if metric.type not in TIMED_TYPES]
        chosen = {item.candidate for item in in_question(evaluations, others, timed, self.baseline)}
        if not timed or not chosen:
            return None
        request = self.requests_on(spec)[0]
        return TimingRequest(
            candidates=tuple(candidate for candidate in self.candidates if candidate.digest in chosen),
            accelerator=request.accelerator,
            metrics=timed,
            data=self.data,
            input_keys=self.input_keys,
            plan=self.timing,
            fingerprint=request.fingerprint,
            machine=this_machine(),
        )


@dataclass(frozen=True)
class Prepared:
    """A plan together with the bytes that it speaks of, still where they were found."""

    plan: Plan
    models: Sequence[FoundModel]
    dataset: Dataset

    def receive(self, store: ArtifactStore) -> Plan:
        """Copy candidates and data into the store, so that the plan can be carried out. Raises ArtifactError."""
        receive(self.models, self.plan.candidates, store)
        if not store.is_intact(self.plan.data):
            with storing("the data"), store.staging() as scratch:
                self.dataset.save(scratch / "data.npz")
                store.adopt(scratch / "data.npz")
        return self.plan


def prepare(config: PackhouseConfig) -> Prepared:
    """Find, check and identify everything that the configuration names.

    Raises:
        InputError: something of it is not acceptable, with place, finding and remedy.
    """
    _check_surroundings(config)
    models = config.candidates.find()
    candidates = identify(models)
    baseline = _baseline(config, candidates)
    _check_dimensions(config, candidates)
    metrics = config.flat_metrics
    needs_labels = any(metric.type in QUALITY_TYPES for metric in metrics)
    samples = config.data or DataConfig()
    dataset = generate(samples, candidates) if samples.is_generated else select(samples, candidates, needs_labels)
    data = _artifact_of(dataset)
    requests = tuple(
        EvaluationRequest(
            candidate=candidate,
            accelerator=accelerator,
            metrics=tuple(metric for metric in metrics if metric.type not in TIMED_TYPES),
            data=data,
            input_keys=input_keys(dataset.inputs),
            batch_size=samples.batch_size,
            timing_batch_size=samples.timing_batch_size,
            fingerprint=fingerprint(accelerator.runtime, accelerator.plugin),
        )
        for accelerator in config.accelerators
        for candidate in candidates
    )
    plan = Plan(
        config=config,
        candidates=candidates,
        baseline=baseline,
        data=data,
        input_keys=input_keys(dataset.inputs),
        timing=TimingPlan.for_metrics(metrics, samples.timing_batch_size, config.timing),
        requests=requests,
    )
    return Prepared(plan, models, dataset)


def _check_surroundings(config: PackhouseConfig) -> None:
    specs = [accelerator.spec for accelerator in config.accelerators]
    problems = [
        problem for index, packaging in enumerate(config.packaging) for problem in _problems_of(packaging, index, specs)
    ]
    if config.signing and config.signing.key_file:
        try:
            read_signing_key(config.signing.key_file, f"signing.key_file = {config.signing.key_file}")
        except InputError as error:
            problems += error.problems
    if reason := _not_writable(config.output_dir.absolute()):
        where = f"output_dir = {config.output_dir}"
        problems.append(Problem(where, f"cannot be written to ({reason})", "choose a folder that you may write to"))
    if problems:
        raise InputError(problems)
    for index, metric in enumerate(config.metrics):
        if metric.user_config and metric.user_config.function:
            load_function(metric.user_config.function, f"metrics[{index}].user_config.function")


def _problems_of(packaging: Packaging, index: int, specs: Sequence[str]) -> Sequence[Problem]:
    where = f"packaging[{index}]"
    try:
        with asking(packaging, "problems", index):
            found = [Problem(f"{where}.{item.where}", item.what, item.remedy) for item in packaging.problems()]
        with asking(packaging, "accelerators", index):
            unknown = [spec for spec in packaging.accelerators() if spec not in specs]
        remedy = f"name one of {', '.join(specs)}"
        return [*found, *(Problem(where, f"names the accelerator {spec!r}, which is not there", remedy) for spec in unknown)]
    except InputError as error:
        return error.problems


def _check_dimensions(config: PackhouseConfig, candidates: Sequence[Candidate]) -> None:
    known = {size for candidate in candidates for value in candidate.inputs for size in value.shape if isinstance(size, str)}
    problems = [
        Problem(
            f"accelerators[{index}].dimensions.{name}",
            "no candidate has a dynamic dimension of this name in an input",
            f"use {' or '.join(sorted(known))}"
            if known
            else "leave the setting out; all dimensions are fixed, or have no name",
        )
        for index, accelerator in enumerate(config.accelerators)
        for name in accelerator.dimensions.keys() - known
    ]
    if problems:
        raise InputError(problems)


def _not_writable(folder: Path) -> str | None:
    """Return why nothing can be written to a folder that exists or is to be made, or None; leaves no trace."""
    try:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        return error.strerror
    return None


def _baseline(config: PackhouseConfig, candidates: Sequence[Candidate]) -> str | None:
    if config.baseline is None:
        return None
    for candidate in candidates:
        if config.baseline in (candidate.name, *candidate.same_as):
            return candidate.digest
    names = ", ".join(candidate.name for candidate in candidates)
    raise InputError.at("baseline", f"{config.baseline!r} is no candidate", f"use one of {names}")


def _artifact_of(dataset: Dataset) -> Artifact:
    with tempfile.TemporaryDirectory(prefix="packhouse-") as folder:
        path = Path(folder, "data.npz")
        dataset.save(path)
        return measure(path)
