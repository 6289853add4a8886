"""The files that lie beside a packaged model: its settings, history, metrics, place in the ranking, and golden samples."""

from typing import Any

from packhouse.artifacts import ArtifactStore
from packhouse.packaging.contents import Content
from packhouse.packaging.golden import GOLDEN_NAME, expected_outputs, golden_file, golden_inputs
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.olive_files import configurations, inference_config, metrics_file
from packhouse.ranking import Ranked

SETTINGS_NAME = "inference_config.json"


def candidate_files(job: PackagingJob, ranked: Ranked, info: dict[str, Any], store: ArtifactStore) -> dict[str, Content]:
    """Return the files by name; `info` is what ``model_info.json`` says."""
    candidate, evaluation = job.candidate_on(ranked.candidate, ranked.accelerator), job.evaluation(ranked)
    found = {
        SETTINGS_NAME: Content.of_json(inference_config(job, ranked)),
        "configurations.json": Content.of_json(configurations(candidate)),
        "metrics.json": Content.of_json(metrics_file(job, ranked)),
        "model_info.json": Content.of_json(info),
    }
    if evaluation.sample_outputs:
        inputs = golden_inputs(job, candidate, evaluation.sample_count, store)
        found[GOLDEN_NAME] = golden_file(inputs, expected_outputs(evaluation, store))
    return found
