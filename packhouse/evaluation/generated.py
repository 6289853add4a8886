"""Samples made up where none are given: enough to time candidates, not to judge them.

They are the same each time, and differ from each other: some models are faster on zeros, or on what they have just seen.
Nothing is guessed about their shapes: a dynamic dimension has the size that is configured.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from packhouse.candidates import Candidate, TensorInfo
from packhouse.errors import InputError, Problem
from packhouse.evaluation.data import NUMBERS, Array, DataConfig, Dataset, inputs_of, shape_text

SAMPLES = 16
SEED = 20250101
TEXT_LENGTH = 8
# In an error, for a size that only the user knows.
EXAMPLE_SIZE = 128
APART = "grade candidates that take different samples in runs of their own"
# From the kind of numpy type that holds least to the one that holds most: what fits the first fits all.
KINDS = "biuf"

Declared = Mapping[str, Sequence[TensorInfo]]


def generate(config: DataConfig, candidates: Sequence[Candidate]) -> Dataset:
    """Return seeded random samples that all candidates take, without labels.

    Raises:
        InputError: a candidate has no inputs, a dimension has no size or several, or what is configured does not fit.
    """
    declared = inputs_of(candidates)
    sizes = _Sizes(config, declared)
    shapes = {name: sizes.of(name) for name in declared}
    if problems := [*sizes.problems, *_mixed_types(declared), *_wrong_ranges(config, declared)]:
        raise InputError(list(dict.fromkeys(problems)))
    arrays = {name: _sampled(values, (SAMPLES, *shapes[name]), config.ranges.get(name)) for name, values in declared.items()}
    return Dataset(arrays, None, np.arange(SAMPLES))


@dataclass
class _Sizes:
    """Finds the size of every dimension, and gathers what is wrong with what is configured."""

    config: DataConfig
    declared: Declared
    problems: list[Problem] = field(default_factory=list)
    _without_size: set[str | tuple[str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Check the names."""
        shapes = [value.shape for values in self.declared.values() for value in values]
        batches = {shape[0] for shape in shapes if shape}
        names = sorted({size for shape in shapes for size in shape[1:] if isinstance(size, str)})
        for name, given in self.config.shapes.items():
            where = f"data.shapes.{name}"
            if isinstance(given, tuple):
                self.problems += _unknown_input(where, name, self.declared)
            elif name not in names and name in batches:
                what = "is the number of samples, which is not part of their shape"
                self.problems.append(Problem(where, what, "set data.timing_batch_size instead"))
            elif name not in names:
                known = f"the candidates' dynamic dimensions are {', '.join(names)}" if names else "none of them has a name"
                remedy = f"{known}; a whole shape is a list, such as [1, {EXAMPLE_SIZE}]"
                self.problems.append(Problem(where, f"no candidate has a dynamic dimension {name!r}", remedy))

    def of(self, name: str) -> tuple[int, ...]:
        """Return the shape of one sample of an input."""
        values, whole = self.declared[name], self.config.shapes.get(name)
        if isinstance(whole, tuple):
            self.problems += self._wrong_whole(name, whole)
            return whole[1:]
        if len({len(value.shape) for value in values}) > 1:
            self._differ(name, values)
            return ()
        sizes = [self._size(name, axis) for axis in range(1, len(values[0].shape))]
        for axis in (axis for axis, size in enumerate(sizes, 1) if size is None):
            self._has_no_size(name, axis, sizes)
        return tuple(size or 0 for size in sizes)

    def _wrong_whole(self, name: str, whole: tuple[int, ...]) -> Iterator[Problem]:
        where, values = f"data.shapes.{name}", self.declared[name]
        for value in values:
            if not _takes(value, whole):
                what = f"is {shape_text(whole)}, and the model takes {shape_text(value.shape)}"
                yield Problem(where, what, "write a shape that every candidate takes; axis 0 is the sample")
        batches = {1, self.config.timing_batch_size, *(value.shape[0] for value in values if value.shape)}
        if whole[0] not in batches:
            what = f"has {whole[0]} on axis 0, which is the sample"
            yield Problem(where, what, "write 1 there, and the samples per inference as data.timing_batch_size")

    def _size(self, name: str, axis: int) -> int | None:
        """Return the size of a dimension: as configured for its name, or as fixed by any of the candidates."""
        values = self.declared[name]
        dimensions = {value.shape[axis] for value in values}
        fixed = {size for size in dimensions if isinstance(size, int)}
        if len(fixed) > 1:
            self._differ(name, values)
        for symbol in sorted(size for size in dimensions if isinstance(size, str)):
            given = self.config.shapes.get(symbol)
            if not isinstance(given, int):
                continue
            if fixed - {given}:
                sizes = " and ".join(map(str, sorted(fixed - {given})))
                what = f"is {given}, and on axis {axis} of the input {name!r} another candidate takes {sizes}"
                self.problems.append(Problem(f"data.shapes.{symbol}", what, "write a size that every candidate takes"))
            fixed.add(given)
        return min(fixed, default=None)

    def _differ(self, name: str, values: Sequence[TensorInfo]) -> None:
        shapes = " and ".join(sorted({shape_text(value.shape) for value in values}))
        what = f"candidates take the input {name!r} in the shapes {shapes}, which no sample has at once"
        self.problems.append(Problem("data", what, APART))

    def _has_no_size(self, name: str, axis: int, sizes: Sequence[int | None]) -> None:
        """Note it, once for a dimension with a name, and once for all others of an input, which need a whole shape."""
        symbol = next((size for value in self.declared[name] if isinstance(size := value.shape[axis], str)), None)
        if (symbol or (name,)) in self._without_size:
            return
        self._without_size.add(symbol or (name,))
        whole = [1, *(EXAMPLE_SIZE if size is None else size for size in sizes)]
        entry = f"{symbol}: {EXAMPLE_SIZE}" if symbol else f"{name}: {whole}"
        what = f"the input {name!r} has the dynamic dimension {symbol or '?'!r} on axis {axis}, and nothing says its size"
        self.problems.append(
            Problem("data.shapes", what, f"write the size to time with, such as {{{entry}}}, or give data.path")
        )


