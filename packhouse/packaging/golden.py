"""Golden samples: inputs of the evaluation with the outputs that a candidate gave for them one by one.

Whoever receives a package can run them and see that its models still do what they did.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from packhouse.artifacts import ArtifactStore
from packhouse.candidates import Candidate
from packhouse.evaluation.records import Evaluation
from packhouse.packaging.contents import Content
from packhouse.packaging.job import PackagingJob

GOLDEN_NAME = "golden_samples.npz"
# Room for other machines and builds of the runtime, which round differently; quantised models differ most.
ATOL = RTOL = 1e-3

Array = np.ndarray[Any, np.dtype[Any]]


def own_batch(candidate: Candidate) -> int | None:
    """Return how many samples a candidate takes at once; None where it leaves that open."""
    return next((value.shape[0] for value in candidate.inputs if value.shape and isinstance(value.shape[0], int)), None)


def fixed_batch(candidate: Candidate) -> int:
    """Return how many samples a candidate takes at once, where it does not leave that open; else 1."""
    return own_batch(candidate) or 1


def golden_inputs(job: PackagingJob, candidate: Candidate, samples: int, store: ArtifactStore) -> dict[str, Array]:
    """Return the inputs of the first samples by name, cast to what the model takes.

    Where its batch size is fixed, they fill whole batches, from the start again, as when they were predicted.
    """
    size = fixed_batch(candidate)
    count = -(-samples // size) * size
    with np.load(store.path(job.data.sha256), allow_pickle=False) as data:
        return {value.name: _cast(first(count, data[job.input_keys[value.name]]), value.dtype) for value in candidate.inputs}


def expected_outputs(evaluation: Evaluation, store: ArtifactStore) -> dict[str, Array]:
    """Return the outputs of the golden samples by name; none where they are not tensors."""
    if evaluation.sample_outputs is None:
        return {}
    with np.load(store.path(evaluation.sample_outputs.sha256), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def golden_file(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Content:
    """Return ``golden_samples.npz``: ``input_<i>`` and ``output_<i>`` in the order of ``input_names`` and ``output_names``."""
    arrays = {
        "input_names": np.array(list(inputs)),
        **{f"input_{index}": array for index, array in enumerate(inputs.values())},
        "output_names": np.array(list(outputs), dtype=str),
        **{f"output_{index}": array for index, array in enumerate(outputs.values())},
    }
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return Content.of(file.getvalue())


def first(count: int, array: Array) -> Array:
    """Return the first samples of an array, from the start again where it has too few, as when they were predicted."""
    return array[np.arange(count) % len(array)] if len(array) else array


def _cast(array: Array, dtype: str) -> Array:
    return array if dtype in ("str", "unknown") else array.astype(dtype)
