"""``sbom.cdx.json``: the bill of materials of a package, in CycloneDX 1.6, with a model card for every packaged candidate.

A pure function of the job and of the package's files: no time, no host, no run, so that equal packages stay equal. Version 1.6
is what most tools read, and has all that is said here. Format: https://cyclonedx.org/docs/1.6/json/
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import packhouse
from packhouse.candidates import Candidate, TensorInfo
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.metrics import Metric
from packhouse.packaging.contents import Contents
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.provenance.distributions import Distribution, purl, runtime_of, wheels_among
from packhouse.records import digest_of

ML_BOM_NAME = "sbom.cdx.json"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:packhouse:ml-bom")
DATA_REF = "data:evaluation"  # no file has a colon in its name

Json = dict[str, Any]


def ml_bom(name: str, job: PackagingJob, packaged: Sequence[PackagedCandidate], files: Contents) -> Json:
    """Return the bill of materials of the package `name`.

    `files` are those of the package, of which models and wheels are listed with their digests. The runtime that comes as wheels
    depends on all of these: what pip resolved says no more.
    """
    wheels = wheels_among(files)
    runtimes = {item.accelerator: runtime_of(job, item.accelerator) for item in packaged}
    libraries = sorted({*wheels, *(item for runtime in runtimes.values() for item in runtime)})
    models = [_model(job, item, files) for item in packaged]
    package = f"package:{name}"
    depends = {package: [item.model_path for item in packaged]}
    depends |= {item.model_path: [purl(library) for library in runtimes[item.accelerator]] for item in packaged}
    for library in {library for runtime in runtimes.values() for library in runtime} & wheels.keys():
        depends[purl(library)] = [purl(other) for other in wheels if other != library]
    bom: Json = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "packhouse", "version": packhouse.__version__}]},
            "component": {"type": "application", "bom-ref": package, "name": name},
        },
        "components": sorted(
            [*models, _data(job), *(_library(library, wheels, files) for library in libraries)],
            key=lambda component: (component["type"], component["bom-ref"]),
        ),
        "dependencies": [{"ref": ref, "dependsOn": sorted(others)} for ref, others in sorted(depends.items())],
    }
    return {**bom, "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest_of(bom))}"}


def _model(job: PackagingJob, item: PackagedCandidate, files: Contents) -> Json:
    """Return the component of a packaged candidate: its model with the files that go with it, and its model card."""
    candidate = job.candidate(item.digest)
    folder = PurePosixPath(item.model_path).parent
    beside = sorted(str(folder / name) for name in candidate.files if name != candidate.entry)
    properties = {
        "packhouse:accelerator": item.accelerator,
        "packhouse:candidate": candidate.digest,
        "packhouse:decided_by": item.decided_by,
        "packhouse:opset": str(candidate.opset),
        "packhouse:overall_rank": str(item.overall_rank),
        "packhouse:rank": str(item.rank),
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": item.model_path,
        "name": candidate.name,
        "version": candidate.digest,
        "hashes": _hashes(files[item.model_path].artifact.sha256),
        "modelCard": _model_card(job, item, candidate),
        "properties": _properties({**properties, **_units(job, item)}),
        **({"components": [_file(name, files) for name in beside]} if beside else {}),
    }


def _model_card(job: PackagingJob, item: PackagedCandidate, candidate: Candidate) -> Json:
    evaluation = job.evaluation_of(item.digest, item.accelerator)
    parameters = {
        # What the type `accuracy` measures is the quality of classifiers.
        **({"task": "classification"} if any(metric.type == "accuracy" for metric in job.metrics) else {}),
        "datasets": [{"ref": DATA_REF}],
        "inputs": [{"format": _tensor(value)} for value in candidate.inputs],
        "outputs": [{"format": _tensor(value)} for value in candidate.outputs],
    }
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {
            "performanceMetrics": [
                _performance(metric, evaluation.metrics[metric.name], item.accelerator)
                for metric in _supported(job, evaluation)
            ]
        },
        "considerations": {"technicalLimitations": _limitations(job, item, evaluation)},
    }


def _supported(job: PackagingJob, evaluation: Evaluation) -> list[Metric]:
    """Return the metrics that have a value, and one of enough samples."""
    values = evaluation.metrics
    return [metric for metric in job.metrics if metric.name in values and values[metric.name].is_supported]


def _performance(metric: Metric, measured: MetricValue, accelerator: str) -> Json:
    """Return a metric's value on an accelerator, with its 99 % interval where that is known."""
    found: Json = {"type": metric.name, "value": repr(measured.value), "slice": accelerator}
    if measured.interval:
        lower, upper = measured.interval
        found["confidenceInterval"] = {"lowerBound": repr(lower), "upperBound": repr(upper)}
    return found


def _units(job: PackagingJob, item: PackagedCandidate) -> dict[str, str]:
    """Return the units of the metrics, for which a model card has no place."""
    evaluation = job.evaluation_of(item.digest, item.accelerator)
    units = {metric.name: evaluation.metrics[metric.name].unit for metric in _supported(job, evaluation)}
    return {f"packhouse:unit:{name}": unit for name, unit in units.items() if unit}


def _limitations(job: PackagingJob, item: PackagedCandidate, evaluation: Evaluation) -> list[str]:
    machine = evaluation.fingerprint or job.fingerprint
    provider = job.accelerator(item.accelerator).execution_provider
    runtime, version = job.runtime_on(item.accelerator)
    measured = f"Measured with {runtime} {version} and {provider} on {machine.cpu_model} ({machine.machine}, {machine.system})"
    unsteady = (
        [] if evaluation.is_stable else ["The machine was disturbed while times were taken; they are not to be relied on."]
    )
    return [f"{measured}; times on other machines differ.", *unsteady]


def _data(job: PackagingJob) -> Json:
    dataset = {"type": "dataset", "description": "Samples that all candidates were evaluated on, as NumPy arrays (.npz)."}
    return {
        "type": "data",
        "bom-ref": DATA_REF,
        "name": "evaluation data",
        "hashes": _hashes(job.data.sha256),
        "data": [dataset],
    }


def _library(library: Distribution, wheels: Mapping[Distribution, str], files: Contents) -> Json:
    name, version = library
    found: Json = {"type": "library", "bom-ref": purl(library), "name": name, "version": version, "purl": purl(library)}
    if wheel := wheels.get(library):
        found |= {"hashes": _hashes(files[wheel].artifact.sha256), "properties": _properties({"packhouse:path": wheel})}
    return found


def _file(name: str, files: Contents) -> Json:
    return {"type": "file", "bom-ref": name, "name": name, "hashes": _hashes(files[name].artifact.sha256)}


def _hashes(sha256: str) -> list[Json]:
    return [{"alg": "SHA-256", "content": sha256}]


def _properties(values: Mapping[str, str]) -> list[Json]:
    return [{"name": name, "value": values[name]} for name in sorted(values)]


def _tensor(value: TensorInfo) -> str:
    """Return the format of an input or output, such as ``x: float32[batch, 2]``; a question mark is an unnamed dimension."""
    return f"{value.name}: {value.dtype}[{', '.join('?' if size is None else str(size) for size in value.shape)}]"
