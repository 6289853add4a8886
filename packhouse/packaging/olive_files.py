"""The JSON files that describe packaged candidates, in the shapes that Olive writes and its users read."""

from typing import Any

from packhouse.candidates import Candidate
from packhouse.packaging.job import PackagingJob
from packhouse.ranking import Ranked

OLIVE_SESSION_OPTIONS = (
    "execution_mode",
    "graph_optimization_level",
    "extra_session_config",
    "inter_op_num_threads",
    "intra_op_num_threads",
)


def inference_config(job: PackagingJob, ranked: Ranked) -> dict[str, Any]:
    """Return ``inference_config.json``: execution provider with its options, and session options."""
    provider, provider_options, session_options = _settings(job, ranked)
    return {"execution_provider": [[provider, provider_options]], "session_options": session_options}


def configurations(candidate: Candidate) -> dict[str, Any]:
    """Return ``configurations.json``: what was done to the model since the input model, in order."""
    return candidate.history or {candidate.name: None}


def metrics_of(job: PackagingJob, digest: str, accelerator: str) -> dict[str, dict[str, Any]]:
    """Return a candidate's metrics: value, priority, direction; without those that too few samples support."""
    measured = job.evaluation_of(digest, accelerator).metrics
    values = {name: metric.value for name, metric in measured.items() if metric.is_supported}
    return {
        metric.name: {
            "value": values[metric.name],
            "priority": metric.priority,
            "higher_is_better": metric.higher_is_better,
        }
        for metric in job.metrics
        if metric.name in values
    }


def metrics_file(job: PackagingJob, ranked: Ranked) -> dict[str, Any]:
    """Return ``metrics.json``: the baseline's metrics on the same accelerator, and the candidate's."""
    baseline = metrics_of(job, job.baseline, ranked.accelerator) if job.baseline else None
    return {
        "input_model_metrics": baseline or None,
        "candidate_model_metrics": metrics_of(job, ranked.candidate, ranked.accelerator),
    }


def model_info(job: PackagingJob, ranked: Ranked, model_path: str) -> dict[str, Any]:
    """Return ``model_info.json``, which is also the entry in ``models_rank.json``; `model_path` is as seen from there."""
    provider, provider_options, session_options = _settings(job, ranked)
    return {
        "rank": ranked.rank,
        "model_config": {
            "type": "ONNXModel",
            "config": {
                "model_path": model_path,
                "onnx_file_name": None,
                "inference_settings": {
                    "execution_provider": [provider],
                    "provider_options": [provider_options],
                    "io_bind": job.io_binding and ranked.accelerator in job.tournaments,
                    "session_options": session_options,
                },
                "use_ort_extensions": False,
                "external_initializers_file_name": None,
                "constant_inputs_file_name": None,
                "model_attributes": None,
            },
        },
        "metrics": metrics_of(job, ranked.candidate, ranked.accelerator),
    }


def _settings(job: PackagingJob, ranked: Ranked) -> tuple[str, dict[str, str], dict[str, Any]]:
    settings = job.accelerator(ranked.accelerator).session_for(job.candidate(ranked.candidate).settings)
    options = settings.session_options.model_dump()
    return (
        settings.execution_provider,
        settings.provider_options,
        {name: options[name] for name in OLIVE_SESSION_OPTIONS},
    )
