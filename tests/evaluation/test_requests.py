"""The address of an evaluation: it changes with everything that is measured, how and where, and with nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packhouse.artifacts import ArtifactStore
from packhouse.evaluation import records
from packhouse.evaluation.records import EvaluationRequest
from tests.classifiers import write_classifier, write_points
from tests.evaluation.models import requests_for

Document = dict[str, Any]
Change = Callable[[Document, Path], None]


@pytest.fixture
def document(tmp_path: Path) -> Document:
    """A configuration with a metric of every kind that has settings."""
    write_classifier(tmp_path / "models" / "a.onnx")
    (tmp_path / "mine.py").write_text("def mine(outputs, labels):\n    return 1.0\n")
    function = {"function": f"{tmp_path / 'mine.py'}:mine"}
    return {
        "candidates": {"type": "list", "models": [{"name": "a", "path": str(tmp_path / "models" / "a.onnx")}]},
        "data": {"path": str(write_points(tmp_path / "data.npz")), "labels": "label"},
        "accelerators": [{"device": "cpu", "execution_provider": "CPUExecutionProvider"}],
        "metrics": [
            {
                "name": "f1",
                "type": "accuracy",
                "sub_types": [{"name": "f1", "priority": 1, "metric_config": {"average": "micro"}}],
            },
            {
                "name": "time",
                "type": "latency",
                "sub_types": [{"name": "p50", "priority": 2, "metric_config": {"warmup_num": 20}}],
            },
            {"name": "mine", "type": "custom", "sub_types": [{"name": "m", "higher_is_better": True}], "user_config": function},
        ],
    }


def key_of(document: Document, store: ArtifactStore, folder: Path) -> str:
    changed = json.loads(json.dumps(document))
    (request,) = requests_for(folder, store, *changed.pop("metrics"), **changed)
    return request.key


def replace_model(document: Document, folder: Path) -> None:
    write_classifier(folder / "models" / "a.onnx", error=0.1)


def replace_data(document: Document, folder: Path) -> None:
    write_points(folder / "data.npz", 91)


def replace_function(document: Document, folder: Path) -> None:
    (folder / "mine.py").write_text("def mine(outputs, labels):\n    return 2.0\n")


def set_in(*path: Any, to: Any) -> Change:
    """Return a change of one setting of the configuration."""

    def change(document: Document, folder: Path) -> None:
        *parents, last = path
        target: Any = document
        for part in parents:
            target = target[part]
        target[last] = to

    return change


def move_everything(document: Document, folder: Path) -> None:
    shutil.move(folder / "models", folder / "elsewhere")
    shutil.move(folder / "data.npz", folder / "elsewhere" / "samples.npz")
    document["candidates"]["models"][0]["path"] = str(folder / "elsewhere" / "a.onnx")
    document["data"]["path"] = str(folder / "elsewhere" / "samples.npz")


SUB_TYPE = ("metrics", 0, "sub_types", 0)
CHANGES_IT: dict[str, Change] = {
    "candidate": replace_model,
    "settings of the candidate": set_in("candidates", "models", 0, "session_options", to={"intra_op_num_threads": 1}),
    "data": replace_data,
    "code of the function": replace_function,
    "device": set_in("accelerators", 0, "device", to="gpu"),
    "provider": set_in("accelerators", 0, "execution_provider", to="OpenVINOExecutionProvider"),
    "provider options": set_in("accelerators", 0, "provider_options", to={"device_id": "1"}),
    "runtime": set_in("accelerators", 0, "runtime", to="onnxruntime==1.31.0"),
    "session options": set_in("accelerators", 0, "session_options", to={"intra_op_num_threads": 2}),
    "sub type": set_in(*SUB_TYPE, "name", to="recall"),
    "metric settings": set_in(*SUB_TYPE, "metric_config", to={"average": "macro"}),
    "batch size": set_in("data", "batch_size", to=8),
    "timing batch size": set_in("data", "timing_batch_size", to=8),
    # The results are stored under the metrics' names.
    "metric name": set_in("metrics", 0, "name", to="quality"),
}
LEAVES_IT: dict[str, Change] = {
    "candidate name": set_in("candidates", "models", 0, "name", to="b"),
    "places of the files": move_everything,
    "priority": set_in(*SUB_TYPE, "priority", to=3),
    "no priority": set_in(*SUB_TYPE, "priority", to=-1),
    "goal": set_in(*SUB_TYPE, "goal", to={"type": "threshold", "value": 0.5}),
    "tolerance": set_in(*SUB_TYPE, "tolerance", to="2%"),
    "direction": set_in(*SUB_TYPE, "higher_is_better", to=False),
    "baseline": set_in("baseline", to="a"),
    "output folder": set_in("output_dir", to="elsewhere"),
    # Timing is a matter of the tournament.
    "timed sub type": set_in("metrics", 1, "sub_types", 0, "name", to="p95"),
    "warm-up": set_in("metrics", 1, "sub_types", 0, "metric_config", to={"warmup_num": 30}),
    "runs": set_in("metrics", 1, "sub_types", 0, "metric_config", to={"warmup_num": 20, "repeat_test_num": 200}),
    "time to measure": set_in("timing", to={"seconds_per_candidate": 3.0}),
    "binding": set_in("timing", to={"io_binding": True}),
}


def test_the_same_configuration_has_the_same_key(document: Document, store: ArtifactStore, tmp_path: Path) -> None:
    first = key_of(document, store, tmp_path)

    assert first == key_of(document, store, tmp_path)
    assert first.startswith("evaluation-")


@pytest.mark.parametrize("changed", CHANGES_IT)
def test_what_is_measured_how_and_where_changes_the_key(
    document: Document, store: ArtifactStore, tmp_path: Path, changed: str
) -> None:
    before = key_of(document, store, tmp_path)

    CHANGES_IT[changed](document, tmp_path)

    assert key_of(document, store, tmp_path) != before


@pytest.mark.parametrize("changed", LEAVES_IT)
def test_names_places_and_what_is_made_of_the_numbers_leave_the_key(
    document: Document, store: ArtifactStore, tmp_path: Path, changed: str
) -> None:
    before = key_of(document, store, tmp_path)

    LEAVES_IT[changed](document, tmp_path)

    assert key_of(document, store, tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"cpu_model": "another"},
        {"cpu_count": 1000},
        {"runtime_version": "0.1"},
        {"runtime": "onnxruntime-gpu"},
        {"libraries": {"onnxruntime-qnn": "2.7.0"}},
    ],
)
def test_another_machine_or_runtime_changes_the_key(
    document: Document, store: ArtifactStore, tmp_path: Path, change: dict[str, Any]
) -> None:
    metrics = document.pop("metrics")
    (request,) = requests_for(tmp_path, store, *metrics, **document)

    elsewhere = request.model_copy(update={"fingerprint": request.fingerprint.model_copy(update=change)})

    assert isinstance(elsewhere, EvaluationRequest)
    assert elsewhere.key != request.key


def test_another_way_of_measuring_changes_the_key(
    document: Document, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key_of(document, store, tmp_path)
    monkeypatch.setattr(records, "PROTOCOL_VERSION", records.PROTOCOL_VERSION + 1)

    assert key_of(document, store, tmp_path) != before
