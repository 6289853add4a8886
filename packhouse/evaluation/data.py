"""The labelled samples that candidates are evaluated on: from .npz, .parquet or a user's function."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from packhouse.candidates import Candidate, TensorInfo
from packhouse.errors import InputError, Problem
from packhouse.records import Record
from packhouse.user_code import load_function

LABELS_KEY = "labels"
Array = np.ndarray[Any, np.dtype[Any]]


class DataConfig(Record):
    """Where the samples are, and which arrays are inputs, labels and ids. Axis 0 of every array is the sample."""

    path: Path | None = Field(default=None, description="An .npz file of arrays, or a .parquet file of columns.")
    function: str | None = Field(
        default=None,
        description="Instead of a path: module:function or file.py:function that returns a dict of arrays.",
    )
    inputs: dict[str, str | tuple[str, ...]] = Field(
        default={},
        description="Model input → array, or list of columns to stack on the last axis; by default the array of that name.",
    )
    labels: str | None = Field(default=None, description="Array or column of labels; needed by quality metrics.")
    ids: str | None = Field(default=None, description="Array or column that identifies each sample; else its position.")
    batch_size: int = Field(default=32, ge=1, description="Samples per inference when quality is evaluated.")
    timing_batch_size: int = Field(default=1, ge=1, description="Samples per inference when latency is measured.")

    @model_validator(mode="after")
    def _one_origin(self) -> "DataConfig":
        if (self.path is None) == (self.function is None):
            raise ValueError("data come from either a path or a function; give one of them")
        if self.path is not None and self.path.suffix not in (".npz", ".parquet"):
            raise ValueError(f"{self.path} is neither .npz nor .parquet; convert it, or give a function that reads it")
        return self

    def load(self) -> dict[str, Array]:
        """Return all arrays by name. Raises InputError where they cannot be read."""
        if self.function is not None:
            arrays = load_function(self.function, "data.function")()
            if not isinstance(arrays, Mapping):
                raise InputError.at(
                    "data.function", f"{self.function} returned {type(arrays).__name__}", "return a dict of arrays"
                )
            return {str(name): np.asarray(array) for name, array in arrays.items()}
        assert self.path is not None
        try:
            return _read_parquet(self.path) if self.path.suffix == ".parquet" else _read_npz(self.path)
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise InputError.at(
                f"data.path = {self.path}", f"cannot be read ({error})", "check the path and the file"
            ) from error


@dataclass(frozen=True)
class Dataset:
    """Samples ready for every candidate: `inputs` by model input name, `labels` and `ids`, all of the same length."""

    inputs: dict[str, Array]
    labels: Array | None
    ids: Array

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.ids)

    def save(self, path: Path) -> None:
        """Write an .npz file whose bytes depend on the samples only: ``input_<i>`` in order of name, ``labels``, ``ids``."""
        arrays = {key: self.inputs[name] for name, key in input_keys(self.inputs).items()}
        if self.labels is not None:
            arrays[LABELS_KEY] = self.labels
        with path.open("wb") as file:
            np.savez(file, **{**arrays, "ids": self.ids})  # type: ignore[arg-type]


def input_keys(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the array name in a saved data set for each model input."""
    return {name: f"input_{index}" for index, name in enumerate(sorted(inputs))}


def select(config: DataConfig, candidates: Sequence[Candidate], needs_labels: bool) -> Dataset:
    """Load the data and pick what the candidates need, checked against their signatures.

    Raises:
        InputError: an array is missing, has the wrong length, shape or kind, or holds what a model cannot take.
    """
    signature = {value.name: value for candidate in candidates for value in candidate.inputs}
    selection = _Selection(config.load())
    for name in config.inputs.keys() - signature.keys():
        remedy = f"the candidates' inputs are {', '.join(sorted(signature))}"
        selection.problems.append(Problem(f"data.inputs.{name}", f"no candidate has an input {name!r}", remedy))
    inputs = {name: selection.input(value, config.inputs.get(name, name)) for name, value in signature.items()}
    labels = selection.pick(config.labels, "data.labels") if config.labels else None
    if needs_labels and not config.labels:
        what = "is not set, and a quality metric needs labels"
        selection.problems.append(Problem("data.labels", what, "name the array of labels"))
    ids = selection.pick(config.ids, "data.ids") if config.ids else None
    count = selection.count_samples()
    if selection.problems:
        raise InputError(selection.problems)
    present = {name: array for name, array in inputs.items() if array is not None}
    return Dataset(present, labels, np.arange(count) if ids is None else ids)


