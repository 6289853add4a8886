"""A real sample with the outputs that the best candidate gave for it, for code that tries the package out."""

from typing import Any

import numpy as np

from packhouse.artifacts import ArtifactStore
from packhouse.packaging.golden import ATOL, RTOL, expected_outputs, first, fixed_batch, golden_inputs
from packhouse.packaging.job import PackagingJob


def sample_input(job: PackagingJob, store: ArtifactStore) -> dict[str, Any]:
    """Return the content of ``sample_input.json``: the first sample, and what is expected of the best candidate.

    Where the model's batch size is fixed, there are as many samples as it takes.

    Each tensor is ``{"dtype", "shape", "data"}`` with the data flat; `outputs` has what is a tensor that JSON can hold, which
    has no place for NaN and infinity.
    """
    candidate, evaluation = job.candidate_on(job.best.candidate, job.best.accelerator), job.evaluation(job.best)
    inputs = golden_inputs(job, candidate, 1, store)
    outputs = {name: first(fixed_batch(candidate), array) for name, array in expected_outputs(evaluation, store).items()}
    return {
        "inputs": {name: _tensor(array) for name, array in inputs.items()},
        "outputs": {name: _tensor(array) for name, array in outputs.items() if _is_json(array)},
        "tolerance": {"atol": ATOL, "rtol": RTOL},
    }


def _is_json(array: Any) -> bool:
    return array.dtype.kind in "biuUS" or (array.dtype.kind == "f" and bool(np.isfinite(array).all()))


def _tensor(array: Any) -> dict[str, Any]:
    dtype = "str" if array.dtype.kind in "US" else array.dtype.name
    return {"dtype": dtype, "shape": list(array.shape), "data": array.ravel().tolist()}
