"""Receive: find, check and identify the candidates and the data, and take their bytes in."""

from prefect import get_run_logger, task

from packhouse.artifacts import Artifact
from packhouse.config import PackhouseConfig
from packhouse.plan import Plan, prepare
from tasks.device import require_limits
from tasks.provenance import require_signing_key
from tasks.storage import artifact_store


@task(task_run_name="receive", persist_result=True, result_serializer="json")
def receive_candidates(config: PackhouseConfig) -> Artifact:
    """Take candidates and data into the result storage; return the plan, which lies there too.

    Raises:
        InputError: something of it is not acceptable, or a device's concurrency limit or the key to sign with is not.
    """
    require_limits(config.accelerators)
    require_signing_key(config.signing)
    logger, store = get_run_logger(), artifact_store()
    store.remove_orphans()
    plan = prepare(config).receive(store)
    for candidate in plan.candidates:
        merged = f"; the same as {', '.join(candidate.same_as)}" if candidate.same_as else ""
        logger.info("received %s: %.1f MB, %s%s", candidate.name, candidate.size_bytes / 1e6, candidate.digest[:12], merged)
    return store.put_bytes(plan.model_dump_json().encode())


def read_plan(sha256: str) -> Plan:
    """Return the plan with a digest from the result storage."""
    return Plan.model_validate_json(artifact_store().path(sha256).read_bytes())
