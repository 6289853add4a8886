"""A file of a package that is not unpacked yet, whatever the package is kept in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """Name and size of a file as the package says them, the bytes that it takes there, and how to get its content.

    `read` gives exactly `size_bytes`, or raises VerificationFailed.
    """

    name: str
    size_bytes: int
    packed_bytes: int
    read: Callable[[], Iterator[bytes]]
