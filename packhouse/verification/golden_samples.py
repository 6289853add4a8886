"""Run the golden samples that a package brings, and compare with the outputs that it brings.

Neither is trusted: nothing is unpickled, and what the file holds never takes more memory than the file is large.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from packhouse.errors import VerificationFailed
from packhouse.evaluation.data import Array
from packhouse.evaluation.session_host import SessionHost
from packhouse.packaging.manifest import GoldenSamples

NOTHING_TO_COMPARE = "there are no golden samples to compare with"


def run_golden_samples(host: SessionHost, root: Path, golden: GoldenSamples | None, scratch: Path) -> str:
    """Run the golden samples in the session that `host` has; return what was found in words.

    Raises:
        VerificationFailed: the file cannot be read, or outputs are not what they were.
        EvaluationFailed: the session does not take the samples.
    """
    if golden is None:
        return NOTHING_TO_COMPARE
    inputs, expected = _read(root, golden.path)
    host.ask("read_data", path=str(root / golden.path), inputs=inputs)
    output = scratch / "outputs.npz"
    run = host.ask("predict", batch_size=golden.batch_size, output=str(output), samples=golden.samples)["samples"]
    if run < golden.samples:  # more only fill a fixed batch
        raise VerificationFailed(f"it has {run} golden samples, and the manifest says {golden.samples}")
    with np.load(output, allow_pickle=False) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    if not expected:
        return NOTHING_TO_COMPARE
    for name, wanted in expected.items():
        if name not in given:
            raise VerificationFailed(f"the output {name!r} of its golden samples is missing")
        _require_close(name, given[name][: len(wanted)], wanted, golden)
    return f"{golden.samples} golden samples are what they were"


def _read(root: Path, name: str) -> tuple[dict[str, str], dict[str, Array]]:
    """Return the key of each input in the file of golden samples, and the expected outputs by name."""
    try:
        with zipfile.ZipFile(root / name) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise VerificationFailed(f"{name} is compressed, as golden samples never are")
        with np.load(root / name, allow_pickle=False) as arrays:
            inputs = {str(value): f"input_{index}" for index, value in enumerate(arrays["input_names"])}
            return inputs, _outputs(arrays)
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, MemoryError, zipfile.BadZipFile) as error:
        raise VerificationFailed(f"{name} holds no golden samples: {error}") from error


def _outputs(arrays: Mapping[str, Array]) -> dict[str, Array]:
    outputs = {str(value): arrays[f"output_{index}"] for index, value in enumerate(arrays["output_names"])}
    if empty := next((name for name, array in outputs.items() if not array.ndim or not len(array)), None):
        raise ValueError(f"no sample has the output {empty!r}")
    if strange := next((name for name, array in outputs.items() if array.dtype.kind not in "fiubUS"), None):
        raise ValueError(f"the output {strange!r} is neither numbers nor texts")
    return outputs


def _require_close(name: str, given: Array, wanted: Array, golden: GoldenSamples) -> None:
    if given.shape != wanted.shape:
        raise VerificationFailed(f"the output {name!r} has the shape {given.shape} and should have {wanted.shape}")
    if {given.dtype.kind, wanted.dtype.kind} <= set("fiub"):
        close = np.isclose(given.astype(float), wanted.astype(float), rtol=golden.rtol, atol=golden.atol, equal_nan=True)
    else:
        close = given.astype(str) == wanted.astype(str)
    if not close.all():
        found = f"{int((~close).sum())} of {close.size} values of the output {name!r}"
        raise VerificationFailed(f"{found} are not what they were when it was packaged")
