"""Grade all candidates on one accelerator."""

from prefect import flow

from packhouse.decision import Grading
from tasks.evaluate import evaluate_all
from tasks.receive import read_plan
from tasks.time import time_all
from tasks.workers import workers_kept


@flow(
    name="evaluate-accelerator",
    flow_run_name="evaluate on {accelerator}",
    persist_result=True,
    result_serializer="json",
)
async def evaluate_accelerator(plan: str, accelerator: str) -> Grading:
    """Return one evaluation per candidate of the plan with the digest `plan`; those that failed say why."""
    planned = read_plan(plan)
    with workers_kept(accelerator):
        evaluations = await evaluate_all(planned.requests_on(accelerator), are_timed_next=planned.is_timed)
        return await time_all(planned.timing_on(accelerator, evaluations), accelerator, evaluations)
