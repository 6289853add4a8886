"""Tournaments as tasks of real runs against a real Prefect API: what is taken from earlier runs, and what is shown."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from typer.testing import CliRunner

from flows.cli import app
from flows.package_models import package_models
from packhouse.artifacts import ArtifactStore
from packhouse.config import load_config
from packhouse.evaluation import device_lock as lock_module
from packhouse.evaluation.timing import Timed, TimingOutcome
from packhouse.evaluation.tournament import Standing
from packhouse.release import Release
from tasks import time as tasks_time
from tasks.time import standing_text
from tests.classifiers import write_classifier
from tests.jobs import write_job

SPEC = "cpu-cpu"
module: Any = tasks_time
NAMES = ["turned-0.0", "turned-0.5"]
Spoil = Callable[[TimingOutcome], TimingOutcome]


@pytest.fixture(scope="module", autouse=True)
def api() -> Iterator[None]:
    """A Prefect API with a database of its own."""
    with prefect_test_harness(server_startup_timeout=240):
        yield


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TimingOutcome]]:
    """The tournaments that were really held; results and locks lie in a folder of the test's own."""
    outcomes: list[TimingOutcome] = []
    plain = module.time_candidates

    def hold(*arguments: Any, **named: Any) -> TimingOutcome:
        outcomes.append(plain(*arguments, **named))
        return outcomes[-1]

    (tmp_path / "locks").mkdir()
    monkeypatch.setattr(lock_module, "LOCK_FOLDER", tmp_path / "locks")
    monkeypatch.setattr(module, "time_candidates", hold)
    monkeypatch.setattr(module, "SHOWN_EVERY_S", 0.0)
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "storage"}):
        yield outcomes


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A job of two candidates with one thread, which makes no packages."""
    accelerators = [{"session_options": {"intra_op_num_threads": 1}}]
    return write_job(tmp_path, packaging=[], accelerators=accelerators, timing={"seconds_per_candidate": 5.0})


def run(config: Path) -> Release:
    """Run a job to its end."""
    flow: Any = package_models
    state = asyncio.run(flow(load_config(config), return_state=True))
    release: Release = asyncio.run(state.aresult(raise_on_failure=False))
    return release


def planned(config: Path) -> list[dict[str, Any]]:
    """Return what `packhouse plan` says of tournaments."""
    result = CliRunner().invoke(app, ["plan", str(config), "--json"])
    assert result.exit_code == 0, result.stderr
    timings: list[dict[str, Any]] = json.loads(result.stdout)["timings"]
    return timings


def told(config: Path) -> str:
    """Return the line of `packhouse plan` about the tournament."""
    lines = CliRunner().invoke(app, ["plan", str(config)]).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("timing on")]
    return line


def plan_entry(candidates: list[str] | None, is_cached: bool | None) -> list[dict[str, Any]]:
    return [{"accelerator": SPEC, "candidates": candidates, "is_cached": is_cached}]


def shown(key: str) -> Any:
    """Return the latest artifact under a key of the Prefect API."""

    async def read() -> Any:
        async with get_client() as client:
            response = await client._client.get(f"/artifacts/{key}/latest")
            return response.json()

    return asyncio.run(read())


def keep_calm(outcome: TimingOutcome) -> TimingOutcome:
    """Return an outcome that was not disturbed, whatever else the machine does."""
    state = "decided" if outcome.summary.state == "unstable" else outcome.summary.state
    return outcome.model_copy(update={"summary": outcome.summary.model_copy(update={"state": state})})


@pytest.fixture
def spoil(held: list[TimingOutcome], monkeypatch: pytest.MonkeyPatch) -> Callable[[Spoil], None]:
    """A function that changes what comes of a tournament."""
    plain = module.time_candidates

    def use(change: Spoil) -> None:
        monkeypatch.setattr(module, "time_candidates", lambda *arguments, **named: change(plain(*arguments, **named)))

    use(keep_calm)
    return use


def test_a_tournament_that_was_held_is_taken_by_the_next_run_and_the_plan_says_so(
    held: list[TimingOutcome], spoil: Callable[[Spoil], None], config: Path
) -> None:
    assert planned(config) == plan_entry(None, None)
    assert told(config) == "timing on cpu-cpu (after evaluation): the candidates that reach the other goals, together"

    first = run(config)
    assert len(held) == 1
    assert planned(config) == plan_entry(NAMES, True)
    assert told(config) == "timing on cpu-cpu (cached): 2 candidates, together"

    second = run(config)
    assert len(held) == 1
    assert second.job == first.job
    assert list(first.job.tournaments) == [SPEC]
    assert first.job.tournaments[SPEC].ended_ns == held[0].summary.ended_ns
    assert all("latency-p50" in item.metrics for item in first.job.evaluations)


def test_one_more_candidate_is_another_tournament_of_all(
    held: list[TimingOutcome], spoil: Callable[[Spoil], None], config: Path
) -> None:
    run(config)
    write_classifier(config.parent / "candidates" / "new.onnx", error=0.2)
    assert planned(config) == plan_entry(None, None)

    run(config)

    assert [len(outcome.candidates) for outcome in held] == [2, 3]


def test_who_misses_another_goal_is_not_timed(held: list[TimingOutcome], spoil: Callable[[Spoil], None], config: Path) -> None:
    document = json.loads(config.read_text())
    document["metrics"][0]["sub_types"][0]["goal"] = {"type": "threshold", "value": 0.99}
    document["metrics"][1]["sub_types"][0]["goal"] = {"type": "threshold", "value": 1e6}
    config.write_text(json.dumps(document))
    accuracies = {item.candidate: item.values["accuracy-accuracy_score"] for item in run(config).job.evaluations}

    assert min(accuracies.values()) < 0.99
    reached = [name for name, value in zip(NAMES, accuracies.values(), strict=True) if value >= 0.99]
    assert [len(outcome.candidates) for outcome in held] == ([len(reached)] if reached else [])
    assert planned(config) == (plan_entry(reached, True) if reached else [])


@pytest.mark.parametrize("damage", ["samples", "rounds", "truncated"])
def test_a_tournament_whose_files_are_damaged_is_held_again(
    held: list[TimingOutcome], spoil: Callable[[Spoil], None], config: Path, tmp_path: Path, damage: str
) -> None:
    run(config)
    samples = held[0].candidates[0].samples
    assert samples
    path = ArtifactStore(tmp_path / "storage").path((held[0].rounds if damage == "rounds" else samples).sha256)
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    assert planned(config) == plan_entry(NAMES, False)
    assert told(config) == "timing on cpu-cpu (to do): 2 candidates, together"

    run(config)

    assert len(held) == 2
    assert planned(config) == plan_entry(NAMES, True)


def unstable(outcome: TimingOutcome) -> TimingOutcome:
    return outcome.model_copy(update={"summary": outcome.summary.model_copy(update={"state": "unstable", "cause": "make"})})


def one_failed(outcome: TimingOutcome) -> TimingOutcome:
    first, second = keep_calm(outcome).candidates
    return keep_calm(outcome).model_copy(update={"candidates": (first, Timed(candidate=second.candidate, failure="it hung"))})


@pytest.mark.parametrize("change", [unstable, one_failed])
def test_a_tournament_that_was_disturbed_or_in_which_one_failed_is_held_again(
    held: list[TimingOutcome], spoil: Callable[[Spoil], None], config: Path, change: Spoil
) -> None:
    spoil(change)
    release = run(config)
    assert [item.tournament is None for item in release.job.evaluations] == [change is unstable] * 2
    assert [item.failure for item in release.job.evaluations] == [None, None if change is unstable else "it hung"]
    assert planned(config) == plan_entry(NAMES, False)
    spoil(keep_calm)

    run(config)

    assert len(held) == 2
    assert planned(config) == plan_entry(NAMES, True)


def test_a_tournament_is_shown_while_it_is_held_and_afterwards(
    held: list[TimingOutcome], spoil: Callable[[Spoil], None], config: Path
) -> None:
    descriptions: list[str] = []
    plain = module.update_progress_artifact

    def update(artifact: Any, progress: float, description: str) -> Any:
        descriptions.append(description)
        return plain(artifact, progress, description)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "update_progress_artifact", update)
        run(config)

    progress, table = shown("timing-cpu-cpu"), shown("timings-cpu-cpu")
    outcome = keep_calm(held[0])
    summary = outcome.summary
    done = f"done: {summary.state} after {summary.rounds} rounds" + (f", {summary.cause}" if summary.cause else "")
    assert (progress["type"], progress["data"], progress["description"]) == ("progress", 100.0, f"Timing on cpu-cpu {done}")
    assert (table["type"], table["description"]) == ("table", f"Latency and throughput on cpu-cpu: {done}")
    rows = json.loads(table["data"])
    assert [row["candidate"] for row in rows] == NAMES
    assert [row["runs"] for row in rows] == [item.metrics["latency-p50"].n for item in outcome.candidates]
    assert all("latency-p50 (ms)" in row and not row["failure"] for row in rows)
    assert len(descriptions) >= 2
    assert all(f"of 2 decided after {30} rounds; best turned-0." in text for text in descriptions[:1])


@pytest.mark.parametrize(
    ("state", "interval", "text"),
    [
        ("measuring", (12.1, 12.5), "12.3 ± 0.2 ms, measuring (round 40)"),
        ("decided", (12.1, 12.5), "12.3 ± 0.2 ms, decided (round 40)"),
        ("left", None, "12.3 ms, decided, out (round 40)"),
    ],
)
def test_a_standing_is_told_in_words(state: Any, interval: tuple[float, float] | None, text: str) -> None:
    standing = Standing(candidate="a", estimate=12.3, interval=interval, unit="ms", state=state, round=40)

    assert standing_text(standing) == text
