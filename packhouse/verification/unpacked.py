"""What an unpacked package says of itself: its manifest, checked against its files, and the settings of its models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from packhouse.accelerators import SessionOptions
from packhouse.errors import VerificationFailed
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest, ManifestFile, PackagedCandidate
from packhouse.records import Record

MAX_TEXT_BYTES = 64 << 20

R = TypeVar("R", bound=Record)


class InferenceConfig(Record):
    """Content of ``inference_config.json``: execution providers with their options, the first to be used, and the session's."""

    execution_provider: tuple[tuple[str, dict[str, str]], ...] = Field(min_length=1)
    session_options: SessionOptions


def read_manifest(folder: Path, files: Mapping[str, ManifestFile]) -> Manifest:
    """Return the manifest of an unpacked package, of whose `files` size and digest are known.

    Raises:
        VerificationFailed: there is none, or the files are not exactly those that it lists.
    """
    if MANIFEST_NAME not in files:
        raise VerificationFailed(f"{MANIFEST_NAME} is missing")
    manifest = _parsed(Manifest, folder, MANIFEST_NAME)
    if differing := sorted((files.keys() - {MANIFEST_NAME}) ^ manifest.files.keys()):
        state = "is not in the manifest" if differing[0] in files else "is missing"
        raise VerificationFailed(f"{differing[0]} {state}")
    for name, expected in manifest.files.items():
        if files[name].size_bytes != expected.size_bytes:
            raise VerificationFailed(f"{name} has {files[name].size_bytes} bytes and should have {expected.size_bytes}")
        if files[name].sha256 != expected.sha256:
            raise VerificationFailed(f"{name} is not what it was when it was packaged: its SHA-256 differs")
    for candidate in manifest.candidates:
        if candidate.model_path not in manifest.files:
            raise VerificationFailed(f"the model {candidate.model_path!r} is missing")
        if candidate.settings_path not in manifest.files:
            raise VerificationFailed(f"{candidate.settings_path} is missing")
    return manifest


def settings_of(folder: Path, packaged: PackagedCandidate) -> InferenceConfig:
    """Return the settings of a packaged model. Raises VerificationFailed."""
    return _parsed(InferenceConfig, folder, packaged.settings_path)


def _parsed(kind: type[R], folder: Path, name: str) -> R:
    """Return the record in a JSON file."""
    path = folder / name
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise VerificationFailed(f"{name} is larger than {MAX_TEXT_BYTES} bytes")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
        raise VerificationFailed(f"{name} cannot be read: {what}") from error
