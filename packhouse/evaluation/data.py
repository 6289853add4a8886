"""The labelled samples that candidates are evaluated on: from .npz, .parquet or a user's function.

Where there are none, `packhouse.evaluation.generated` makes some up.
"""

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from packhouse.candidates import Candidate, TensorInfo
from packhouse.errors import InputError, Problem
from packhouse.records import Record
from packhouse.user_code import load_function

LABELS_KEY = "labels"
# What numpy and pyarrow raise for files that are missing, truncated, or something else.
READ_ERRORS = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
Array = np.ndarray[Any, np.dtype[Any]]
# The types of inputs that take numbers, as far as arrays can have them.
NUMBERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float16", "float32", "float64")
Size = Annotated[int, Field(ge=0)]


class DataConfig(Record):
    """Where the samples are, and which arrays are inputs, labels and ids. Axis 0 of every array is the sample.

    With neither a path nor a function, samples are generated, for timing only.
    """

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
    ids: str | None = Field(
        default=None, description="Array or column that identifies each sample, no two alike; else its position."
    )
    batch_size: int = Field(default=32, ge=1, description="Samples per inference when quality is evaluated.")
    timing_batch_size: int = Field(default=1, ge=1, description="Samples per inference when latency is measured.")
    shapes: dict[str, Size | Annotated[tuple[Size, ...], Field(min_length=1)]] = Field(
        default={},
        description="For generated samples: dynamic dimension → its size in all inputs, or input → its whole shape as a list.",
    )
    ranges: dict[str, Annotated[tuple[float, ...], Field(min_length=2, max_length=2)]] = Field(
        default={},
        description="For generated samples: input → least and greatest value; by default 0 and 1 for integers, "
        "and a standard normal distribution for other numbers.",
    )

    @field_validator("ranges")
    @classmethod
    def _ranges_are_ordered(cls, value: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, (least, greatest) in value.items():
            if not -math.inf < least <= greatest < math.inf:
                raise ValueError(f"{name!r} has the range {least:g} to {greatest:g}; write the least value, then the greatest")
        return value

    @property
    def is_generated(self) -> bool:
        """Whether the samples come from nowhere, so that they have to be made up."""
        return self.path is None and self.function is None

    @model_validator(mode="after")
    def _one_origin(self) -> "DataConfig":
        if self.path is not None and self.function is not None:
            raise ValueError("data come from either a path or a function; give one of them")
        if self.is_generated and (self.inputs or self.labels or self.ids):
            raise ValueError("inputs, labels and ids name arrays of a path or a function; give one of them")
        if not self.is_generated and (self.shapes or self.ranges):
            raise ValueError("shapes and ranges are for generated samples, and these are given; leave them out")
        if self.path is not None and self.path.suffix not in (".npz", ".parquet"):
            raise ValueError(f"{self.path} is neither .npz nor .parquet; convert it, or give a function that reads it")
        return self

    def load(self) -> dict[str, Array]:
        """Return all arrays by name. Raises InputError where they cannot be read."""
        if self.function is not None:
            return _call(self.function)
        assert self.path is not None
        try:
            return _read_parquet(self.path) if self.path.suffix == ".parquet" else _read_npz(self.path)
        except READ_ERRORS as error:
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
            np.savez(file, **{name: _laid_out(array) for name, array in {**arrays, "ids": self.ids}.items()})  # type: ignore[arg-type]


def input_keys(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the array name in a saved data set for each model input."""
    return {name: f"input_{index}" for index, name in enumerate(sorted(inputs))}


def select(config: DataConfig, candidates: Sequence[Candidate], needs_labels: bool) -> Dataset:
    """Load the data and pick what the candidates need, checked against their signatures.

    Raises:
        InputError: an array is missing, has the wrong length, shape or kind, or holds what a model cannot take.
    """
    signature = inputs_of(candidates)
    selection = _Selection(config.load())
    for name in sorted(config.inputs.keys() - signature.keys()):
        remedy = f"the candidates' inputs are {', '.join(sorted(signature))}"
        selection.problems.append(Problem(f"data.inputs.{name}", f"no candidate has an input {name!r}", remedy))
    inputs = {name: selection.input(values, config.inputs.get(name, name)) for name, values in signature.items()}
    labels = selection.pick(config.labels, "data.labels") if config.labels else None
    if needs_labels and not config.labels:
        what = "is not set, and a quality metric needs labels"
        selection.problems.append(Problem("data.labels", what, "name the array of labels"))
    ids = selection.ids(config.ids) if config.ids else None
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
        array = self._arrays[name]
        if array.dtype.hasobject:
            what = f"{name!r} has missing values, rows of different lengths, or values that are neither numbers nor texts"
            self.problems.append(Problem(where, what, "store numbers, or texts, everywhere"))
            return None
        self._picked[where] = array
        return array

    def input(self, values: Sequence[TensorInfo], wanted: str | tuple[str, ...]) -> Array | None:
        """Return the array for a model input, as the candidates declare it, made of one array or of several columns."""
        where = f"data.inputs.{values[0].name}"
        if isinstance(wanted, str):
            array = self.pick(wanted, where)
        else:
            array = self._stack([self.pick(column, f"{where}[{index}]") for index, column in enumerate(wanted)], where)
        if array is not None:
            self.problems += dict.fromkeys(problem for value in values for problem in _misfits(value, array))
        return array

    def ids(self, name: str) -> Array | None:
        """Return the array `name`, which has to tell every sample from all others: answers are joined to labels by it."""
        array = self.pick(name, "data.ids")
        if array is not None and (what := _ambiguous(array)):
            self.problems.append(Problem("data.ids", what, "name an array of one value a sample, no two alike"))
        return array

    def _stack(self, columns: Sequence[Array | None], where: str) -> Array | None:
        picked = [column for column in columns if column is not None]
        if len(picked) < len(columns):
            return None
        shapes = sorted({shape_text(column.shape) for column in picked})
        if len(shapes) != 1:
            what = f"is made of columns of the shapes {' and '.join(shapes)}" if shapes else "is made of no columns"
            self.problems.append(Problem(where, what, "name columns of one shape"))
            return None
        return np.stack(picked, axis=-1)

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


def _ambiguous(ids: Array) -> str | None:
    """Return why samples cannot be told apart by these ids; None where they can."""
    if ids.ndim > 1:
        return f"has the shape {shape_text(ids.shape)}, and an id is a single value"
    if ids.dtype.kind == "f" and not np.isfinite(ids).all():
        return "holds values that are not finite"
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < ids.size:
        return f"has {values[counts.argmax()].item()!r} {counts.max()} times, and an id belongs to one sample"
    return None


def inputs_of(candidates: Sequence[Candidate]) -> dict[str, list[TensorInfo]]:
    """Return, for each input name, the different ways in which candidates declare it.

    Raises:
        InputError: a candidate has no inputs.
    """
    remedy = "leave it out, or export it with what it computes on as an input"
    problems = [
        Problem(f"candidates: {candidate.name}", "has no inputs, so there is nothing to run it on", remedy)
        for candidate in candidates
        if not candidate.inputs
    ]
    if problems:
        raise InputError(problems)
    declared: dict[str, list[TensorInfo]] = {}
    for value in dict.fromkeys(value for candidate in candidates for value in candidate.inputs):
        declared.setdefault(value.name, []).append(value)
    return declared


def _misfits(value: TensorInfo, array: Array) -> list[Problem]:
    where = f"data.inputs.{value.name}"
    fits = array.ndim == len(value.shape) and all(
        not isinstance(wanted, int) or wanted == found for wanted, found in zip(value.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        what = f"has the shape {shape_text(array.shape)}, and the model takes {shape_text(value.shape)}"
        return [Problem(where, what, "reshape the array; axis 0 is the sample")]
    if array.dtype.kind not in ("U" if value.dtype == "str" else "fiub"):
        remedy = "store texts" if value.dtype == "str" else "store numbers"
        return [Problem(where, f"holds {array.dtype}, and the model takes {value.dtype}", remedy)]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [Problem(where, "holds values that are not finite", "remove or replace NaN and infinity")]
    if (wrong := _lost_in(value.dtype, array)) is not None:
        return [Problem(where, f"holds {wrong}, which does not fit the model's {value.dtype}", "store values that do")]
    return []


def _lost_in(dtype: str, array: Array) -> bool | float | None:
    """Return a number of the array that would be another one, not just less precise, in the type of an input."""
    if dtype not in NUMBERS or not array.size:
        return None
    kind = np.dtype(dtype).kind
    if kind == "f":
        with np.errstate(over="ignore"):
            lost = array[~np.isfinite(array.astype(dtype))]
    elif array.dtype.kind == "f" and (fractions := array[array != np.trunc(array)]).size:
        lost = fractions
    else:
        least, greatest = (0, 1) if kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        lost = np.array([value for value in (array.min(), array.max()) if not least <= int(value) <= greatest])
    number: bool | float | None = lost[0].item() if lost.size else None
    return number


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Return a shape as errors show it: ``?×2``."""
    return "×".join(str(size) if isinstance(size, int) else "?" for size in shape) or "of a single value"


def _laid_out(array: Array) -> Array:
    """Return the array in the byte and axis order in which equal values give equal bytes."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _call(reference: str) -> dict[str, Array]:
    function = load_function(reference, "data.function")
    try:
        arrays = function()
    except Exception as error:
        raise InputError.at("data.function", f"{reference} raised {type(error).__name__}: {error}", "mend it") from error
    if not isinstance(arrays, Mapping):
        raise InputError.at("data.function", f"{reference} returned {type(arrays).__name__}", "return a dict of arrays")
    return {str(name): _as_array(values) for name, values in arrays.items()}


def _read_npz(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array, not an .npz file of named arrays")
        return {name: np.asarray(arrays[name]) for name in arrays.files}


def _read_parquet(path: Path) -> dict[str, Array]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError.at(f"data.path = {path}", "needs pyarrow to be read", "pip install 'packhouse[parquet]'") from error
    table = parquet.read_table(path)
    return {name: _as_array(table.column(name).to_pylist()) for name in table.column_names}


def _as_array(values: Any) -> Array:
    """Return an array of numbers or texts; one of objects, which is refused where it is picked, if they are neither."""
    try:
        array = np.asarray(values)
        if array.dtype.hasobject and len({isinstance(value, str) for value in array.flat}) == 1:
            array = np.asarray(array.tolist())
    except ValueError:  # rows of different lengths
        array = np.array([None] * len(values), dtype=object)
    return array
