"""Verify a package, a ZIP archive or a folder: every digest in its manifest, and that every model in it loads.

A package is not trusted before it is checked. It is looked at as a copy that the reader made; every model is inspected before
a runtime sees it; and of its settings only those get there that Packhouse itself has and that name no file.
"""

import tempfile
from pathlib import Path

from packhouse.errors import EvaluationFailed, VerificationFailed
from packhouse.evaluation.session_host import SessionHost
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.records import Record
from packhouse.verification.reader import unpack
from packhouse.verification.unpacked import read_manifest, require_harmless, require_safe_model, settings_of


class VerifiedModel(Record):
    """A model of a package and what became of loading it."""

    model_path: str
    outcome: str


class VerifiedPackage(Record):
    """What was checked: how many files, and what became of each model."""

    files: int
    models: tuple[VerifiedModel, ...]


def verify_package(path: Path) -> VerifiedPackage:
    """Check the package at `path`.

    Raises:
        InputError: there is no ZIP archive or folder at `path`.
        VerificationFailed: its content is not what its manifest says, or a model does not load; the message names the file.
    """
    with tempfile.TemporaryDirectory(prefix="packhouse-verify-") as scratch:
        root = Path(scratch, "package")
        manifest = read_manifest(root, unpack(path, root))
        for candidate in manifest.candidates:
            require_safe_model(root, candidate)
        loaded = tuple(_load(candidate, root) for candidate in manifest.candidates)
        return VerifiedPackage(files=len(manifest.files), models=loaded)


def _load(candidate: PackagedCandidate, root: Path) -> VerifiedModel:
    """Create a session of a model, as its settings say, where the machine has its provider."""
    model_path = candidate.model_path
    settings = settings_of(root, candidate)
    require_harmless(settings, candidate.settings_path)
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
