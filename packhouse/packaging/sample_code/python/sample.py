"""Run a model of this package on its sample input and compare the outputs with the expected ones.

usage: python sample.py [PACKAGE_FOLDER [MODEL_PATH]]; by default the package around this file, and its best model.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

CPU = "CPUExecutionProvider"
DTYPES = ("float32", "float64", "float16", "int8", "int32", "int64", "uint8", "bool", "str")
ENUMS = {"execution_mode": ort.ExecutionMode, "graph_optimization_level": ort.GraphOptimizationLevel}


def main(package: Path, model_path: str = "") -> int:
    """Run one model of the package; return 0 where every output is as expected, else 1."""
    config = find_model(json.loads((package / "models_rank.json").read_text("utf-8")), model_path)
    sample = json.loads((package / "SampleCode" / "sample_input.json").read_text("utf-8"))
    session = create_session(package / config["model_path"], config.get("inference_settings") or {})
    print(f"{config['model_path']} on {', '.join(session.get_providers())}, onnxruntime {ort.__version__}")
    expected = {name: to_array(tensor) for name, tensor in sample["outputs"].items()}
    names = list(expected) or [output.name for output in session.get_outputs()]
    values = session.run(names, {name: to_array(tensor) for name, tensor in sample["inputs"].items()})
    status = 0
    for name, output in zip(names, map(np.asarray, values), strict=True):
        problem = difference(output, expected[name], **sample["tolerance"]) if expected else "nothing to compare with"
        print(f"{name}: {output.dtype} {list(output.shape)} {output.ravel()[:5].tolist()}: {problem or 'as expected'}")
        status |= bool(expected and problem)
    return status


def find_model(entries: list[dict[str, Any]], model_path: str) -> dict[str, Any]:
    """Return the configuration of the model at `model_path`; without one, that of the first, which is the best."""
    for config in (entry["model_config"]["config"] for entry in entries):
        if model_path in ("", config["model_path"]):
            return dict(config)
    raise SystemExit(f"models_rank.json has no model {model_path or 'at all'}")


def create_session(model: Path, settings: dict[str, Any]) -> ort.InferenceSession:
    """Create a session with the settings that the model was graded with; one that falls back to the CPU is refused."""
    providers, available = settings.get("execution_provider") or [CPU], ort.get_available_providers()
    if missing := set(providers) - set(available):
        raise SystemExit(f"this onnxruntime has no {', '.join(missing)}; it has {', '.join(available)}")
    options = ort.SessionOptions()
    chosen = {name: value for name, value in (settings.get("session_options") or {}).items() if value is not None}
    only = {} if CPU in providers else {"session.disable_cpu_ep_fallback": "1"}
    for key, value in (chosen.pop("extra_session_config", {}) | only).items():
        options.add_session_config_entry(key, value)
    for name, value in chosen.items():
        setattr(options, name, ENUMS.get(name, int)(value))
    session = ort.InferenceSession(model, options, providers, settings.get("provider_options"))
    session.disable_fallback()
    if missing := set(providers) - set(session.get_providers()):
        raise SystemExit(f"{', '.join(missing)} could not be loaded; see onnxruntime's messages above")
    return session


def to_array(tensor: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Make an array of a tensor in sample_input.json."""
    if tensor["dtype"] not in DTYPES:
        raise SystemExit(f"this sample cannot handle a tensor of {tensor['dtype']}; it can handle {', '.join(DTYPES)}")
    return np.array(tensor["data"], object if tensor["dtype"] == "str" else tensor["dtype"]).reshape(tensor["shape"])


def difference(output: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], atol: float, rtol: float) -> str:
    """Say how an output differs from the expected one; nothing where it does not. Strings must be the same."""
    if output.shape != expected.shape:
        return f"not as expected: the shape should be {list(expected.shape)}"
    same = np.equal(output, expected) if expected.dtype == object else np.isclose(output, expected, rtol, atol)
    return "" if same.all() else f"not as expected: {output[~same][0]} should be {expected[~same][0]}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2], *sys.argv[2:]))