def _takes(value: TensorInfo, whole: tuple[int, ...]) -> bool:
    """Return whether a shape is one that an input takes; of an input without a shape, nothing is known."""
    return not value.shape or (
        len(whole) == len(value.shape)
        and all(
            not isinstance(wanted, int) or wanted == given for wanted, given in zip(value.shape[1:], whole[1:], strict=True)
        )
    )


def _unknown_input(where: str, name: str, declared: Declared) -> Iterator[Problem]:
    if name not in declared:
        remedy = f"the candidates' inputs are {', '.join(sorted(declared))}"
        yield Problem(where, f"no candidate has an input {name!r}", remedy)


def _mixed_types(declared: Declared) -> Iterator[Problem]:
    for name, values in declared.items():
        if len({value.dtype == "str" for value in values}) > 1:
            dtypes = " and ".join(sorted({value.dtype for value in values}))
            yield Problem("data", f"candidates take the input {name!r} as {dtypes}, which no sample is at once", APART)


def _wrong_ranges(config: DataConfig, declared: Declared) -> Iterator[Problem]:
    for name, (least, greatest) in config.ranges.items():
        where = f"data.ranges.{name}"
        yield from _unknown_input(where, name, declared)
        for dtype in dict.fromkeys(value.dtype for value in declared.get(name, ())):
            if dtype in ("bool", "str"):
                yield Problem(where, f"the model takes {dtype}, which has no range", "leave it out")
            elif dtype in NUMBERS and not _holds(np.dtype(dtype), least, greatest):
                what = f"is {least:g} to {greatest:g}, which does not fit the model's {dtype}"
                yield Problem(where, what, "write numbers that it can hold")


def _holds(dtype: np.dtype[Any], *numbers: float) -> bool:
    if dtype.kind == "f":
        return all(abs(number) <= float(np.finfo(dtype).max) for number in numbers)
    limits = np.iinfo(dtype)
    return all(number.is_integer() and limits.min <= int(number) <= limits.max for number in numbers)


def _sampled(values: Sequence[TensorInfo], shape: tuple[int, ...], limits: Sequence[float] | None) -> Array:
    """Return random values of the narrowest type in which candidates declare an input, the same for the same input."""
    name = values[0].name
    random = np.random.default_rng([SEED, *name.encode()])
    try:
        if values[0].dtype == "str":
            letters = random.integers(ord("a"), ord("z"), (*shape, TEXT_LENGTH), np.uint32, endpoint=True)
            return letters.view(f"=U{TEXT_LENGTH}")[..., 0]
        dtype = _narrowest(values)
        if dtype.kind == "b":
            return random.integers(0, 1, shape, bool, endpoint=True)
        if dtype.kind in "iu":
            least, greatest = (int(number) for number in limits or (0, 1))
            return random.integers(least, greatest, shape, dtype, endpoint=True)
        return (random.uniform(limits[0], limits[1], shape) if limits else random.standard_normal(shape)).astype(dtype)
    except (MemoryError, ValueError) as error:
        what = f"{len(shape) and shape[0]} samples of the input {name!r} do not fit into memory ({error})"
        raise InputError.at("data.shapes", what, "write smaller sizes") from error


def _narrowest(values: Sequence[TensorInfo]) -> np.dtype[Any]:
    """Return the type of number to make; any will do for a candidate with an input that no array fits, which fails later."""
    dtypes = [np.dtype(value.dtype) for value in values if value.dtype in NUMBERS]
    return min(dtypes, key=lambda dtype: (KINDS.index(dtype.kind), dtype.itemsize), default=np.dtype(np.float32))
