"""A real sample with the outputs that the best candidate gave for it, for code that tries the package out."""

from typing import Any

import numpy as np

from packhouse.artifacts import ArtifactStore
from packhouse.packaging.job import PackagingJob

# Room for other machines and builds of the runtime, which round differently; quantised models differ most.
TOLERANCE = {"atol": 1e-3, "rtol": 1e-3}


def sample_input(job: PackagingJob, store: ArtifactStore) -> dict[str, Any]:
    """Return the content of ``sample_input.json``: the first sample, and what is expected of the best candidate.

    Where the model's batch size is fixed, there are as many samples as it takes.

    Each tensor is ``{"dtype", "shape", "data"}`` with the data flat; `outputs` has what is a tensor that JSON can hold, which
    has no place for NaN and infinity.
    """
    best = job.evaluation(job.best)
    candidate = job.candidate(job.best.candidate)
    count = next((value.shape[0] for value in candidate.inputs if value.shape and isinstance(value.shape[0], int)), 1)
    with np.load(store.path(job.data.sha256), allow_pickle=False) as data:
        inputs = {
            value.name: _tensor(_cast(_first(count, data[job.input_keys[value.name]]), value.dtype))
            for value in candidate.inputs
        }
    outputs: dict[str, Any] = {}
    if best.sample_outputs:
        with np.load(store.path(best.sample_outputs.sha256), allow_pickle=False) as given:
            outputs = {name: _tensor(_first(count, given[name])) for name in given.files if _is_json(given[name])}
    return {"inputs": inputs, "outputs": outputs, "tolerance": TOLERANCE}


def _first(count: int, array: Any) -> Any:
    """Return the first samples of an array, from the start again where it has too few, as when they were predicted."""
    return array[np.arange(count) % len(array)] if len(array) else array


def _cast(array: Any, dtype: str) -> Any:
    return array if dtype in ("str", "unknown") else array.astype(dtype)


def _is_json(array: Any) -> bool:
    return array.dtype.kind in "biuUS" or (array.dtype.kind == "f" and bool(np.isfinite(array).all()))


def _tensor(array: Any) -> dict[str, Any]:
    dtype = "str" if array.dtype.kind in "US" else array.dtype.name
    return {"dtype": dtype, "shape": list(array.shape), "data": array.ravel().tolist()}
