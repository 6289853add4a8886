"""What is installed in an image: the runtime that the model was measured with, the server's libraries, and the user's own."""

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from packhouse.errors import PackagingFailed
from packhouse.packaging import runtime_packages
from packhouse.packaging.docker.base_images import BASE_IMAGES
from packhouse.packaging.job import PackagingJob
from packhouse.pins import Pin, distribution_of

SERVER_LIBRARIES = ("starlette", "uvicorn")
COMMENT = re.compile(r"(^|\s)#.*$")
REMEDY = "write one name==version on each line"


def read_requirements(path: Path) -> tuple[Pin, ...]:
    """Return the pins in a requirements file.

    Raises:
        ValueError: it cannot be read, or a line of it is not pinned to one version; options, addresses and paths are not taken.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{path} cannot be read ({reason}); name a requirements.txt") from error
    pins: dict[str, Pin] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not (stated := COMMENT.sub("", line).strip()):
            continue
        pin = _pin(stated, f"line {number} of {path.name}")
        if pin.name in pins:
            raise ValueError(f"line {number} of {path.name} has {pin.name} again; keep one of them")
        pins[pin.name] = pin
    distributions = [pin.name for pin in pins.values() if pin.is_distribution]
    if len(distributions) > 1:
        raise ValueError(f"{' and '.join(distributions)} in {path.name} overwrite each other's files; keep one, or none")
    return tuple(pins.values())


def _pin(line: str, where: str) -> Pin:
    if "--hash" in line or line.endswith("\\"):
        raise ValueError(f"{where} has hashes; leave them out, the package has those of all that is installed")
    if line.startswith("-"):
        raise ValueError(f"{where} is an option of pip ({line.split(maxsplit=1)[0]}), which is not taken; {REMEDY}")
    try:
        Requirement(line)
        return Pin.parse(line)
    except InvalidRequirement as error:
        raise ValueError(f"{where} is no requirement ({line!r}); {REMEDY}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def of_best(job: PackagingJob, own: Sequence[Pin], extras: Sequence[str]) -> tuple[str, ...]:
    """Return the pinned requirements of an image for the best candidate; the runtime comes with these extras.

    Raises:
        PackagingFailed: the user's own have another version of the runtime than the candidate was measured with.
    """
    runtime = job.runtime_pins(job.best, extras)
    measured = distribution_of(runtime)
    for pin in own:
        same = next((other for other in runtime if other.name == pin.name), None)
        if (same and same.version != pin.version) or (pin.is_distribution and not same):
            raise PackagingFailed(
                f"requirements_file has {pin.name}=={pin.version}, and the model was measured with "
                f"{measured.name}=={measured.version if same in (None, measured) else f'{measured.version} and {same}'}; "
                "take that line out"
            )
    chosen = {pin.name for pin in (*runtime, *own)}
    server = (pin for pin in _server() if pin.name not in chosen)
    others = (pin for pin in own if pin.name not in {each.name for each in runtime})
    return tuple(str(pin) for pin in _in_order(runtime, server, others))


def depends_on(own: Sequence[Pin]) -> dict[str, Any]:
    """Return, as JSON, what the packages of an image depend on in this environment, whichever runtime is among them."""
    extras = sorted({extra for base in BASE_IMAGES.values() for extra in base.extras})
    return runtime_packages.depends_on([str(pin) for pin in (*_server(), *own)], extras)


def _server() -> Iterator[Pin]:
    return (Pin(name, metadata.version(name)) for name in SERVER_LIBRARIES)


def _in_order(*groups: Iterable[Pin]) -> list[Pin]:
    return [pin for group in groups for pin in group]
