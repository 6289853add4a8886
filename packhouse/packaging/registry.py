"""The installed packaging types: those of third parties are found exactly as the built-in ones are.

A type that cannot be used stops nobody who does not ask for it: it is left out, with the reason and whose it is.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce
from importlib import metadata
from itertools import groupby
from operator import or_
from typing import Annotated, Any, get_args

from pydantic import Field
from pydantic.errors import PydanticUserError

from packhouse.errors import InputError
from packhouse.packaging import Packaging, summary
from packhouse.records import AnyOfSchema

ENTRY_POINTS = "packhouse.packagers"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnusableType:
    """A registered type that cannot be used: whose it is, why, and what to do."""

    distribution: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class InstalledTypes:
    """The registered types by name: those that can be used, with the distribution of each, and those that cannot."""

    usable: Mapping[str, type[Packaging]]
    distributions: Mapping[str, str]
    unusable: Mapping[str, UnusableType]

    @property
    def names(self) -> tuple[str, ...]:
        """All registered names."""
        return (*self.usable, *self.unusable)


class _NotUsableError(Exception):
    """What an entry point gives is no packaging type; the message is the reason."""


@cache
def installed_types() -> InstalledTypes:
    """Look up the registered types, and warn of every one that cannot be used."""
    usable: dict[str, type[Packaging]] = {}
    distributions: dict[str, str] = {}
    unusable: dict[str, UnusableType] = {}
    points = sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name.lower())
    for _, group in groupby(points, key=lambda point: point.name.lower()):
        same_name = list(group)
        name, loaded = same_name[0].name, _loaded(same_name)
        if isinstance(loaded, UnusableType):
            unusable[name] = loaded
            logger.warning("the packaging type %r of %s is left out: %s", name, loaded.distribution, loaded.reason)
        else:
            usable[name], distributions[name] = loaded, _distribution(same_name[0])
    return InstalledTypes(usable, distributions, unusable)


def packaging_types() -> Mapping[str, type[Packaging]]:
    """Return the packaging types that can be used, by name."""
    return installed_types().usable


def distribution_of_type(name: str) -> str | None:
    """Return name and version of the distribution that a type is of; None where it is not registered."""
    return installed_types().distributions.get(name)


@contextmanager
def asking(packaging: Packaging, method: str, index: int) -> Iterator[None]:
    """Turn whatever a method of ``packaging[index]`` raises before a run is started into an InputError that names the type."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a type may raise anything
        logger.debug("%s() of the packaging type %r", method, packaging.type, exc_info=True)
        what = f"{method}() of the packaging type {packaging.type} fails ({summary(error)})"
        remedy = f"mend or uninstall {distribution_of_type(packaging.type) or 'it'}"
        raise InputError.at(f"packaging[{index}]", what, remedy) from error


def with_type_as_registered(value: Any) -> Any:
    """Return a packaging configuration with its ``type``, written in any case, as it is registered."""
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        return value
    spelled = {name.lower(): name for name in installed_types().names}
    return {**value, "type": spelled.get(value["type"].lower(), value["type"])}


def any_packaging() -> Any:
    """Return the union of all usable types, told apart by ``type``, for use as the type of a field."""
    types = tuple(packaging_types().values())
    union: Any = reduce(or_, types)
    return Annotated[union, Field(discriminator="type"), AnyOfSchema()] if len(types) > 1 else union


def _loaded(points: Sequence[metadata.EntryPoint]) -> type[Packaging] | UnusableType:
    """Return the type that all these entry points, but for case of one name, stand for."""
    owners = list(dict.fromkeys(_distribution(point) for point in points))
    if len(owners) > 1:
        several = " and ".join(owners)
        return UnusableType(several, f"{several} register it", "uninstall one of them")
    try:
        loaded = points[0].load()
        _require_type(loaded, points[0].name)
    except _NotUsableError as error:
        reason = f"{points[0].value} {error}"
    except Exception as error:  # a module may raise anything while it is imported
        logger.debug("the packaging type %r of %s", points[0].name, owners[0], exc_info=True)
        reason = f"{points[0].value} cannot be imported ({summary(error)})"
    else:
        return loaded  # type: ignore[no-any-return]
    return UnusableType(owners[0], reason, f"mend or uninstall {owners[0]}")


def _distribution(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def _require_type(loaded: Any, name: str) -> None:
    """Refuse what no configuration could use. Raises _NotUsableError."""
    if not (isinstance(loaded, type) and issubclass(loaded, Packaging)):
        raise _NotUsableError("is no class derived from packhouse.packaging.Packaging")
    if inspect.isabstract(loaded):
        raise _NotUsableError(f"does not define {' and '.join(sorted(loaded.__abstractmethods__))}")
    field = loaded.model_fields["type"]
    if get_args(field.annotation) != (name,) or field.default != name:
        raise _NotUsableError(f'does not declare type: Literal["{name}"] = "{name}"')
    try:
        loaded.model_json_schema()
    except PydanticUserError as error:
        raise _NotUsableError(f"has settings that are not plain data ({str(error).partition(chr(10))[0]})") from error
