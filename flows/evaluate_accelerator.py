"""Grade all candidates on one accelerator."""

from prefect import flow

from packhouse.evaluation.records import Evaluation
from tasks.evaluate import evaluate_all
from tasks.receive import read_plan


@flow(
    name="evaluate-accelerator",
    flow_run_name="evaluate on {accelerator}",
    persist_result=True,
    result_serializer="json",
)
async def evaluate_accelerator(plan: str, accelerator: str) -> list[Evaluation]:
    """Return one evaluation per candidate of the plan with the digest `plan`; those that failed say why."""
    return await evaluate_all(read_plan(plan).requests_on(accelerator))
