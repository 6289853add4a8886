"""Own a device in the Prefect API too: a global concurrency limit, by which machines that share a device wait for each other.

The kernel's lock (`packhouse.evaluation.device_lock`) keeps runs on one machine apart, and dies with its holder. The limit is
seen in the Prefect UI, and reaches beyond containers and machines. A temporary API has none: slots of a run that was killed
would be taken for ever in its database.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from packhouse.accelerators import Accelerator
from packhouse.errors import InputError, Problem

LEASE_S = 60.0  # the slot of a holder that was killed is free again after so long

has_limits: ContextVar[bool] = ContextVar("has_limits", default=True)


def require_limits(accelerators: Sequence[Accelerator]) -> None:
    """See to it that every accelerator's limit is there: one that is named has to be, all others are made.

    Raises:
        InputError: a limit is missing, or does not let exactly one at a time through.
    """
    problems = []
    for index, accelerator in enumerate(accelerators):
        where = f"accelerators[{index}].concurrency_limit"
        if accelerator.concurrency_limit and not has_limits.get():
            what = "needs a Prefect server that lasts, and there is none"
            remedy = "set PREFECT_API_URL, or run 'prefect server start', or leave the setting out"
            problems.append(Problem(f"{where} = {accelerator.concurrency_limit}", what, remedy))
        for name in limit_names(accelerator):
            limit = _read(name) or (None if accelerator.concurrency_limit else _create(name))
            if limit is None:
                remedy = f"prefect gcl create {name} --limit 1, or leave the setting out"
                problems.append(Problem(f"{where} = {name}", "the Prefect API has no such limit", remedy))
            elif not limit.active or limit.limit != 1:
                state = f"lets {limit.limit} through at a time" if limit.active else "is not active"
                problems.append(Problem(f"{where} = {name}", state, f"prefect gcl update {name} --limit 1 --enable"))
    if problems:
        raise InputError(problems)


@contextmanager
def device_limits(accelerator: Accelerator) -> Iterator[None]:
    """Hold the limits of an accelerator, for as long as it takes to get them; there is no going on without them.

    Raises:
        ConcurrencySlotAcquisitionError: a limit has gone.
    """
    with ExitStack() as held:
        if names := limit_names(accelerator):
            held.enter_context(
                concurrency(
                    names,
                    occupy=1,
                    lease_duration=LEASE_S,
                    strict=True,
                    raise_on_lease_renewal_failure=True,
                )
            )
        yield


def limit_names(accelerator: Accelerator) -> list[str]:
    """Return the names of an accelerator's limits: the one that is configured, or one for each device of this host.

    There are none where the Prefect API has none.
    """
    if not has_limits.get():
        return []
    if accelerator.concurrency_limit:
        return [accelerator.concurrency_limit]
    host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")
    return [f"packhouse-{host}-{device}" for device in accelerator.devices()]


def _read(name: str) -> GlobalConcurrencyLimitResponse | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            return None


def _create(name: str) -> GlobalConcurrencyLimitResponse | None:
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):  # by another run just now
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1, active=True))
        return client.read_global_concurrency_limit_by_name(name)
