"""Take over a whole Olive configuration: its packaging, metrics, accelerators, and the output that it left.

What only Packhouse knows can stand beside Olive's keys in the same file: `candidates`, `data`, `accelerators`, `metrics`,
`baseline` and `packaging` win over what is derived. Olive's data configurations are PyTorch code and cannot be taken over;
give `data` instead.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packhouse.errors import InputError, Problem

OLIVE_ONLY = {"input_model", "passes", "pass_flows", "engine", "systems", "packaging_config"}
OWN_KEYS = ("candidates", "data", "accelerators", "metrics", "baseline", "packaging", "timing", "objective", "weights")
INPUT_MODEL = "input_model"


def is_olive_config(document: Mapping[str, Any]) -> bool:
    """Whether a document is an Olive configuration, with or without additions for Packhouse."""
    return bool(OLIVE_ONLY & document.keys())


def from_olive(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the Packhouse configuration that an Olive configuration stands for.

    Raises:
        InputError: it has no evaluator to grade by, or a key that is almost one of ours.
    """
    _refuse_near_misses(document, path)
    engine = _mapping(document, "engine", path)
    derived: dict[str, Any] = {
        "candidates": {"type": "olive", "path": document.get("output_dir") or engine.get("output_dir") or "."},
        "metrics": document.get("metrics") or _metrics(document, engine, path),
        "packaging": packaging_of(document, path),
    }
    if accelerators := list(_accelerators(document, engine, path)):
        derived["accelerators"] = accelerators
    model = _mapping(document, "input_model", path)
    model_path = model.get("model_path") or _mapping(model, "config", path).get("model_path")
    if "candidates" not in document and isinstance(model_path, str) and (path.parent / model_path).is_file():
        derived["candidates"]["input_model"] = model_path
        derived["baseline"] = INPUT_MODEL
    return derived | {key: document[key] for key in OWN_KEYS if key in document}


def _refuse_near_misses(document: Mapping[str, Any], path: Path) -> None:
    """Refuse a key that is almost one of ours; others are Olive's business, which has had many."""
    problems = [
        Problem(f"{path}: {key}", "is almost a key of Packhouse, and none of Olive's", f"did you mean {close[0]!r}?")
        for key in document
        if key not in OWN_KEYS and key not in OLIVE_ONLY
        if (close := difflib.get_close_matches(str(key), OWN_KEYS, 1, cutoff=0.8))
    ]
    if problems:
        raise InputError(problems)


def packaging_of(document: Mapping[str, Any], path: Path) -> Any:
    """Return the ``packaging_config`` of an Olive configuration, or an empty list."""
    return document.get("packaging_config") or _mapping(document, "engine", path).get("packaging_config") or []


def _metrics(document: Mapping[str, Any], engine: Mapping[str, Any], path: Path) -> Any:
    evaluator = document.get("evaluator") or engine.get("evaluator")
    if isinstance(evaluator, str):
        evaluator = _named(document.get("evaluators"), evaluator)
    metrics = evaluator.get("metrics") if isinstance(evaluator, Mapping) else None
    if not metrics:
        raise InputError.at(
            f"{path}: evaluator",
            "names no evaluator with metrics to grade by",
            "add one, with a priority for each ranked metric",
        )
    return metrics


def _accelerators(document: Mapping[str, Any], engine: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    target = document.get("target") or engine.get("target")
    system = _named(document.get("systems"), target) if isinstance(target, str) else target
    if not isinstance(system, Mapping):
        return
    where = f"{path}: accelerators"
    accelerators = system.get("accelerators") or _mapping(system, "config", path).get("accelerators") or []
    for accelerator in _checked(accelerators, list, where):
        listed = _checked(accelerator, Mapping, where).get("execution_providers") or ["CPUExecutionProvider"]
        for provider in _checked(listed, list, f"{where}.execution_providers"):
            name, options = provider if isinstance(provider, list) and len(provider) == 2 else (provider, {})
            yield {
                "device": accelerator.get("device") or "cpu",
                "execution_provider": name,
                "provider_options": options or {},
            }


def _named(entries: Any, name: str) -> Any:
    """Return an entry of Olive's named things, which are an object by name or a list of objects with names."""
    if isinstance(entries, Mapping):
        return entries.get(name)
    several = entries if isinstance(entries, list) else []
    return next((entry for entry in several if isinstance(entry, Mapping) and entry.get("name") == name), None)


def _mapping(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    mapping: Mapping[str, Any] = _checked(document.get(key) or {}, Mapping, f"{path}: {key}")
    return mapping


def _checked(value: Any, wanted: type[Any], where: str) -> Any:
    if not isinstance(value, wanted):
        article = "a list" if wanted is list else "an object"
        raise InputError.at(where, f"has {value!r}, and Olive since 0.7 has {article} there", "mend the file")
    return value
