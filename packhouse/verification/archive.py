"""Verify a Zipfile package: every digest in its manifest, and that every model in it loads.

An archive is not trusted before it is checked: nothing is extracted that could leave the scratch folder or is larger than the
manifest says, and of its settings only those reach the runtime that Packhouse itself has.
"""

import copy
import hashlib
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import Field, ValidationError

from packhouse.accelerators import SessionOptions
from packhouse.errors import EvaluationFailed, InputError, VerificationFailed
from packhouse.evaluation.session_host import SessionHost
from packhouse.packaging.contents import unfit_name
from packhouse.packaging.manifest import MANIFEST_NAME, Manifest, PackagedCandidate
from packhouse.records import Record

SETTINGS_NAME = "inference_config.json"
MAX_FILES = 100_000
MAX_TEXT_BYTES = 64 << 20
CHUNK_BYTES = 4 << 20
ENCRYPTED = 0x01
# What zipfile raises for an archive that is damaged, or made to look so.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)

Entries = dict[str, zipfile.ZipInfo]
R = TypeVar("R", bound=Record)


class VerifiedModel(Record):
    """A model of a package and what became of loading it."""

    model_path: str
    outcome: str


class VerifiedArchive(Record):
    """What was checked: how many files, and which models were loaded."""

    files: int
    models: tuple[VerifiedModel, ...]


class InferenceConfig(Record):
    """Content of ``inference_config.json``: execution providers with their options, the first to be used, and the session's."""

    execution_provider: tuple[tuple[str, dict[str, str]], ...] = Field(min_length=1)
    session_options: SessionOptions


def verify_archive(path: Path) -> VerifiedArchive:
    """Check the package at `path`.

    Raises:
        InputError: there is no ZIP archive at `path`.
        VerificationFailed: its content is not what its manifest says, or a model does not load; the message names the file.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, *DAMAGE) as error:
        raise InputError.at(str(path), f"is no readable ZIP archive ({error})", "name a Zipfile package") from error
    with archive, tempfile.TemporaryDirectory(prefix="packhouse-verify-") as scratch:
        entries = _safe_entries(archive, path.stat().st_size)
        if MANIFEST_NAME not in entries:
            raise VerificationFailed(f"{MANIFEST_NAME} is missing")
        manifest = _parsed(Manifest, archive, entries[MANIFEST_NAME])
        if differing := sorted((entries.keys() - {MANIFEST_NAME}) ^ manifest.files.keys()):
            state = "is not in the manifest" if differing[0] in entries else "is missing"
            raise VerificationFailed(f"{differing[0]} {state}")
        models = [candidate.model_path for candidate in manifest.candidates]
        if missing := [model for model in models if model not in manifest.files]:
            raise VerificationFailed(f"the model {missing[0]!r} is missing")
        wanted = tuple(f"{PurePosixPath(model).parent}/" for model in models)
        for name, expected in manifest.files.items():
            target = Path(scratch, name) if name.startswith(wanted) else None
            if _digest(archive, entries[name], expected.size_bytes, target) != expected.sha256:
                raise VerificationFailed(f"{name} is not what it was when it was packaged: its SHA-256 differs")
        loaded = tuple(_load(candidate, archive, entries, Path(scratch)) for candidate in manifest.candidates)
        return VerifiedArchive(files=len(manifest.files), models=loaded)


def _safe_entries(archive: zipfile.ZipFile, size_bytes: int) -> Entries:
    """Return the files of the archive by name, or refuse names and kinds that no package of ours has."""
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise VerificationFailed(f"the archive has {len(infos)} entries, more than {MAX_FILES}")
    if unfit := unfit_name(info.filename for info in infos):
        raise VerificationFailed(unfit)
    if sum(info.compress_size for info in infos) > size_bytes:
        raise VerificationFailed("its entries overlap: together they are larger than the archive")
    for info in infos:
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise VerificationFailed(f"{info.filename} is not a regular file")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & ENCRYPTED:
            raise VerificationFailed(f"{info.filename} is compressed or encrypted as no file of a package is")
        if info.header_offset < 0:
            raise VerificationFailed(f"{info.filename} begins before the archive")
    return {info.filename: info for info in infos}


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of an entry, and refuse one that has not exactly as many as its header says."""
    left = info.file_size
    # zipfile itself cuts off what is beyond the size that it is told.
    longer = copy.copy(info)
    longer.file_size += 1
    try:
        with archive.open(longer) as source:
            while chunk := source.read(min(CHUNK_BYTES, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise VerificationFailed(f"{info.filename} unpacks to more than it should")
                yield chunk
    except DAMAGE as error:
        raise VerificationFailed(f"{info.filename} is damaged: {error}") from error
    if left:
        raise VerificationFailed(f"{info.filename} unpacks to less than it should")


def _digest(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size_bytes: int, target: Path | None) -> str:
    """Return the SHA-256 of an entry, extracting it to `target` on the way."""
    if info.file_size != size_bytes:
        raise VerificationFailed(f"{info.filename} has {info.file_size} bytes and should have {size_bytes}")
    sha256 = hashlib.sha256()
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
    with (target or Path(os.devnull)).open("wb") as sink:
        for chunk in _unpacked(archive, info):
            sha256.update(chunk)
            sink.write(chunk)
    return sha256.hexdigest()


def _parsed(kind: type[R], archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> R:
    """Return the record in a JSON file of the archive."""
    if info.file_size > MAX_TEXT_BYTES:
        raise VerificationFailed(f"{info.filename} is larger than {MAX_TEXT_BYTES} bytes")
    try:
        return kind.model_validate_json(b"".join(_unpacked(archive, info)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
        raise VerificationFailed(f"{info.filename} cannot be read: {what}") from error


def _load(candidate: PackagedCandidate, archive: zipfile.ZipFile, entries: Entries, root: Path) -> VerifiedModel:
    model_path = candidate.model_path
    folders = list(PurePosixPath(model_path).parents)[:2]
    names = [name for name in (f"{folder}/{SETTINGS_NAME}" for folder in folders) if name in entries]
    if not names:
        raise VerificationFailed(f"{folders[0]}/{SETTINGS_NAME} is missing")
    settings = _parsed(InferenceConfig, archive, entries[names[0]])
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
        raise VerificationFailed(f"{model_path} does not load on {provider}: {error}") from error
    return VerifiedModel(model_path=model_path, outcome=f"loads on {provider}")
