"""Settings of a session are applied by three scripts that stand alone: all three have to make the same session of them.

The scripts are the worker that measures, the server in an image, and the `verify.py` in a package. They really create their
sessions here; what each gave to ONNX Runtime is read back from it.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import onnxruntime
import pytest

from packhouse.accelerators import SessionOptions
from packhouse.candidates import MODEL_NAME, lay_out
from packhouse.evaluation.sessions import session_arguments
from packhouse.evaluation.worker import Refused, Worker
from packhouse.packaging import verify
from packhouse.packaging.candidate_files import SETTINGS_NAME
from packhouse.packaging.contents import Content
from packhouse.packaging.inference_server.model import Model, Unservable
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.olive_files import inference_config
from tests.inference_servers import write_served_model
from tests.packaging_jobs import EXACT, Packing, make_packing

FALLBACK_ENTRY = "session.disable_cpu_ep_fallback"
ENTRIES = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
# What an accelerator sets, with what of it onnxruntime is to have; all else is as in DEFAULTS.
AZURE = "AzureExecutionProvider"  # is in every onnxruntime and takes no node of ours
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "sequential": ({"session_options": {"execution_mode": 0}}, {"execution_mode": "ORT_SEQUENTIAL"}),
    "parallel": ({"session_options": {"execution_mode": 1}}, {"execution_mode": "ORT_PARALLEL"}),
    **{
        f"graph level {level}": ({"session_options": {"graph_optimization_level": level}}, {"graph_optimization_level": name})
        for level, name in (
            (0, "ORT_DISABLE_ALL"),
            (1, "ORT_ENABLE_BASIC"),
            (2, "ORT_ENABLE_EXTENDED"),
            (3, "ORT_ENABLE_LAYOUT"),
            (99, "ORT_ENABLE_ALL"),
        )
    },
    "threads within": ({"session_options": {"intra_op_num_threads": 2}}, {"intra_op_num_threads": 2}),
    "threads between": ({"session_options": {"inter_op_num_threads": 3}}, {"inter_op_num_threads": 3}),
    "entries": ({"session_options": {"extra_session_config": ENTRIES}}, ENTRIES),
    "dimensions": ({"dimensions": {"n": 3}}, {"shapes": [[3, 2]]}),
    "another provider": (
        {"execution_provider": AZURE, "provider_options": {"device_id": 0, "mode": "fast"}},
        {"providers": [AZURE], "provider_options": [{"device_id": "0", "mode": "fast"}], FALLBACK_ENTRY: "1", "shapes": None},
    ),
    "all": (
        {
            "execution_provider": AZURE,
            "provider_options": {"device_id": 1},
            "session_options": {
                "execution_mode": 1,
                "graph_optimization_level": 2,
                "inter_op_num_threads": 2,
                "intra_op_num_threads": 1,
                "extra_session_config": ENTRIES,
            },
        },
        {
            "providers": [AZURE],
            "provider_options": [{"device_id": "1"}],
            "execution_mode": "ORT_PARALLEL",
            "graph_optimization_level": "ORT_ENABLE_EXTENDED",
            "inter_op_num_threads": 2,
            "intra_op_num_threads": 1,
            FALLBACK_ENTRY: "1",
            "shapes": None,
            **ENTRIES,
        },
    ),
}
DEFAULTS: dict[str, Any] = {
    "execution_mode": "ORT_SEQUENTIAL",
    "graph_optimization_level": "ORT_ENABLE_ALL",
    "inter_op_num_threads": 0,
    "intra_op_num_threads": 0,
    "log_severity_level": 3,
    "providers": ["CPUExecutionProvider"],
    "provider_options": [{}],
    "is_retried_on_the_cpu": False,
    "shapes": [["n", 2]],
    FALLBACK_ENTRY: None,
    **dict.fromkeys(ENTRIES),
}
NAMES = ("execution_mode", "graph_optimization_level", "inter_op_num_threads", "intra_op_num_threads", "log_severity_level")


class RecordedSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session that keeps what every one of its kind was made with."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, path: str, options: Any, providers: Any, provider_options: Any, **others: Any) -> None:
        """Keep what was given, and as `shapes` what the inputs then are; None where no session came of it."""
        record = {
            **{name: getattr(options, name) for name in NAMES},
            **{key: _entry(options, key) for key in (FALLBACK_ENTRY, *ENTRIES)},
            "providers": providers,
            "provider_options": provider_options,
            "is_retried_on_the_cpu": others.get("enable_fallback", 1) == 1,
            "shapes": None,
        }
        self.made.append({key: getattr(value, "name", value) for key, value in record.items()})
        super().__init__(path, options, providers=providers, provider_options=provider_options, **others)
        self.made[-1]["shapes"] = [value.shape for value in self.get_inputs()]


def _entry(options: Any, key: str) -> str | None:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:  # is not set
        return None


def measure(packing: Packing, folder: Path, packaged: PackagedCandidate) -> None:
    (accelerator,) = packing.job.accelerators
    candidate = packing.candidate(EXACT)
    with suppress(Refused):
        Worker().create_session(**session_arguments(accelerator, candidate.settings, folder / packaged.model_path))


def serve(packing: Packing, folder: Path, packaged: PackagedCandidate) -> None:
    with suppress(Unservable):
        Model(folder)


def check(packing: Packing, folder: Path, packaged: PackagedCandidate) -> None:
    with suppress(verify.NotVerified):
        verify.check_model(folder, packaged.model_dump(mode="json"))


@pytest.mark.parametrize("script", [measure, serve, check])
@pytest.mark.parametrize(("accelerator", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_the_worker_the_server_and_the_verifier_make_the_same_session(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    script: Callable[[Packing, Path, PackagedCandidate], None],
    accelerator: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    spec = "cpu-azure" if "execution_provider" in accelerator else "cpu-cpu"
    packing = make_packing(tmp_path, {spec: {EXACT: (0.9, 1.0)}}, accelerators=[{"device": "cpu", **accelerator}])
    packaged = PackagedCandidate.of(
        packing.job,
        packing.job.best,
        packing.job.best,
        model_path=MODEL_NAME,
        settings_path=SETTINGS_NAME,
        golden_path="none",
    ).model_copy(update={"golden_samples": None})
    model = lay_out(packing.candidate(EXACT), packing.workplace.store, packing.workplace.scratch, MODEL_NAME)
    folder = write_served_model(tmp_path / "served", model, dimensions=packaged.dimensions)
    settings = Content.of_json(inference_config(packing.job, packing.job.best)).source
    assert isinstance(settings, bytes)
    (folder / SETTINGS_NAME).write_bytes(settings)
    monkeypatch.setattr(RecordedSession, "made", [])
    monkeypatch.setattr(onnxruntime, "InferenceSession", RecordedSession)

    script(packing, folder, packaged)

    assert RecordedSession.made[0] == {**DEFAULTS, **expected}


def test_every_session_option_is_among_the_settings_above() -> None:
    covered = {name for settings, _ in SETTINGS.values() for name in settings.get("session_options", {})}
    assert covered == SessionOptions.model_fields.keys()
