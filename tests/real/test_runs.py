"""Whole runs against a real Prefect server: what is measured again, what survives a kill, what is shared by accident."""

import contextlib
import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from packhouse.artifacts import measure
from packhouse.evaluation.session_host import WORKER
from packhouse.provenance.config import PROVENANCE_SUFFIX, RUN_SUFFIX
from packhouse.release import RELEASE_NAME, REPORT_NAME, Release, read_release
from packhouse.verification import verify_package
from tests.classifiers import write_classifier
from tests.jobs import write_job
from tests.real.conftest import Packhouse, Server

pytestmark = pytest.mark.real


def test_a_run_without_any_server_packs_verified_models_and_leaves_no_process_behind(
    packhouse_alone: Packhouse, tmp_path: Path
) -> None:
    output = packhouse_alone.run("run", write_job(tmp_path))
    assert "Ranking on cpu-cpu" in output
    assert len(verify_package(tmp_path / "packages" / "points.zip").models) == 2
    assert (tmp_path / "packages" / "report.html").stat().st_size > 10_000
    assert not processes("environ", str(packhouse_alone.results.parent))


def test_a_second_run_measures_nothing_and_one_more_candidate_measures_one(
    packhouse: Packhouse, server: Server, tmp_path: Path
) -> None:
    config = write_job(tmp_path)
    first = packhouse.release(config)
    began = now()
    second = packhouse.release(config)
    assert server.count_evaluations(began) == {"Cached": 2}
    assert second["job"] == first["job"]
    assert read(second).packages == read(first).packages
    write_classifier(tmp_path / "candidates" / "new.onnx", error=0.2)
    planned = json.loads(packhouse.run("plan", config, "--json"))["evaluations"]
    assert {item["candidate"] for item in planned if not item["is_cached"]} == {"new"}
    began = now()
    packhouse.release(config)
    assert server.count_evaluations(began) == {"Cached": 2, "Completed": 1}


def test_a_changed_priority_measures_nothing_and_ranks_anew(packhouse: Packhouse, server: Server, tmp_path: Path) -> None:
    config = write_job(tmp_path, packaging=[])
    packhouse.release(config)
    document = json.loads(config.read_text())
    document["metrics"][0]["sub_types"][0]["priority"] = 3
    config.write_text(json.dumps(document))
    began = now()
    release = packhouse.release(config)
    assert server.count_evaluations(began) == {"Cached": 2}
    assert "latency-p50" in release["job"]["overall"]["ranked"][0]["decided_by"]


def test_what_was_finished_before_a_kill_is_not_measured_again(packhouse: Packhouse, server: Server, tmp_path: Path) -> None:
    config = write_slow_job(tmp_path, 1.0, errors=(0.0, 0.1, 0.2, 0.3), packaging=[])
    run = packhouse.start("run", config)
    wait_until(lambda: evaluations_in(packhouse) or run.poll() is not None)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    finished = evaluations_in(packhouse)
    assert 1 <= finished < 4
    began = now()
    packhouse.release(config)
    assert server.count_evaluations(began) == {"Cached": finished, "Completed": 4 - finished}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_soon_and_leaves_no_process_behind(
    packhouse_alone: Packhouse, tmp_path: Path, number: int, code: int
) -> None:
    run = packhouse_alone.start("run", write_slow_job(tmp_path, 20.0, errors=(0.0, 0.1)))
    wait_until(lambda: len(workers_of(run.pid)) == 2)
    time.sleep(2)
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == code, errors
    assert "what is finished is kept" in errors
    assert "Traceback" not in errors
    wait_until(lambda: not processes("environ", str(packhouse_alone.results.parent)), timeout_s=20)
    assert not (tmp_path / "packages").exists()


