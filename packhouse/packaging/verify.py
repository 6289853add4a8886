#!/usr/bin/env python3
"""Check that this package is what was made, and that its models still do what they did: ``python verify.py``.

Needs onnxruntime (with the numpy that it brings) and nothing else. Every file has to have the size and SHA-256 that
manifest.json gives, no file may be missing or too many, and every model whose execution provider is here has to load and give
the outputs of its golden samples within the tolerance that is stated. A model whose provider is not here is not run, and this
is said. The exit code is 0 if all of it is so, and 1 if not.

It finds out whether files were damaged or mixed up. Whether they are those of somebody you trust, only a signature tells.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

CPU = "CPUExecutionProvider"
MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
Json = dict[str, Any]
GRAPH_LEVELS = {
    0: "ORT_DISABLE_ALL",
    1: "ORT_ENABLE_BASIC",
    2: "ORT_ENABLE_EXTENDED",
    3: "ORT_ENABLE_LAYOUT",
    99: "ORT_ENABLE_ALL",
}


class NotVerified(Exception):
    """Something is not what it should be; the message says what."""


def check_files(root: Path, manifest: Json) -> int:
    """Compare every file below `root` with the manifest, which has to name a model; return how many there are."""
    if not manifest["candidates"]:
        raise NotVerified(f"there is no model in it: {MANIFEST} has no candidates")
    found = {
        path.relative_to(root).as_posix(): path
        for path in root.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and not is_bytecode(path)
    }
    found.pop(MANIFEST, None)
    if differing := sorted(found.keys() ^ manifest["files"].keys()):
        state = "is not in the manifest" if differing[0] in found else "is missing"
        raise NotVerified(f"{differing[0]} {state}")
    for name, expected in sorted(manifest["files"].items()):
        path = found[name]
        if path.is_symlink() or not path.is_file():
            raise NotVerified(f"{name} is not a regular file")
        if path.stat().st_size != expected["size_bytes"]:
            raise NotVerified(f"{name} has {path.stat().st_size} bytes and should have {expected['size_bytes']}")
        if sha256(path) != expected["sha256"]:
            raise NotVerified(f"{name} is not what was packaged: its SHA-256 differs")
    return len(found)


def is_bytecode(path: Path) -> bool:
    """Whether Python itself puts such a file beside a module that is imported."""
    return path.parent.name == "__pycache__" and path.suffix == ".pyc" and not path.is_symlink()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file (hex)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_model(root: Path, packaged: Json) -> str:
    """Load a packaged model and run its golden samples; return what was found in words."""
    import onnxruntime

    provider, provider_options = execution_provider(root, packaged)
    if provider not in onnxruntime.get_available_providers():
        return f"not run, because {provider} is not in this onnxruntime ({onnxruntime.__version__})"
    options = session_options(onnxruntime, root, packaged)
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = onnxruntime.InferenceSession(
            str(root / packaged["model_path"]),
            options,
            providers=[provider],
            provider_options=[provider_options],
            enable_fallback=0,
        )
        return f"loads on {provider}; {compare(session, root, packaged)}"
    except NotVerified:
        raise
    except Exception as error:
        raise NotVerified(f"it does not run on {provider}: {error}") from error


def compare(session: Any, root: Path, packaged: Json) -> str:
    """Run the golden samples and compare with what is expected; return what was found in words."""
    import numpy as np

    golden = packaged["golden_samples"]
    if golden is None:
        return "there are no golden samples to compare with"
    with np.load(root / golden["path"], allow_pickle=False) as arrays:
        inputs = {str(name): arrays[f"input_{index}"] for index, name in enumerate(arrays["input_names"])}
        expected = {str(name): arrays[f"output_{index}"] for index, name in enumerate(arrays["output_names"])}
    inputs = {name: array.astype(object) if array.dtype.kind in "US" else array for name, array in inputs.items()}
    size, total = golden["batch_size"], len(next(iter(inputs.values())))
    names = [value.name for value in session.get_outputs()]
    parts = [
        session.run(names, {name: array[start : start + size] for name, array in inputs.items()})
        for start in range(0, total, size)
    ]
    for name, wanted in expected.items():
        values = [np.asarray(part[names.index(name)]) for part in parts]
        given = np.concatenate([value if value.ndim else value[None] for value in values])[: len(wanted)]
        if given.shape != wanted.shape:
            raise NotVerified(f"the output {name!r} has the shape {given.shape} and should have {wanted.shape}")
        if wanted.dtype.kind in "fiub":
            close = np.isclose(given, wanted, rtol=golden["rtol"], atol=golden["atol"], equal_nan=True)
        else:
            close = given.astype(str) == wanted.astype(str)
        if not close.all():
            raise NotVerified(f"{int((~close).sum())} of {close.size} values of the output {name!r} are not what they were")
    return f"{len(expected)} outputs of {golden['samples']} golden samples are what they were"


def execution_provider(root: Path, packaged: Json) -> tuple[str, dict[str, str]]:
    """Return name and options of the provider that the model is meant for."""
    provider, options = settings(root, packaged)["execution_provider"][0]
    return provider, options


def session_options(onnxruntime: Any, root: Path, packaged: Json) -> Any:
    """Return the session options that the model was measured with."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for name, value in settings(root, packaged)["session_options"].items():
        if value is None:
            continue
        if name == "extra_session_config":
            for key, entry in value.items():
                options.add_session_config_entry(key, entry)
        elif name == "execution_mode":
            mode = onnxruntime.ExecutionMode
            options.execution_mode = mode.ORT_PARALLEL if value else mode.ORT_SEQUENTIAL
        elif name == "graph_optimization_level":
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, GRAPH_LEVELS[value])
        else:
            setattr(options, name, value)
    for name, size in packaged["dimensions"].items():
        options.add_free_dimension_override_by_name(name, size)
    return options


def settings(root: Path, packaged: Json) -> Any:
    """Return the content of the model's inference_config.json."""
    return json.loads((root / packaged["settings_path"]).read_text(encoding="utf-8"))


def main() -> int:
    """Check the package that this file lies in, or the unpacked one that is named."""
    parser = argparse.ArgumentParser(description="Check every file and model of this package.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent, help="the unpacked package")
    root = parser.parse_args().folder
    sys.dont_write_bytecode = True
    is_good = True
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        print(f"{check_files(root, manifest)} files are what the manifest says")
    except (OSError, ValueError, KeyError, TypeError, NotVerified) as error:
        print(f"NOT VERIFIED: {error}")
        return 1
    for packaged in manifest["candidates"]:
        try:
            print(f"{packaged['model_path']}: {check_model(root, packaged)}")
        except (NotVerified, ImportError) as error:
            is_good = False
            print(f"NOT VERIFIED: {packaged['model_path']}: {error}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
