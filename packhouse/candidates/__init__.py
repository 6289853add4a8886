"""Candidates: the variants of a trained model that compete, and where they come from.

`CandidateSource.find` checks what a source offers without writing anything, `identify` gives each candidate its digest, and
`receive` copies the bytes into the artifact store, so that everything later works on exactly what was checked.
"""

from typing import Annotated

from pydantic import Field

from packhouse.candidates.model_file import TensorInfo
from packhouse.candidates.olive import OliveSource
from packhouse.candidates.receive import MODEL_NAME, Candidate, identify, lay_out, receive
from packhouse.candidates.sources import (
    FolderSource,
    FoundModel,
    ListedModel,
    ListSource,
    LocatedModel,
)
from packhouse.records import AnyOfSchema

CandidateSource = Annotated[FolderSource | ListSource | OliveSource, Field(discriminator="type"), AnyOfSchema()]

__all__ = [
    "MODEL_NAME",
    "Candidate",
    "CandidateSource",
    "FolderSource",
    "FoundModel",
    "ListSource",
    "ListedModel",
    "LocatedModel",
    "OliveSource",
    "TensorInfo",
    "identify",
    "lay_out",
    "receive",
]
