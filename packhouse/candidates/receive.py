"""Receive found models: digest them, merge those that are the same, and put their bytes into the artifact store."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packhouse.accelerators import InferenceSettings
from packhouse.artifacts import Artifact, ArtifactStore, measure
from packhouse.candidates.model_file import TensorInfo
from packhouse.candidates.sources import FoundModel
from packhouse.errors import InputError
from packhouse.records import Record, digest_of

# What a candidate's ONNX file is called in packages; its own name means nothing.
MODEL_NAME = "model.onnx"


class Candidate(Record):
    """One variant of a trained model, identified by its digest.

    `files` maps the path of each file, relative to the model, to its bytes in the artifact store; `entry` is the path of the
    ONNX file among them. `same_as` names further candidates that were byte for byte this one, with the same settings.
    """

    name: str
    digest: str
    entry: str
    files: dict[str, Artifact]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    external_data: tuple[str, ...]
    settings: InferenceSettings
    history: dict[str, dict[str, Any] | None]
    same_as: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size of all files on disk."""
        return sum(file.size_bytes for file in self.files.values())


def identify(models: Sequence[FoundModel]) -> tuple[Candidate, ...]:
    """Return the candidates that the models are, in the order given, merging equal ones into the first of them.

    The digest covers the names and bytes of the files and the inference settings. It does not cover the names of the
    candidate and of its ONNX file, which is called ``model.onnx`` in every package.

    Raises:
        InputError: a file cannot be read.
    """
    candidates: dict[str, Candidate] = {}
    measured: dict[Path, Artifact] = {}
    for model in models:
        for path in model.files.values():
            if path not in measured:
                measured[path] = _measure(path)
        files = {name: measured[path] for name, path in model.files.items()}
        digest = digest_of(
            {
                "files": {MODEL_NAME if name == model.entry else name: file.sha256 for name, file in files.items()},
                "settings": model.settings.model_dump(mode="json"),
            }
        )
        if known := candidates.get(digest):
            candidates[digest] = known.model_copy(update={"same_as": (*known.same_as, model.name)})
            continue
        candidates[digest] = Candidate(
            name=model.name,
            digest=digest,
            entry=model.entry,
            files=files,
            inputs=model.facts.inputs,
            outputs=model.facts.outputs,
            opset=model.facts.opset,
            external_data=model.facts.external_data,
            settings=model.settings,
            history=model.history,
        )
    return tuple(candidates.values())


def receive(models: Sequence[FoundModel], candidates: Sequence[Candidate], store: ArtifactStore) -> None:
    """Copy the files of `candidates`, which `identify` made of `models`, into the store, unless they are there undamaged.

    Raises:
        ArtifactError: a file is not what it was when it was identified.
    """
    by_name = {model.name: model for model in models}
    for candidate in candidates:
        for name, artifact in candidate.files.items():
            if not store.is_intact(artifact):
                store.put(by_name[candidate.name].files[name], expected=artifact)


def lay_out(candidate: Candidate, store: ArtifactStore, folder: Path, entry: str | None = None) -> Path:
    """Put the candidate's files into `folder` under their own paths and return the path of its ONNX file.

    `entry` renames the ONNX file; external data keep their names, since the model refers to them.
    """
    for name, artifact in candidate.files.items():
        target = folder / (entry if entry and name == candidate.entry else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        store.place(artifact, target)
    return folder / (entry or candidate.entry)


def _measure(path: Path) -> Artifact:
    try:
        return measure(path, with_crc32=True)
    except OSError as error:
        raise InputError.at(str(path), f"cannot be read ({error.strerror})", "check the path and its permissions") from error
