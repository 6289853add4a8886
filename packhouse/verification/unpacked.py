"""What an unpacked package says of itself: its manifest, checked against its files, and its models with their settings.

It is not trusted: JSON has to mean the same to every program, and a model is inspected before a runtime sees it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from packhouse.accelerators import PLUGIN_FOLDER, SessionOptions
from packhouse.candidates.model_file import inspect
from packhouse.errors import InputError, VerificationFailed
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest, ManifestFile, PackagedCandidate
from packhouse.records import Record

MAX_TEXT_BYTES = 64 << 20
# Session configuration entries that make onnxruntime read or write files which they name, or libraries.
NAMES_A_FILE = re.compile(r"file|path|folder|dir|librar|ep\.context", re.IGNORECASE)
OF_PLUGIN = re.compile(re.escape(PLUGIN_FOLDER) + r"/[^/\\]+")

R = TypeVar("R", bound=Record)


class InferenceConfig(Record):
    """Content of ``inference_config.json``: execution providers with their options, the first to be used, and the session's."""

    execution_provider: tuple[tuple[str, dict[str, str]], ...] = Field(min_length=1)
    session_options: SessionOptions


def read_manifest(root: Path, files: Mapping[str, ManifestFile]) -> Manifest:
    """Return the manifest of an unpacked package, of whose `files` size and digest are known.

    Raises:
        VerificationFailed: there is none, or the files are not exactly those that it lists.
    """
    if MANIFEST_NAME not in files:
        raise VerificationFailed(f"{MANIFEST_NAME} is missing")
    manifest = _parsed(Manifest, root, MANIFEST_NAME)
    if differing := sorted((files.keys() - {MANIFEST_NAME}) ^ manifest.files.keys()):
        state = "is not in the manifest" if differing[0] in files else "is missing"
        raise VerificationFailed(f"{differing[0]} {state}")
    for name, wanted in manifest.files.items():
        if files[name].size_bytes != wanted.size_bytes:
            raise VerificationFailed(f"{name} has {files[name].size_bytes} bytes and should have {wanted.size_bytes}")
        if files[name].sha256 != wanted.sha256:
            raise VerificationFailed(f"{name} is not what it was when it was packaged: its SHA-256 differs")
    for candidate in manifest.candidates:
        if candidate.model_path not in manifest.files:
            raise VerificationFailed(f"the model {candidate.model_path!r} is missing")
        if candidate.settings_path not in manifest.files:
            raise VerificationFailed(f"{candidate.settings_path} is missing")
        if candidate.golden_samples and candidate.golden_samples.path not in manifest.files:
            raise VerificationFailed(f"the golden samples {candidate.golden_samples.path!r} are missing")
    return manifest


def require_safe_model(root: Path, packaged: PackagedCandidate) -> None:
    """Refuse a model that no runtime should see. Raises VerificationFailed."""
    try:
        inspect(root / packaged.model_path)
    except InputError as error:
        found = "; ".join(f"{problem.where}: {problem.what}" for problem in error.problems).replace(f"{root}/", "")
        raise VerificationFailed(f"{packaged.model_path} is not safe to load, or broken: {found}") from error


def settings_of(root: Path, packaged: PackagedCandidate) -> InferenceConfig:
    """Return the settings of a packaged model. Raises VerificationFailed."""
    return _parsed(InferenceConfig, root, packaged.settings_path)


def require_harmless(settings: InferenceConfig, name: str) -> None:
    """Refuse settings, read from the file `name`, that name files; nobody vouches for them. Raises VerificationFailed."""
    entries = settings.session_options.extra_session_config or {}
    options = {key: value for _, options in settings.execution_provider for key, value in options.items()}
    if bad := next((key for key, value in entries.items() if NAMES_A_FILE.search(key) or set(value) & set("/\\")), None):
        raise VerificationFailed(f"{name} has the session configuration entry {bad!r}, which can name a file to read or write")
    if bad := next((key for key, value in options.items() if set(value) & set("/\\") and not OF_PLUGIN.fullmatch(value)), None):
        raise VerificationFailed(f"{name} has the provider option {bad!r}, which names a file: {options[bad]!r}")


def _parsed(kind: type[R], root: Path, name: str) -> R:
    """Return the record in a JSON file that can be read in one way only."""
    path = root / name
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise VerificationFailed(f"{name} is larger than {MAX_TEXT_BYTES} bytes")
    content = path.read_bytes()
    try:
        record = kind.model_validate_json(content)
        json.loads(content, object_pairs_hook=_without_duplicates)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
        raise VerificationFailed(f"{name} cannot be read: {what}") from error
    except ValueError as error:
        raise VerificationFailed(f"{name} cannot be read: {error}") from error
    return record


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for name, value in pairs:
        if name in known:
            raise ValueError(f"it has the key {name!r} twice, and programs differ in which they take")
        known[name] = value
    return known
