"""Grade the candidates on every accelerator, then package the winners once per configured type."""

import asyncio
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.evaluate_accelerator import evaluate_accelerator
from packhouse.config import PackhouseConfig
from tasks.package import package_all
from tasks.provenance import publishing_of
from tasks.publish import publish_release
from tasks.rank import rank_candidates
from tasks.receive import receive_candidates


@flow(name="package-models", persist_result=True, result_serializer="json")
async def package_models(config: PackhouseConfig) -> State[Any]:
    """Grade every candidate on every accelerator, rank them, and make one package per configured type.

    The result is a `Release`. The flow run fails, with a sentence for each cause, where a package could not be made or
    nothing could be ranked; what could be made is published all the same.
    """
    plan = receive_candidates(config).sha256
    graded = await asyncio.gather(*(evaluate_accelerator(plan, accelerator.spec) for accelerator in config.accelerators))
    job = rank_candidates(plan, graded)
    publishing = publishing_of(config)
    packed = await package_all(job, config.packaging if job.overall.ranked else (), publishing)
    release = publish_release(job, packed, publishing)
    state = Completed if release.is_complete else Failed
    return state(message=release.verdict, data=release)
