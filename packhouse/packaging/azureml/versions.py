"""Which version of an asset a content gets. Versions never change in Azure ML: other content under one of them is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from packhouse.errors import RegistrationFailed

AUTO = "auto"
DIGEST_TAG, FLOW_RUN_TAG = "packhouse.digest", "packhouse.flow_run"
OnConflict = Literal["error", "reuse", "next"]


@dataclass(frozen=True)
class AssetVersion:
    """A registered version of an asset, and the digest of its content where Packhouse registered it."""

    version: str
    id: str
    digest: str | None

    @classmethod
    def of(cls, told: dict[str, Any]) -> "AssetVersion":
        """Read what the workspace tells of a version."""
        return cls(told["version"], told["id"], told["tags"].get(DIGEST_TAG))


def choose_version(
    name: str, digest: str, registered: Sequence[AssetVersion], wanted: str, on_conflict: OnConflict
) -> AssetVersion | str:
    """Return the version that has the content of `digest` already, or the one to make.

    Laws: a version whose content is another is never returned; chosen again after it was made, a version is found.

    Raises:
        RegistrationFailed: the version that is wanted has other content, and no other one may be taken.
    """
    taken = None if wanted == AUTO else next((item for item in registered if item.version == wanted), None)
    if taken and taken.digest == digest:
        return taken
    if wanted != AUTO and not taken and on_conflict != "reuse":
        return wanted
    if taken and on_conflict == "error":
        raise _other_content(name, taken, digest, "raise the version, set it to auto, or set on_conflict to next")
    if same := next((item for item in registered if item.digest == digest), None):
        return same
    if taken and on_conflict == "reuse":
        raise _other_content(name, taken, digest, "no version has this content to reuse; raise the version, or set it to auto")
    return wanted if wanted != AUTO and not taken else _next_version(registered)


def _next_version(registered: Sequence[AssetVersion]) -> str:
    return str(1 + max((int(item.version) for item in registered if item.version.isdecimal()), default=0))


def _other_content(name: str, taken: AssetVersion, digest: str, remedy: str) -> RegistrationFailed:
    there = f"the content {taken.digest}" if taken.digest else "content that was not registered by Packhouse"
    return RegistrationFailed(
        f"version {taken.version} of {name} has {there}, and here it is {digest}; versions never change in Azure ML → {remedy}"
    )
