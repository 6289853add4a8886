"""Connect: what a packaging type needs of a Prefect block, found by the block's name where the task runs."""

from typing import Any, Protocol, cast

from prefect.blocks.core import Block

from blocks.register import block_types
from packhouse.errors import RegistrationFailed


class Connecting(Protocol):
    """A block that gives a client or connection."""

    def get_client(self) -> Any:
        """Return the client."""
        ...


def connect(name: str) -> Any:
    """Return the client of the block ``<type>/<name>``. Raises RegistrationFailed where there is none."""
    block_types()  # Prefect can only load blocks whose classes were imported
    try:
        block = Block.load(name, _sync=True)  # type: ignore[call-arg]
    except ValueError as error:
        raise RegistrationFailed(
            f"there is no block {name!r} on this Prefect server; write <type>/<name>, and make it in the UI or with its save()"
        ) from error
    return cast(Connecting, block).get_client()