def test_two_runs_at_once_in_one_folder_both_complete(packhouse: Packhouse, tmp_path: Path) -> None:
    config = write_job(tmp_path)
    runs = [packhouse.start("run", config, "--json") for _ in range(2)]
    releases = [json.loads(run.communicate(timeout=300)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert releases[0]["flow_run"] != releases[1]["flow_run"]
    assert len(verify_package(tmp_path / "packages" / "points.zip").models) == 2
    (published,) = read_release(tmp_path / "packages").packages
    assert measure(tmp_path / "packages" / "points.zip").sha256 == published.digest
    left = sorted(path.name for path in (tmp_path / "packages").iterdir())
    assert left == [
        "points.zip",
        *(f"points.zip{suffix}" for suffix in (PROVENANCE_SUFFIX, RUN_SUFFIX)),
        RELEASE_NAME,
        REPORT_NAME,
    ]


def test_two_runs_at_once_with_results_of_their_own_time_one_after_the_other(packhouse: Packhouse, tmp_path: Path) -> None:
    plain, runs = packhouse.environment, []
    jobs = {"one": write_slow_job(tmp_path / "one", 12.0, errors=(0.0, 0.1)), "other": write_job(tmp_path / "other")}
    for name, config in jobs.items():
        packhouse.environment = {**plain, "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(tmp_path / name / "results")}
        runs.append(packhouse.start("run", config, "--json"))
        if name == "one":
            wait_until_timed(runs[0])
    (output, _), (later_output, said) = [run.communicate(timeout=500) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert "waiting for the device" in said
    first, later = [json.loads(text)["job"]["tournaments"]["cpu-cpu"] for text in (output, later_output)]
    assert first["began_ns"] < first["ended_ns"] <= later["began_ns"] < later["ended_ns"]


def test_a_candidate_whose_process_is_killed_is_one_failed_evaluation(packhouse: Packhouse, tmp_path: Path) -> None:
    config = write_slow_job(tmp_path, 3.0, errors=(0.0, 0.1, 0.2))
    run = packhouse.start("run", config, "--json")
    wait_until_timed(run)
    assert len(workers_of(run.pid)) == 3
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    release = json.loads(run.communicate(timeout=300)[0])
    assert run.returncode == 0
    failed = release["job"]["overall"]["unranked"]
    assert [item["status"] for item in failed] == ["failed"]
    assert "SIGKILL" in failed[0]["reason"]
    assert len(release["job"]["overall"]["ranked"]) == 2


def test_an_absent_accelerator_fails_the_run_with_its_reason_and_the_other_is_packed(
    packhouse: Packhouse, tmp_path: Path
) -> None:
    accelerators = [{"device": "cpu"}, {"device": "gpu", "execution_provider": "CUDAExecutionProvider"}]
    release = packhouse.release(write_job(tmp_path, accelerators=accelerators), code=3)
    failed = release["job"]["by_accelerator"]["gpu-cuda"]["unranked"]
    assert len(failed) == 2
    assert all("CUDAExecutionProvider is not in this onnxruntime" in item["reason"] for item in failed)
    names = zipfile.ZipFile(tmp_path / "packages" / "points.zip").namelist()
    assert any(name.startswith("CandidateModels/cpu-cpu/") for name in names)
    assert not any("gpu-cuda" in name for name in names)


def test_nothing_to_rank_ends_with_its_own_exit_code_and_a_reason(packhouse: Packhouse, tmp_path: Path) -> None:
    impossible = {"type": "threshold", "value": 2.0}
    metrics = [{"name": "accuracy", "type": "accuracy", "sub_types": [{"name": "accuracy", "priority": 1, "goal": impossible}]}]
    release = packhouse.release(write_job(tmp_path, metrics=metrics), code=3)
    assert release["deliveries"] == []
    assert {item["status"] for item in release["job"]["overall"]["unranked"]} == {"rejected"}
    assert not (tmp_path / "packages" / "points.zip").exists()


def test_one_packaging_type_that_fails_stops_no_other_and_keeps_the_earlier_package(
    packhouse: Packhouse, tmp_path: Path
) -> None:
    packaging = [
        {"type": "Zipfile", "name": "points", "include_runtime_packages": False},
        {"type": "Zipfile", "name": "runtime", "include_runtime_packages": True},
    ]
    config = write_job(tmp_path, packaging=packaging)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "runtime.zip").write_bytes(b"the package of an earlier run")
    packhouse.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    release = packhouse.release(config, code=3)
    assert [package.name for package in read(release).packages] == ["points.zip"]
    (failure,) = read(release).failures
    assert "runtime.zip was not made" in failure
    assert "include_runtime_packages" in failure
    assert (tmp_path / "packages" / "runtime.zip").read_bytes() == b"the package of an earlier run"


def test_a_disk_that_is_full_while_packing_leaves_the_earlier_package_intact(packhouse: Packhouse, tmp_path: Path) -> None:
    config = write_job(tmp_path)
    packhouse.release(config)
    earlier = (tmp_path / "packages" / "points.zip").read_bytes()
    for index in range(3):
        write_classifier(tmp_path / "candidates" / f"wide-{index}.onnx", error=0.1 * index, padding_bytes=400_000)
    packhouse.prefix = ("prlimit", "--fsize=1000000")
    release = packhouse.release(config, code=3)
    (failure,) = read(release).failures
    assert "points.zip was not made" in failure
    assert "File too large" in failure
    assert (tmp_path / "packages" / "points.zip").read_bytes() == earlier
    packhouse.prefix = ()
    assert read(packhouse.release(config)).failures == ()
    assert len(verify_package(tmp_path / "packages" / "points.zip").models) == 5


def test_a_disk_that_is_full_while_receiving_stops_the_run_with_what_to_do(packhouse: Packhouse, tmp_path: Path) -> None:
    config = write_job(tmp_path)
    packhouse.release(config)
    earlier = (tmp_path / "packages" / "points.zip").read_bytes()
    write_classifier(tmp_path / "candidates" / "wide.onnx", padding_bytes=3_000_000)
    packhouse.prefix = ("prlimit", "--fsize=1000000")
    message = json.loads(packhouse.run("run", config, "--json", code=1))["message"]
    assert "wide.onnx" in message
    assert "File too large" in message
    assert "free space" in message
    assert (tmp_path / "packages" / "points.zip").read_bytes() == earlier


def read(release: Any) -> Release:
    """Return a release that was printed."""
    return Release.model_validate_json(json.dumps(release))


def write_slow_job(folder: Path, seconds: float, **arguments: Any) -> Path:
    """Write a job whose candidates are timed for so many seconds each, so that there is a middle to interrupt."""
    config = write_job(folder, timing={"seconds_per_candidate": seconds}, **arguments)
    document = json.loads(config.read_text())
    document["metrics"][1]["sub_types"][0]["metric_config"] = {"repeat_test_num": 10_000_000}
    config.write_text(json.dumps(document))
    return config


def now() -> str:
    """Return the time, as the server's filters take it."""
    return (datetime.now(UTC) - timedelta(milliseconds=1)).isoformat()


def evaluations_in(packhouse: Packhouse) -> int:
    """Return how many evaluations are in the result storage."""
    return len(list(packhouse.results.glob("evaluation-*")))


def wait_until_timed(run: subprocess.Popen[str]) -> None:
    """Wait for a run to say that its tournament begins."""
    assert run.stderr
    said = []
    for line in run.stderr:
        said.append(line)
        if line.startswith("timing on cpu-cpu: timing"):
            return
    raise AssertionError("".join(said))


def wait_until(condition: Callable[[], Any], timeout_s: float = 240) -> None:
    """Wait for a condition to hold."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def processes(property_name: str, text: str) -> list[int]:
    """Return the processes with a text in a property: their `cmdline` or `environ`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (folder / property_name).read_bytes():
                found.append(int(folder.name))
    return found


def workers_of(pid: int) -> list[int]:
    """Return the processes that run candidates for the process `pid`."""
    return sorted(
        worker
        for worker in processes("cmdline", str(WORKER))
        if f"PPid:\t{pid}\n" in Path(f"/proc/{worker}/status").read_text()
    )
