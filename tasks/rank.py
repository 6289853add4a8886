"""Rank: order the candidates, and show the order in the Prefect UI."""

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from packhouse.decision import Grading, decide
from packhouse.evaluation.evidence import Evidence
from packhouse.packaging.job import PackagingJob
from packhouse.report.tables import decisions_markdown, ranking_rows
from tasks.receive import read_plan
from tasks.storage import artifact_store


@task(task_run_name="rank", persist_result=True, result_serializer="json")
def rank_candidates(plan: str, gradings: list[Grading]) -> PackagingJob:
    """Rank per accelerator and across all, and leave a table and the reasons as artifacts of the run."""
    planned = read_plan(plan)
    job = decide(planned, gradings, Evidence(artifact_store(), planned.data))
    for spec, ranking in job.by_accelerator.items():
        create_table_artifact(key=f"ranking-{spec}", table=ranking_rows(job, ranking), description=f"Ranking on {spec}")
    create_table_artifact(key="ranking", table=ranking_rows(job, job.overall), description="Ranking across all accelerators")
    create_markdown_artifact(
        key="decisions", markdown=decisions_markdown(job), description="Why the candidates rank as they do"
    )
    return job
