"""What a package consists of before it is written: names, and for each the bytes or a file whose digest is known."""

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from packhouse.artifacts import Artifact, ArtifactStore, measure, measure_bytes
from packhouse.candidates import MODEL_NAME, Candidate
from packhouse.errors import PackagingFailed

MAX_NAME_BYTES, MAX_PART_BYTES = 1024, 255
UNFIT_CHARACTERS = frozenset('\\:*?"<>|') | {chr(code) for code in range(32)}
# What Windows opens a device for, whatever the suffix.
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))})


@dataclass(frozen=True)
class Content:
    """The content of one file: in memory where it was generated, else on disk."""

    artifact: Artifact
    source: Path | bytes

    @classmethod
    def of(cls, source: Path | bytes) -> "Content":
        """Return content with its digest computed."""
        return cls(measure_bytes(source) if isinstance(source, bytes) else measure(source, with_crc32=True), source)

    @classmethod
    def of_json(cls, value: Any) -> "Content":
        """Return an indented JSON file with keys in the order given."""
        return cls.of((json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False) + "\n").encode())


Contents = Mapping[str, Content]


def model_contents(candidate: Candidate, store: ArtifactStore, beside: Contents) -> dict[str, Content]:
    """Return a candidate's files together with those that we put `beside` them.

    Its ONNX file is called ``model.onnx``; external data keep the names that it refers to.

    Raises:
        PackagingFailed: a further file of the candidate has a name that is taken, or that not every system can have.
    """
    names = {name: MODEL_NAME if name == candidate.entry else name for name in candidate.files}
    if unfit := unfit_name([*beside, *names.values()]):
        what = "brings a file that cannot be packed with the package's own"
        raise PackagingFailed(f"candidate {candidate.name!r} {what}: {unfit}; rename the candidate's file")
    files = {names[name]: Content(artifact, store.path(artifact.sha256)) for name, artifact in candidate.files.items()}
    return {**files, **beside}


def joined(own: Contents, others: Contents) -> dict[str, Content]:
    """Return what a package has of its own together with `others`, those of candidates.

    Raises:
        PackagingFailed: a name is in both.
    """
    if taken := sorted(own.keys() & others.keys()):
        raise PackagingFailed(f"the package has a file {taken[0]!r} of its own; rename the candidate's file")
    return {**others, **own}


def unfit_name(names: Iterable[str]) -> str | None:
    """Say which name, with those before it, cannot be in a package that is unpacked on any system; None where all can.

    Every name is a plain relative path, no two differ only in case, and no file has the name of another's folder.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        plain = path.parts and not path.is_absolute() and ".." not in path.parts and str(path) == name
        if not plain or not all(map(_is_plain, path.parts)) or len(name.encode()) > MAX_NAME_BYTES:
            return f"{name!r} is no plain path inside the package"
        key, *parents = (_folded(str(part)) for part in (path, *path.parents[:-1]))
        if key in files:
            return f"{name!r} is there twice" if name == files[key] else f"{name!r} differs from {files[key]!r} only in case"
        if key in folders:
            return f"{name!r} has the name of the folder of {folders[key]!r}"
        if taken := next((parent for parent in parents if parent in files), None):
            return f"{name!r} is in a folder with the name of the file {files[taken]!r}"
        files[key] = name
        folders.update(dict.fromkeys(parents, name))
    return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_plain(part: str) -> bool:
    """Whether every system can have a file or folder of this name, and does not take it for another."""
    is_taken = part.partition(".")[0].casefold() in DEVICES or part.endswith((".", " "))
    is_text = not any("\ud800" <= character <= "\udfff" for character in part)
    return is_text and not is_taken and not UNFIT_CHARACTERS & set(part) and len(part.encode()) <= MAX_PART_BYTES


def below(folder: str, contents: Contents) -> dict[str, Content]:
    """Return the contents with their names below `folder`."""
    return {f"{folder}/{name}": content for name, content in contents.items()}
