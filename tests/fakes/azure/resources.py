"""What all resources of the workspace share: a call to an operation, a resource's outer form, and lists."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.azure.messages import Response

PROVIDER = "Microsoft.MachineLearningServices"


@dataclass(frozen=True)
class Call:
    """A request that kept to the contract: which operation, on which names, with which content."""

    operation: str
    names: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    path: str


Handler = Callable[[Call], Response]


def resource(path: str, properties: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Return a resource as the service writes it: `path` is its id."""
    segments = path.split(f"/{PROVIDER}/")[1].split("/")
    now = dt.datetime.now(dt.UTC).isoformat()
    return {
        "id": path,
        "name": segments[-1],
        "type": "/".join([PROVIDER, *segments[::2]]),
        "systemData": {"createdAt": now, "createdBy": "packhouse tests", "createdByType": "Application", "lastModifiedAt": now},
        **others,
        "properties": dict(properties),
    }


def listed(items: Iterable[dict[str, Any]]) -> Response:
    """Return a list in one page."""
    return Response(200, {"value": list(items)})
