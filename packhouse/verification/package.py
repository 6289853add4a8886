"""Verify a package, a ZIP archive or a folder: every digest in its manifest, and that every model does what it did.

A package is not trusted before it is checked. It is looked at as a copy that the reader made; every model is inspected before
a runtime sees it; and of its settings only those get there that Packhouse itself has and that name no file.
"""

import tempfile
from pathlib import Path

from packhouse.errors import EvaluationFailed, VerificationFailed
from packhouse.evaluation.session_host import SessionHost
from packhouse.packaging.manifest import MANIFEST_NAME, PackagedCandidate
from packhouse.records import Record
from packhouse.verification.golden_samples import run_golden_samples
from packhouse.verification.reader import unpack
from packhouse.verification.unpacked import read_manifest, require_harmless, require_safe_model, settings_of


class VerifiedModel(Record):
    """A model of a package and what became of loading it and running its golden samples."""

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
        VerificationFailed: its content is not what its manifest says, there is no model in it, or a model does not load or
            does not give the outputs of its golden samples; the message names the file.
    """
    with tempfile.TemporaryDirectory(prefix="packhouse-verify-") as scratch:
        root = Path(scratch, "package")
        manifest = read_manifest(root, unpack(path, root))
        if not manifest.candidates:
            raise VerificationFailed(f"there is no model in it: {MANIFEST_NAME} has no candidates")
        for candidate in manifest.candidates:
            require_safe_model(root, candidate)
        models = tuple(_run(candidate, root) for candidate in manifest.candidates)
        return VerifiedPackage(files=len(manifest.files), models=models)


def _run(candidate: PackagedCandidate, root: Path) -> VerifiedModel:
    """Create a session of a model, as its settings say, where the machine has its provider, and run its golden samples."""
    model_path = candidate.model_path
    settings = settings_of(root, candidate)
    require_harmless(settings, candidate.settings_path)
    provider, options = settings.execution_provider[0]
    is_loaded = False
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
                dimensions=candidate.dimensions,
            )
            is_loaded = True
            found = run_golden_samples(host, root, candidate.golden_samples, Path(scratch))
    except EvaluationFailed as error:
        reason = str(error).replace(f"{root}/", "")
        verb = "run its golden samples" if is_loaded else "load"
        raise VerificationFailed(f"{model_path} does not {verb} on {provider}: {reason}") from error
    except VerificationFailed as error:
        raise VerificationFailed(f"{model_path}: {error}") from error
    return VerifiedModel(model_path=model_path, outcome=f"loads on {provider}; {found}")
