"""Working out what a run will do: everything wrong with the input is found, and nothing is written."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packhouse.artifacts import ArtifactStore
from packhouse.config.loading import parse_config
from packhouse.errors import ArtifactError, InputError, Problem
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.plan import Plan, Prepared, prepare
from packhouse.statistics import runs_for
from tests.candidates.test_model_file import as_nobody, tree
from tests.classifiers import write_classifier, write_family, write_points
from tests.evaluation.models import floats, write_constant, write_identity
from tests.provenance.keys import write_keys

ACCURACY = {"name": "accuracy", "type": "accuracy", "sub_types": [{"name": "accuracy_score", "priority": 1}]}
LATENCY = {"name": "latency", "type": "latency", "sub_types": [{"name": "p99", "priority": 2}]}
Document = dict[str, Any]


@pytest.fixture
def document(tmp_path: Path) -> Document:
    """A configuration with two candidates, data and a package, all in a folder of their own."""
    folder = tmp_path / "project"
    write_family(folder / "models")
    return {
        "candidates": {"type": "folder", "path": str(folder / "models")},
        "data": {"path": str(write_points(folder / "data.npz")), "labels": "label", "batch_size": 16, "timing_batch_size": 4},
        "metrics": [ACCURACY, LATENCY],
        "packaging": [{"type": "Zipfile", "include_runtime_packages": False}],
        "output_dir": str(folder / "packages"),
    }


def prepared(document: Document, **changes: Any) -> Prepared:
    return prepare(parse_config({**document, **changes}))


def problems_of(document: Document, **changes: Any) -> list[Problem]:
    with pytest.raises(InputError) as caught:
        prepared(document, **changes)
    return list(caught.value.problems)


def with_goal(metric: Document, goal: Document) -> Document:
    (sub_type,) = metric["sub_types"]
    return {**metric, "sub_types": [{**sub_type, "goal": goal}]}


def evaluations_of(plan: Plan, spec: str, accuracy: Mapping[str, float] | None = None) -> list[Evaluation]:
    """Return evaluations as they would come out, with the given accuracies or a perfect one."""
    values = accuracy or {}
    return [
        Evaluation(
            candidate=request.candidate.digest,
            accelerator=spec,
            metrics={"accuracy-accuracy_score": MetricValue(value=values.get(request.candidate.name, 1.0), unit="", n=90)},
        )
        for request in plan.requests_on(spec)
    ]


class TestPlan:
    def test_has_one_evaluation_per_candidate_and_accelerator_grouped_by_accelerator(self, document: Document) -> None:
        accelerators = [{}, {"device": "gpu", "execution_provider": "CUDAExecutionProvider"}]

        plan = prepared(document, accelerators=accelerators).plan

        assert [(request.accelerator.spec, request.candidate.name) for request in plan.requests] == [
            ("cpu-cpu", "turned-0.0"),
            ("cpu-cpu", "turned-0.5"),
            ("gpu-cuda", "turned-0.0"),
            ("gpu-cuda", "turned-0.5"),
        ]
        assert plan.requests_on("gpu-cuda") == plan.requests[2:]
        assert plan.requests_on("npu-qnn") == ()
        assert len({request.key for request in plan.requests}) == 4

    def test_says_how_each_of_them_is_done(self, document: Document) -> None:
        plan = prepared(document).plan

        for request in plan.requests:
            assert (request.batch_size, request.timing_batch_size) == (16, 4)
            assert [metric.name for metric in request.metrics] == ["accuracy-accuracy_score"]
            assert (request.data, request.input_keys) == (plan.data, {"x": "input_0"})

    def test_says_how_candidates_are_timed(self, document: Document) -> None:
        plan = prepared(document, timing={"seconds_per_candidate": 7.5, "io_binding": True}).plan

        assert plan.is_timed
        assert plan.timing.model_dump() == {
            "warmup": 10,
            "runs": runs_for(99),
            "batch_size": 4,
            "seconds_per_candidate": 7.5,
            "io_binding": True,
        }

    def test_is_the_same_for_the_same_input(self, document: Document) -> None:
        assert prepared(document).plan == prepared(document).plan

    def test_survives_its_way_through_json(self, document: Document) -> None:
        plan = prepared(document, baseline="turned-0.5").plan

        assert Plan.model_validate_json(plan.model_dump_json()) == plan

    @pytest.mark.parametrize(("data", "batch_size"), [(None, 1), ({}, 1), ({"timing_batch_size": 4}, 4)])
    def test_without_samples_makes_some_up(self, document: Document, data: Document | None, batch_size: int) -> None:
        found = prepared(document, metrics=[LATENCY], data=data)

        assert found.dataset.inputs["x"].shape == (16, 2)
        assert found.plan.timing.batch_size == batch_size
        assert {request.timing_batch_size for request in found.plan.requests} == {batch_size}

    def test_needs_no_labels_where_nothing_is_judged(self, document: Document) -> None:
        del document["data"]["labels"]

        assert prepared(document, metrics=[LATENCY]).dataset.labels is None

    def test_has_equal_candidates_once(self, document: Document, tmp_path: Path) -> None:
        models = tmp_path / "project" / "models"
        shutil.copy(models / "turned-0.5.onnx", models / "copy.onnx")

        plan = prepared(document).plan

        assert [(candidate.name, candidate.same_as) for candidate in plan.candidates] == [
            ("copy", ("turned-0.5",)),
            ("turned-0.0", ()),
        ]
        assert len(plan.requests) == 2

    @pytest.mark.parametrize("name", ["copy", "turned-0.5"])
    def test_knows_its_baseline_under_every_name_of_it(self, document: Document, tmp_path: Path, name: str) -> None:
        models = tmp_path / "project" / "models"
        shutil.copy(models / "turned-0.5.onnx", models / "copy.onnx")

        plan = prepared(document, baseline=name).plan

        assert plan.baseline == plan.candidates[0].digest

    def test_has_one_tournament_per_accelerator_of_those_that_did_not_fail(self, document: Document) -> None:
        accelerators = [{"session_options": {"intra_op_num_threads": 1}}, {"device": "npu"}]
        plan = prepared(document, accelerators=accelerators).plan
        first, second = (evaluations_of(plan, spec) for spec in ("cpu-cpu", "npu-cpu"))
        failed = [first[0].model_copy(update={"failure": "it crashed"}), first[1]]

        requests = [plan.timing_on("cpu-cpu", failed), plan.timing_on("npu-cpu", second)]

        assert [[item.name for item in request.candidates] for request in requests if request] == [
            ["turned-0.5"],
            ["turned-0.0", "turned-0.5"],
        ]
        for request, accelerator in zip(requests, plan.config.accelerators, strict=True):
            assert request
            assert request.accelerator == accelerator
            assert [metric.name for metric in request.metrics] == ["latency-p99"]
            assert (request.data, request.input_keys, request.plan) == (plan.data, plan.input_keys, plan.timing)
            assert request.fingerprint == plan.requests[0].fingerprint

    @pytest.mark.parametrize("metrics", [[ACCURACY], [ACCURACY, LATENCY]])
    def test_has_no_tournament_where_there_is_nothing_to_time(self, document: Document, metrics: list[Document]) -> None:
        plan = prepared(document, metrics=metrics).plan
        failed = [item.model_copy(update={"failure": "it crashed"}) for item in evaluations_of(plan, "cpu-cpu")]

        assert plan.is_timed == (LATENCY in metrics)
        assert plan.timing_on("cpu-cpu", failed) is None
        assert (plan.timing_on("cpu-cpu", evaluations_of(plan, "cpu-cpu")) is None) == (not plan.is_timed)

    @pytest.mark.parametrize("is_baseline", [True, False])
    def test_times_nobody_who_misses_a_goal_but_a_baseline_that_is_needed(self, document: Document, is_baseline: bool) -> None:
        goals = [{"type": "threshold", "value": 0.8}, {"type": "percent-max-degradation", "value": 50}]
        metrics = [with_goal(metric, goal) for metric, goal in zip((ACCURACY, LATENCY), goals, strict=True)]
        plan = prepared(document, metrics=metrics, baseline="turned-0.5" if is_baseline else "turned-0.0").plan
        reached = evaluations_of(plan, "cpu-cpu", {"turned-0.0": 0.9, "turned-0.5": 0.7})

        request = plan.timing_on("cpu-cpu", reached)

        assert request
        assert [item.name for item in request.candidates] == ["turned-0.0", *(["turned-0.5"] if is_baseline else [])]

    def test_may_have_no_baseline(self, document: Document) -> None:
        assert prepared(document).plan.baseline is None


class TestPreparing:
    def test_writes_nothing(self, document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        before = tree(tmp_path / "project")

        prepared(document, baseline="turned-0.5")

        assert tree(tmp_path / "project") == before
        assert list((tmp_path / "temporary").iterdir()) == []

    def test_writes_nothing_where_it_fails(self, document: Document, tmp_path: Path) -> None:
        write_points(tmp_path / "project" / "data.npz", x=np.zeros((90, 3)))
        before = tree(tmp_path)

        problems_of(document)

        assert tree(tmp_path) == before

    def test_takes_the_bytes_in_only_when_it_is_told_to(self, document: Document, tmp_path: Path) -> None:
        store = ArtifactStore(tmp_path / "store")
        found = prepared(document)
        assert found.plan.data.sha256 not in store

        plan = found.receive(store)

        assert plan == found.plan
        assert store.is_intact(plan.data)
        assert all(store.is_intact(file) for candidate in plan.candidates for file in candidate.files.values())
        with np.load(store.path(plan.data.sha256), allow_pickle=False) as data:
            np.testing.assert_array_equal(data["input_0"], found.dataset.inputs["x"])
            np.testing.assert_array_equal(data["labels"], found.dataset.labels)

    def test_takes_the_same_bytes_in_once(self, document: Document, tmp_path: Path) -> None:
        store = ArtifactStore(tmp_path / "store")
        prepared(document).receive(store)
        before = tree(tmp_path / "store")

        prepared(document).receive(store)

        blobs = tmp_path / "store" / "blobs" / "sha256"
        assert {path.name for path in blobs.iterdir()} == {Path(path).name for path in before if Path(path).parent == blobs}

    def test_of_what_changes_before_it_is_taken_in_is_refused(self, document: Document, tmp_path: Path) -> None:
        found = prepared(document)
        write_classifier(tmp_path / "project" / "models" / "turned-0.5.onnx", error=0.6)

        with pytest.raises(ArtifactError, match=r"turned-0\.5\.onnx changed while it was being received"):
            found.receive(ArtifactStore(tmp_path / "store"))

    def test_takes_nothing_in_where_there_is_no_room(
        self, document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        found = prepared(document)
        monkeypatch.setattr("numpy.savez", refuse)

        with pytest.raises(ArtifactError, match=r"the data cannot be stored.*No space left on device"):
            found.receive(ArtifactStore(tmp_path / "store"))


class TestProblems:
    def test_a_baseline_that_is_no_candidate(self, document: Document) -> None:
        expected = Problem("baseline", "'best' is no candidate", "use one of turned-0.0, turned-0.5")
        assert problems_of(document, baseline="best") == [expected]

    @pytest.mark.parametrize("below", ["", "/packages", "/deep/er/packages"])
    def test_an_output_folder_below_a_file(self, document: Document, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").write_text("not a folder")

        (problem,) = problems_of(document, output_dir=f"{tmp_path}/file{below}")

        assert problem.where == f"output_dir = {tmp_path}/file{below}"
        assert problem.what == "cannot be written to (Not a directory)"
        assert problem.remedy == "choose a folder that you may write to"

    def test_an_output_folder_where_nothing_can_be_made(self, document: Document) -> None:
        (problem,) = problems_of(document, output_dir="/proc/packages")

        assert (problem.where, problem.what[:20]) == ("output_dir = /proc/packages", "cannot be written to")

    @pytest.mark.parametrize("exists", [True, False])
    def test_an_output_folder_that_belongs_to_somebody_else(self, document: Document, exists: bool) -> None:
        with as_nobody() as folder:
            write_family(folder / "models")
            (folder / "closed").mkdir(mode=0o500)
            changes = {"candidates": {"type": "folder", "path": str(folder / "models")}, "metrics": [LATENCY], "data": None}
            place = folder / "closed" / ("" if exists else "packages")

            (problem,) = problems_of(document, output_dir=str(place), **changes)

        assert problem.what == "cannot be written to (Permission denied)"

    @pytest.mark.parametrize("content", [None, "no key"])
    def test_a_key_file_that_holds_no_key(self, document: Document, tmp_path: Path, content: str | None) -> None:
        key = tmp_path / "key.pem"
        if content:
            key.write_text(content)
        (problem,) = problems_of(document, signing={"key_file": str(key)})
        assert problem.where == f"signing.key_file = {key}"
        assert ("is no private key" if content else "No such file") in problem.what
        assert problem.remedy

    def test_nothing_about_a_key_that_can_be_read(self, document: Document, tmp_path: Path) -> None:
        private, _ = write_keys(tmp_path)
        assert prepared(document, signing={"key_file": str(private)}).plan.config.signing

    def test_an_output_folder_whose_name_is_too_long(self, document: Document, tmp_path: Path) -> None:
        (problem,) = problems_of(document, output_dir=str(tmp_path / ("x" * 300)))

        assert problem.what == "cannot be written to (File name too long)"

    @pytest.mark.parametrize("reference", ["no_such_module_anywhere:mine", "{folder}/none.py:mine", "{folder}/mine.py:other"])
    def test_a_function_that_is_not_there(self, document: Document, tmp_path: Path, reference: str) -> None:
        (tmp_path / "mine.py").write_text("def mine(outputs, labels):\n    return 1\n")
        custom = {
            "name": "mine",
            "type": "custom",
            "sub_types": [{"name": "mine", "priority": 3, "higher_is_better": True}],
            "user_config": {"function": reference.format(folder=tmp_path)},
        }

        (problem,) = problems_of(document, metrics=[ACCURACY, custom])

        assert problem.where == "metrics[1].user_config.function"

    def test_a_number_of_runs_that_is_none(self, document: Document) -> None:
        sub_type = {"name": "avg", "priority": 1, "metric_config": {"repeat_test_num": "many"}}

        (problem,) = problems_of(document, metrics=[{"name": "time", "type": "latency", "sub_types": [sub_type]}])

        assert problem.where == "metrics: time-avg, metric_config.repeat_test_num"

    @pytest.mark.parametrize("data", [None, {"shapes": {}}])
    def test_a_dimension_without_a_size(self, document: Document, tmp_path: Path, data: Document | None) -> None:
        write_identity(tmp_path / "project" / "models" / "turned-0.0.onnx", {"x": floats("n", "length")})
        (tmp_path / "project" / "models" / "turned-0.5.onnx").unlink()

        (problem,) = problems_of(document, metrics=[LATENCY], data=data)

        assert problem.what == "the input 'x' has the dynamic dimension 'length' on axis 1, and nothing says its size"

    def test_a_dimension_that_no_candidate_has(self, document: Document, tmp_path: Path) -> None:
        write_identity(tmp_path / "project" / "models" / "turned-0.0.onnx", {"x": floats("n", "length")})
        (tmp_path / "project" / "models" / "turned-0.5.onnx").unlink()

        (problem,) = problems_of(
            document, metrics=[LATENCY], data={"shapes": {"length": 3}}, accelerators=[{"dimensions": {"lenght": 3, "n": 1}}]
        )

        assert problem.where == "accelerators[0].dimensions.lenght"
        assert problem.remedy == "use length or n"

    def test_a_candidate_without_inputs(self, document: Document, tmp_path: Path) -> None:
        write_constant(tmp_path / "project" / "models" / "fixed.onnx")

        (problem,) = problems_of(document, metrics=[LATENCY], data=None)

        assert problem.where == "candidates: fixed"

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (None, "is not set, and accuracy-accuracy_score needs labelled samples"),
            ({"timing_batch_size": 2}, "has neither a path nor a function, and accuracy-accuracy_score needs labelled samples"),
        ],
    )
    def test_quality_without_labelled_samples(self, document: Document, data: Document | None, what: str) -> None:
        assert problems_of(document, data=data) == [Problem("data", what, "give data.path and data.labels")]

    def test_candidates_that_are_not_there(self, document: Document, tmp_path: Path) -> None:
        (problem,) = problems_of(document, candidates={"type": "folder", "path": str(tmp_path / "none")})

        assert problem.where == f"candidates.path = {tmp_path / 'none'}"

    def test_data_that_do_not_fit(self, document: Document, tmp_path: Path) -> None:
        write_points(tmp_path / "project" / "data.npz", x=np.zeros((90, 3)))

        (problem,) = problems_of(document)

        assert problem.what == "has the shape 90×3, and the model takes ?×2"
