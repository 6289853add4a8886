"""Wait for submitted tasks without holding up the flow's event loop."""

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.results import ResultRecord

from packhouse.errors import ArtifactError


async def outcomes_of(futures: Sequence[PrefectFuture[Any]], expected: type[Exception]) -> list[Any]:
    """Wait for all futures and return, in order, their results, or the exception where it is an `expected` one.

    Any other exception is raised, after all are done.

    Raises:
        ArtifactError: a result could not be written to the result storage, which Prefect itself only logs.
    """

    def wait() -> None:
        for future in futures:
            future.wait()

    await asyncio.to_thread(wait)
    for future in futures:
        _require_persisted(future.state)
    outcomes = [await future.state.aresult(raise_on_failure=False) for future in futures]
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, expected):
            raise outcome
    return outcomes


def _require_persisted(state: State[Any]) -> None:
    if state.is_completed() and isinstance(state.data, ResultRecord) and not state.data.is_persisted:
        raise ArtifactError("a task's result could not be written to the result storage; is the disk full, or read-only?")
