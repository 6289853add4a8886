"""Verify a Zipfile package: every digest in its manifest, and that every model in it loads.

An archive is not trusted before it is checked: nothing is extracted that could leave the scratch folder, and nothing that is
larger than the manifest says.
"""

import hashlib
import json
import os
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from packhouse.accelerators import DEFAULT_PROVIDER
from packhouse.errors import EvaluationFailed, InputError, VerificationFailed
from packhouse.evaluation.session_host import SessionHost
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest, PackagedCandidate
from packhouse.records import Record

MAX_FILES = 100_000
MAX_MANIFEST_BYTES = 64 << 20
CHUNK_BYTES = 4 << 20


class VerifiedModel(Record):
    """A model of a package and what became of loading it."""

    model_path: str
    outcome: str


class VerifiedArchive(Record):
    """What was checked: how many files, and which models were loaded."""

    files: int
    models: tuple[VerifiedModel, ...]


def verify_archive(path: Path) -> VerifiedArchive:
    """Check the package at `path`.

    Raises:
        InputError: there is no ZIP archive at `path`.
        VerificationFailed: its content is not what its manifest says, or a model does not load; the message names the file.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError.at(str(path), f"is no readable ZIP archive ({error})", "name a Zipfile package") from error
    with archive, tempfile.TemporaryDirectory(prefix="packhouse-verify-") as scratch:
        entries = _safe_entries(archive)
        manifest = _manifest(archive, entries)
        if differing := sorted((entries.keys() - {MANIFEST_NAME}) ^ manifest.files.keys()):
            state = "is not in the manifest" if differing[0] in entries else "is missing"
            raise VerificationFailed(f"{differing[0]} {state}")
        wanted = tuple(str(PurePosixPath(candidate.model_path).parent) + "/" for candidate in manifest.candidates)
        for name, expected in manifest.files.items():
            target = Path(scratch, name) if name.startswith(wanted) else None
            if _digest(archive, entries[name], expected.size_bytes, target) != expected.sha256:
                raise VerificationFailed(f"{name} is not what it was when it was packaged: its SHA-256 differs")
        models = tuple(_load(candidate, Path(scratch)) for candidate in manifest.candidates)
        return VerifiedArchive(files=len(manifest.files), models=models)


def _safe_entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files of the archive by name, or refuse names and kinds that no package of ours has."""
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise VerificationFailed(f"the archive has {len(infos)} entries, more than {MAX_FILES}")
    entries: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in infos:
        name, pure = info.filename, PurePosixPath(info.filename)
        if pure.is_absolute() or ".." in pure.parts or set(name) & set("\\:\0") or str(pure) != name:
            raise VerificationFailed(f"{name!r} is no plain path inside the package")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise VerificationFailed(f"{name} is not a regular file")
        if name.lower() in folded:
            raise VerificationFailed(f"{name} is in the archive twice, or differs from another name only in case")
        folded.add(name.lower())
        entries[name] = info
    return entries


def _manifest(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> Manifest:
    info = entries.get(MANIFEST_NAME)
    if info is None:
        raise VerificationFailed(f"{MANIFEST_NAME} is missing")
    if info.file_size > MAX_MANIFEST_BYTES:
        raise VerificationFailed(f"{MANIFEST_NAME} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        return Manifest.model_validate_json(archive.read(info))
    except (ValidationError, zipfile.BadZipFile) as error:
        raise VerificationFailed(f"{MANIFEST_NAME} cannot be read: {error}") from error


def _digest(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size_bytes: int, target: Path | None) -> str:
    """Return the SHA-256 of an entry, extracting it to `target` on the way, and reading no more than it should have."""
    if info.file_size != size_bytes:
        raise VerificationFailed(f"{info.filename} has {info.file_size} bytes and should have {size_bytes}")
    sha256, left = hashlib.sha256(), size_bytes
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(info) as source, (target or Path(os.devnull)).open("wb") as sink:
            while chunk := source.read(min(CHUNK_BYTES, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise VerificationFailed(f"{info.filename} unpacks to more than it should")
                sha256.update(chunk)
                sink.write(chunk)
    except zipfile.BadZipFile as error:
        raise VerificationFailed(f"{info.filename} is damaged: {error}") from error
    return sha256.hexdigest()


def _load(candidate: PackagedCandidate, root: Path) -> VerifiedModel:
    folder = PurePosixPath(candidate.model_path).parent
    settings_path = next(
        (
            root / parent / "inference_config.json"
            for parent in (folder, folder.parent)
            if (root / parent / "inference_config.json").is_file()
        ),
        None,
    )
    settings = json.loads(settings_path.read_text()) if settings_path else {}
    provider, options = (settings.get("execution_provider") or [[DEFAULT_PROVIDER, {}]])[0]
    with tempfile.TemporaryDirectory() as scratch, SessionHost(Path(scratch)) as host:
        if provider not in host.ask("providers")["providers"]:
            return VerifiedModel(
                model_path=candidate.model_path, outcome=f"not loaded, because {provider} is not on this machine"
            )
        try:
            host.ask(
                "create_session",
                model=str(root / candidate.model_path),
                provider=provider,
                provider_options=options,
                session_options=settings.get("session_options") or {},
            )
        except EvaluationFailed as error:
            raise VerificationFailed(f"{candidate.model_path} does not load on {provider}: {error}") from error
    return VerifiedModel(model_path=candidate.model_path, outcome=f"loads on {provider}")