class _Selection:
    """Picks arrays by name and gathers what is wrong with them, so that all of it is reported at once."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.problems: list[Problem] = []
        self._arrays = arrays
        self._picked: dict[str, Array] = {}

    def pick(self, name: str, where: str) -> Array | None:
        """Return the array `name`, which `where` in the configuration asks for."""
        if name not in self._arrays:
            names = ", ".join(sorted(self._arrays)) or "none"
            self.problems.append(Problem(where, f"there is no array {name!r}", f"the data have {names}"))
            return None
        self._picked[where] = self._arrays[name]
        return self._arrays[name]

    def input(self, value: TensorInfo, wanted: str | tuple[str, ...]) -> Array | None:
        """Return the array for a model input, made of one array or of several columns."""
        where = f"data.inputs.{value.name}"
        columns = (wanted,) if isinstance(wanted, str) else wanted
        picked = [array for column in columns if (array := self.pick(column, where)) is not None]
        if len(picked) < len(columns) or len({array.shape for array in picked}) > 1:
            return None
        array = picked[0] if isinstance(wanted, str) else np.stack(picked, axis=-1)
        self.problems += _misfits(value, array)
        return array

    def count_samples(self) -> int:
        """Return the length that all picked arrays share, which is that of the first one."""
        lengths = {where: len(array) if array.ndim else 0 for where, array in self._picked.items()}
        count = next(iter(lengths.values()), 0)
        for where, length in lengths.items():
            if length != count:
                what = f"has {length} entries for {count} samples"
                self.problems.append(Problem(where, what, "give every array one entry a sample"))
        if not count and not self.problems:
            self.problems.append(Problem("data", "has no samples", "give at least one"))
        return count


def zeros(candidates: Sequence[Candidate]) -> Dataset:
    """Return one sample of zeros, with 1 for every dynamic dimension: enough to time, not to judge."""
    signature = {value.name: value for candidate in candidates for value in candidate.inputs}
    inputs = {
        name: np.zeros([1, *(size if isinstance(size, int) else 1 for size in value.shape[1:])], value.dtype)
        for name, value in signature.items()
    }
    return Dataset(inputs, None, np.arange(1))


def _misfits(value: TensorInfo, array: Array) -> list[Problem]:
    where = f"data.inputs.{value.name}"
    shape = "×".join("?" if not isinstance(size, int) else str(size) for size in value.shape)
    fits = array.ndim == len(value.shape) and all(
        not isinstance(wanted, int) or wanted == found for wanted, found in zip(value.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        found = "×".join(map(str, array.shape))
        return [
            Problem(where, f"has the shape {found}, and the model takes {shape}", "reshape the array; axis 0 is the sample")
        ]
    if value.dtype != "str" and array.dtype.kind not in "fiub":
        return [Problem(where, f"holds {array.dtype}, and the model takes {value.dtype}", "store numbers")]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [Problem(where, "holds values that are not finite", "remove or replace NaN and infinity")]
    return []


def _read_npz(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array, not an .npz file of named arrays")
        return {name: file[name] for name in file.files}


def _read_parquet(path: Path) -> dict[str, Array]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError.at(f"data.path = {path}", "needs pyarrow to be read", "pip install 'packhouse[parquet]'") from error
    table = parquet.read_table(path)
    return {name: _column(table.column(name).to_pylist()) for name in table.column_names}


def _column(values: list[Any]) -> Array:
    array = np.asarray(values)
    if array.dtype == object:
        raise ValueError("a column has rows of different lengths, or missing values")
    return array
