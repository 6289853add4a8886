"""The release record: what it decides, what it says, and that it is read back as it was written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packhouse.artifacts import Artifact
from packhouse.errors import InputError
from packhouse.release import RELEASE_NAME, Package, Release, read_release
from tests.packaging_jobs import CPU, EXACT, FAR, GPU, NEAR, ONE, Packing, make_packing, make_release, undelivered

ARTIFACT = Artifact(sha256="0" * 64, size_bytes=10, crc32=0)
ZIP = Package(type="Zipfile", name="points.zip", files={"points.zip": ARTIFACT})
FOLDER = Package(type="MLflowModel", name="best", files={"best/MLmodel": ARTIFACT, "best/model.onnx": ARTIFACT})


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    return make_packing(tmp_path_factory.mktemp("packing"), baseline=NEAR)


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    """A job in which nothing could be ranked."""
    grades = {CPU: {EXACT: "it crashed", NEAR: "it crashed"}, GPU: {EXACT: "no such device", NEAR: "no such device"}}
    return make_packing(tmp_path_factory.mktemp("hopeless"), grades)


def write(folder: Path, release: Release) -> Path:
    path = folder / RELEASE_NAME
    path.write_bytes(release.model_dump_json(indent=2).encode())
    return path


def test_candidates_are_ranked_per_accelerator_and_across_all(packing: Packing) -> None:
    def shown(ranking: Any) -> list[tuple[int, str, str]]:
        return [(item.rank, packing.job.candidate(item.candidate).name, item.accelerator) for item in ranking.ranked]

    assert shown(packing.job.by_accelerator[CPU]) == [(1, EXACT, CPU), (2, NEAR, CPU), (3, FAR, CPU)]
    assert shown(packing.job.by_accelerator[GPU]) == [(1, EXACT, GPU), (2, NEAR, GPU)]
    ranked = [(1, EXACT, CPU), (2, EXACT, GPU), (3, NEAR, CPU), (4, NEAR, GPU), (5, FAR, CPU)]
    assert shown(packing.job.overall) == ranked
    assert packing.job.best == packing.job.overall.ranked[0]
    (failed,) = packing.job.overall.unranked
    assert (packing.job.candidate(failed.candidate).name, failed.status, failed.reason) == (FAR, "failed", "out of memory")
    assert packing.job.by_accelerator[GPU].unranked == (failed,)


def test_a_relative_goal_refers_to_the_baseline_on_the_same_accelerator(tmp_path: Path) -> None:
    goal = {"type": "min-improvement", "value": 0.0}
    metrics = [
        {"name": "accuracy", "type": "accuracy", "sub_types": [{"name": "accuracy_score", "priority": 1, "goal": goal}]},
    ]
    grades = {CPU: {EXACT: (0.80, 1.0), NEAR: (0.90, 1.0)}, GPU: {EXACT: (0.80, 1.0), NEAR: (0.70, 1.0)}}
    job = make_packing(tmp_path, grades, metrics=metrics, baseline=NEAR).job
    ranked = {(job.candidate(item.candidate).name, item.accelerator) for item in job.overall.ranked}
    assert ranked == {(NEAR, CPU), (EXACT, GPU), (NEAR, GPU)}
    assert [item.status for item in job.by_accelerator[CPU].unranked] == ["rejected"]


@pytest.mark.parametrize("release_of", [make_release, lambda packing: make_release(packing, ZIP, FOLDER)])
def test_a_release_is_read_back_as_it_was_written_from_its_file_or_its_folder(
    packing: Packing, tmp_path: Path, release_of: Callable[[Packing], Release]
) -> None:
    release = release_of(packing)
    path = write(tmp_path, release)
    assert read_release(path) == release
    assert read_release(tmp_path) == release
    assert read_release(path).job.content_digest == packing.job.content_digest


def test_a_release_without_anything_ranked_is_read_back_too(hopeless: Packing, tmp_path: Path) -> None:
    release = make_release(hopeless)
    assert read_release(write(tmp_path, release)) == release


@pytest.mark.parametrize("name", ["nowhere", "nowhere/release.json"])
def test_a_release_that_is_not_there_is_an_error_with_its_place_and_remedy(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_release(tmp_path / name)
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / name)
    assert (problem.what, problem.remedy) == (
        "cannot be read (No such file or directory)",
        "name the output folder of a run",
    )


def test_a_folder_without_a_release_is_an_error_that_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_release(tmp_path)
    assert caught.value.problems[0].where == str(tmp_path / RELEASE_NAME)


def replaced(key: str, value: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), key: value})


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda _: "{}",
        lambda _: "[]",
        lambda _: "\0",
        lambda text: text[:-2],
        lambda text: text + "}",
        replaced("signed_by", "somebody"),
        replaced("job", {}),
        replaced("packages", [{"type": "Zipfile"}]),
        replaced("created_at", None),
    ],
)
def test_a_file_that_is_no_release_of_this_version_is_an_error_of_one_line(
    packing: Packing, tmp_path: Path, change: Callable[[str], str]
) -> None:
    path = write(tmp_path, make_release(packing, ZIP))
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=r"is no release record of this version → name the release\.json of a run") as caught:
        read_release(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_no_release(tmp_path: Path) -> None:
    (tmp_path / RELEASE_NAME).write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="is no release record"):
        read_release(tmp_path)


def test_a_complete_release_says_who_won_where_and_what_was_made(packing: Packing) -> None:
    release = make_release(packing, ZIP, FOLDER)
    assert release.is_complete
    assert release.verdict == f"{EXACT} ranks first ({CPU}); made points.zip, best"
    assert make_release(packing).verdict == f"{EXACT} ranks first ({CPU}); made no packages"


def test_a_release_with_packages_that_failed_is_incomplete_and_says_why(packing: Packing) -> None:
    failed = (undelivered("a.zip", "x"), undelivered("b", "y"))
    release = make_release(packing, ZIP).model_copy(update={"deliveries": failed})
    assert not release.is_complete
    assert release.verdict == "a.zip was not made: x. b was not made: y"


def test_a_release_without_anything_ranked_is_incomplete_and_names_every_cause_once(hopeless: Packing) -> None:
    release = make_release(hopeless)
    assert not release.is_complete
    nothing = "no candidate could be ranked on"
    assert release.verdict == f"{nothing} {CPU}: it crashed. {nothing} {GPU}: no such device"


def test_a_release_without_anything_ranked_on_one_accelerator_is_incomplete_though_the_other_has_a_winner(
    tmp_path: Path,
) -> None:
    release = make_release(make_packing(tmp_path, {CPU: {EXACT: (0.9, 1.0)}, GPU: {EXACT: "no such device"}}), ZIP)
    assert release.job.overall.ranked
    assert not release.is_complete
    assert release.verdict == f"no candidate could be ranked on {GPU}: no such device"


def test_a_packages_size_is_that_of_all_its_files() -> None:
    assert (ZIP.size_bytes, FOLDER.size_bytes) == (10, 20)


def test_a_job_has_the_same_digest_after_it_was_stored(tmp_path: Path) -> None:
    job = make_packing(tmp_path, ONE).job
    assert type(job).model_validate_json(job.model_dump_json()).content_digest == job.content_digest
