"""Verify a package, a ZIP archive or a folder: every digest in its manifest, and that every model in it loads.

A package is not trusted before it is checked. It is looked at as a copy that the reader made; every model is inspected before
a runtime sees it; and of its settings only those get there that Packhouse itself has and that name no file.
"""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from packhouse.accelerators import PLUGIN_FOLDER, SessionOptions
from packhouse.candidates.model_file import inspect
from packhouse.errors import EvaluationFailed, InputError, VerificationFailed
from packhouse.evaluation.session_host import SessionHost
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest, ManifestFile, PackagedCandidate
from packhouse.records import Record
from packhouse.verification.reader import unpack

SETTINGS_NAME = "inference_config.json"
MAX_TEXT_BYTES = 64 << 20
# Session configuration entries that make onnxruntime read or write files which they name, or libraries.
NAMES_A_FILE = re.compile(r"file|path|folder|dir|librar|ep\.context", re.IGNORECASE)
OF_PLUGIN = re.compile(re.escape(PLUGIN_FOLDER) + r"/[^/\\]+")

R = TypeVar("R", bound=Record)


class VerifiedModel(Record):
    """A model of a package and what became of loading it."""

    model_path: str
    outcome: str


class VerifiedPackage(Record):
    """What was checked: how many files, and what became of each model."""

    files: int
    models: tuple[VerifiedModel, ...]


class InferenceConfig(Record):
    """Content of ``inference_config.json``: execution providers with their options, the first to be used, and the session's."""

    execution_provider: tuple[tuple[str, dict[str, str]], ...] = Field(min_length=1)
    session_options: SessionOptions


def verify_package(path: Path) -> VerifiedPackage:
    """Check the package at `path`.

    Raises:
        InputError: there is no ZIP archive or folder at `path`.
        VerificationFailed: its content is not what its manifest says, or a model does not load; the message names the file.
    """
    with tempfile.TemporaryDirectory(prefix="packhouse-verify-") as scratch:
        root = Path(scratch, "package")
        files = unpack(path, root)
        if MANIFEST_NAME not in files:
            raise VerificationFailed(f"{MANIFEST_NAME} is missing")
        manifest = _parsed(Manifest, root, MANIFEST_NAME)
        _compare({name: file for name, file in files.items() if name != MANIFEST_NAME}, manifest.files)
        models = [candidate.model_path for candidate in manifest.candidates]
        if missing := [model for model in models if model not in manifest.files]:
            raise VerificationFailed(f"the model {missing[0]!r} is missing")
        for model in models:
            _inspect(root, model)
        loaded = tuple(_load(candidate, root) for candidate in manifest.candidates)
        return VerifiedPackage(files=len(manifest.files), models=loaded)


def _compare(files: Mapping[str, ManifestFile], expected: Mapping[str, ManifestFile]) -> None:
    """Refuse files that are missing, too many, or other than the manifest says."""
    if differing := sorted(files.keys() ^ expected.keys()):
        state = "is not in the manifest" if differing[0] in files else "is missing"
        raise VerificationFailed(f"{differing[0]} {state}")
    for name, wanted in expected.items():
        if files[name].size_bytes != wanted.size_bytes:
            raise VerificationFailed(f"{name} has {files[name].size_bytes} bytes and should have {wanted.size_bytes}")
        if files[name].sha256 != wanted.sha256:
            raise VerificationFailed(f"{name} is not what it was when it was packaged: its SHA-256 differs")


def _inspect(root: Path, model_path: str) -> None:
    """Refuse a model that no runtime should see."""
    try:
        inspect(root / model_path)
    except InputError as error:
        found = "; ".join(f"{problem.where}: {problem.what}" for problem in error.problems).replace(f"{root}/", "")
        raise VerificationFailed(f"{model_path} is not safe to load, or broken: {found}") from error


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
    if len(known := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in known if names.count(name) > 1)
        raise ValueError(f"it has the key {twice!r} twice, and programs differ in which they take")
    return known


def _settings(root: Path, model_path: str) -> InferenceConfig:
    """Return the settings of a model, which lie beside it or one folder above, if they name no file."""
    folders = list(PurePosixPath(model_path).parents)[:2]
    names = [name for name in (f"{folder}/{SETTINGS_NAME}" for folder in folders) if (root / name).is_file()]
    if not names:
        raise VerificationFailed(f"{folders[0]}/{SETTINGS_NAME} is missing")
    settings = _parsed(InferenceConfig, root, names[0])
    entries = settings.session_options.extra_session_config or {}
    options = {key: value for _, options in settings.execution_provider for key, value in options.items()}
    if bad := next((key for key, value in entries.items() if NAMES_A_FILE.search(key) or set(value) & set("/\\")), None):
        raise VerificationFailed(
            f"{names[0]} has the session configuration entry {bad!r}, which can name a file to read or write"
        )
    if bad := next((key for key, value in options.items() if set(value) & set("/\\") and not OF_PLUGIN.fullmatch(value)), None):
        raise VerificationFailed(f"{names[0]} has the provider option {bad!r}, which names a file: {options[bad]!r}")
    return settings


def _load(candidate: PackagedCandidate, root: Path) -> VerifiedModel:
    """Create a session of a model, as its settings say, where the machine has its provider."""
    model_path = candidate.model_path
    settings = _settings(root, model_path)
    provider, options = settings.execution_provider[0]
    try:
        with tempfile.TemporaryDirectory() as scratch, SessionHost(Path(scratch)) as host:
            if provider not in host.ask("providers")["providers"]:
                outcome = f"not loaded, because {provider} is not on this machine"
                return VerifiedModel(model_path=model_path, outcome=outcome)
            host.ask(
                "create_session",
                model=str(root / model_path),
                provider=provider,
                provider_options=options,
                session_options=settings.session_options.model_dump(exclude_none=True),
            )
    except EvaluationFailed as error:
        reason = str(error).replace(f"{root}/", "")
        raise VerificationFailed(f"{model_path} does not load on {provider}: {reason}") from error
    return VerifiedModel(model_path=model_path, outcome=f"loads on {provider}")
