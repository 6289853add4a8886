"""What a package consists of before it is written: names, and for each the bytes or a file whose digest is known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packhouse.artifacts import Artifact, ArtifactStore, measure, measure_bytes
from packhouse.candidates import MODEL_NAME, Candidate


@dataclass(frozen=True)
class Content:
    """The content of one file: in memory where it was generated, else on disk."""

    artifact: Artifact
    source: Path | bytes

    @classmethod
    def of(cls, source: Path | bytes) -> "Content":
        """Return content with its digest computed."""
        return cls(measure_bytes(source) if isinstance(source, bytes) else measure(source), source)

    @classmethod
    def of_json(cls, value: Any) -> "Content":
        """Return an indented JSON file with keys in the order given."""
        return cls.of((json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False) + "\n").encode())


Contents = Mapping[str, Content]


def model_contents(candidate: Candidate, store: ArtifactStore) -> dict[str, Content]:
    """Return a candidate's files with its ONNX file called ``model.onnx``; external data keep the names it refers to."""
    names = {name: MODEL_NAME if name == candidate.entry else name for name in candidate.files}
    return {names[name]: Content(artifact, store.path(artifact.sha256)) for name, artifact in candidate.files.items()}


def below(folder: str, contents: Contents) -> dict[str, Content]:
    """Return the contents with their names below `folder`."""
    return {f"{folder}/{name}": content for name, content in contents.items()}
