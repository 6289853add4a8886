"""Run tasks, one by one or once per item on the flow's task runner, and never trust a cached result whose files are gone."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.results import ResultRecord  # type: ignore[attr-defined]
from prefect.transactions import CommitMode, transaction

from packhouse.errors import ArtifactError


@dataclass(frozen=True)
class Outcome:
    """What a task gave: its result, or the exception that it is expected to raise; and whether it did not have to run."""

    value: Any
    is_cached: bool


async def fan_out(
    task: Task[..., Any],
    calls: Sequence[tuple[Any, ...]],
    expected: type[Exception],
    is_usable: Callable[[Any], bool],
) -> list[Outcome]:
    """Submit `task` with the arguments of each call, wait for all, and return their outcomes in order.

    A task whose result came from the cache, and is not usable, because the files that it speaks of are gone or damaged, is
    run again. An exception that is not an `expected` one is raised, after all are done.

    Raises:
        ArtifactError: a result could not be written to the result storage, which Prefect itself only logs.
    """
    outcomes = await _outcomes([task.submit(*call) for call in calls], expected)
    stale = [index for index, outcome in enumerate(outcomes) if outcome.is_cached and not is_usable(outcome.value)]
    anew = task.with_options(refresh_cache=True)
    repeated = await _outcomes([anew.submit(*calls[index]) for index in stale], expected)
    for index, outcome in zip(stale, repeated, strict=True):
        outcomes[index] = outcome
    return outcomes


def result_of(task: Task[..., Any], call: tuple[Any, ...], is_usable: Callable[[Any], bool] = lambda _: True) -> Any:
    """Run `task` here and return its result, as `fan_out` does; what it raises is raised. For tasks below a task."""
    state = _state_of(task, call)
    if state.name == "Cached" and not is_usable(state.result()):
        state = _state_of(task.with_options(refresh_cache=True), call)
    result = state.result()
    if task.persist_result:
        _require_persisted(state)
    return result


def _state_of(task: Task[..., Any], call: tuple[Any, ...]) -> State[Any]:
    # Without a transaction of its own, the result of an inner task is only written when the outer one ends.
    with transaction(commit_mode=CommitMode.EAGER):
        return cast(State[Any], task(*call, return_state=True))


async def _outcomes(futures: Sequence[PrefectFuture[Any]], expected: type[Exception]) -> list[Outcome]:
    def wait() -> None:
        for future in futures:
            future.wait()

    await asyncio.to_thread(wait)  # the flow's event loop stays free
    outcomes = []
    for future in futures:
        value = await future.state.aresult(raise_on_failure=False)
        if isinstance(value, BaseException) and not isinstance(value, expected):
            raise value
        _require_persisted(future.state)
        outcomes.append(Outcome(value, is_cached=future.state.name == "Cached"))
    return outcomes


def _require_persisted(state: State[Any]) -> None:
    if state.is_completed() and isinstance(state.data, ResultRecord) and not state.data.is_persisted:
        raise ArtifactError("a task's result could not be written to the result storage; is the disk full, or read-only?")
