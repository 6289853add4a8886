"""Folders and lists of candidates: which models they name, and what is wrong with those."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from packhouse.accelerators import InferenceSettings, SessionOptions
from packhouse.candidates import FolderSource, FoundModel, ListSource
from packhouse.errors import InputError, Problem
from tests.candidates.test_model_file import as_nobody, tree
from tests.classifiers import write_classifier, write_family

DATA = "weights.bin"


def found_in(folder: Path) -> dict[str, FoundModel]:
    return {model.name: model for model in FolderSource(path=folder).find()}


def listed(**paths: Path) -> ListSource:
    return ListSource.model_validate({"models": [{"name": name, "path": path} for name, path in paths.items()]})


def problems_of(source: FolderSource | ListSource) -> list[Problem]:
    with pytest.raises(InputError) as caught:
        source.find()
    return list(caught.value.problems)


class TestFolder:
    def test_every_onnx_file_is_a_candidate_under_its_stem(self, tmp_path: Path) -> None:
        write_family(tmp_path, [0.5, 0.0])
        (tmp_path / "notes.txt").write_text("not a model")

        found = found_in(tmp_path)

        assert list(found) == ["turned-0.0", "turned-0.5"]
        assert found["turned-0.5"].files == {"turned-0.5.onnx": tmp_path / "turned-0.5.onnx"}
        assert found["turned-0.5"].entry == "turned-0.5.onnx"

    def test_a_file_brings_its_external_data_and_no_other_file(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "a.onnx", external="a.bin")
        write_classifier(tmp_path / "b.onnx", external="b.bin")

        assert list(found_in(tmp_path)["a"].files) == ["a.bin", "a.onnx"]

    def test_a_folder_in_it_is_a_candidate_with_all_its_files(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "big" / "model.onnx", external=DATA)
        (tmp_path / "big" / "deep").mkdir()
        (tmp_path / "big" / "deep" / "vocabulary.txt").write_text("a b c")

        model = found_in(tmp_path)["big"]

        assert model.entry == "model.onnx"
        assert model.files == {name: tmp_path / "big" / name for name in ("deep/vocabulary.txt", "model.onnx", DATA)}

    def test_files_and_folders_may_stand_side_by_side(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "small.onnx")
        write_classifier(tmp_path / "big" / "model.onnx")
        (tmp_path / "logs" / "today").mkdir(parents=True)

        assert {name: model.entry for name, model in found_in(tmp_path).items()} == {"big": "model.onnx", "small": "small.onnx"}

    def test_a_folder_may_be_named_like_a_file(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "a.onnx" / "model.onnx")

        assert list(found_in(tmp_path)) == ["a.onnx"]

    def test_its_models_have_the_settings_of_the_runtime(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "a.onnx")

        assert found_in(tmp_path)["a"].settings == InferenceSettings()

    @pytest.mark.parametrize("content", ["nothing", "other files", "empty folders"])
    def test_without_candidates_it_is_refused(self, tmp_path: Path, content: str) -> None:
        if content == "other files":
            (tmp_path / "model.pt").write_bytes(b"weights")
        elif content == "empty folders":
            (tmp_path / "a").mkdir()

        expected = Problem(
            f"candidates.path = {tmp_path}", "has no candidates", "put .onnx files, or folders with one each, there"
        )
        assert problems_of(FolderSource(path=tmp_path)) == [expected]

    @pytest.mark.parametrize(("name", "reason"), [("gone", "No such file or directory"), ("file", "Not a directory")])
    def test_which_is_none_is_refused(self, tmp_path: Path, name: str, reason: str) -> None:
        (tmp_path / "file").write_text("")

        (problem,) = problems_of(FolderSource(path=tmp_path / name))

        assert (problem.where, problem.what) == (f"candidates.path = {tmp_path / name}", f"cannot be read ({reason})")

    @pytest.mark.parametrize("mode", [0o000, 0o444])
    def test_which_may_not_be_entered_is_refused(self, mode: int) -> None:
        with as_nobody() as folder:
            write_classifier(folder / "models" / "a.onnx")
            (folder / "models").chmod(mode)

            (problem,) = problems_of(FolderSource(path=folder / "models"))

            (folder / "models").chmod(0o755)
        assert problem.what == "cannot be read (Permission denied)"

    def test_with_two_models_for_one_candidate_is_refused(self, tmp_path: Path) -> None:
        write_family(tmp_path / "both")

        (problem,) = problems_of(FolderSource(path=tmp_path))

        assert problem.where == f"candidate 'both': {tmp_path / 'both'}"
        assert problem.what == "holds 2 .onnx files, and a candidate is one"
        assert problem.remedy == "give each model its own folder"

    def test_with_a_file_and_a_folder_of_one_name_is_refused(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "a.onnx")
        write_classifier(tmp_path / "a" / "model.onnx")

        expected = Problem("candidates", "the name 'a' is used more than once", "give every candidate its own name")
        assert problems_of(FolderSource(path=tmp_path)) == [expected]

    @pytest.mark.parametrize("link", ["extra.txt", "deep"])
    def test_with_links_in_a_candidate_is_refused(self, tmp_path: Path, link: str) -> None:
        write_classifier(tmp_path / "models" / "a" / "model.onnx")
        (tmp_path / "outside").mkdir()
        path = tmp_path / "models" / "a" / link
        path.symlink_to(tmp_path / "outside" if link == "deep" else "/etc/hostname")

        (problem,) = problems_of(FolderSource(path=tmp_path / "models"))

        assert (problem.where, problem.what) == (f"candidate 'a': {path}", "is a symbolic link")

    def test_with_a_linked_model_is_refused_even_where_the_link_leads_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "a.onnx").symlink_to("nowhere")

        (problem,) = problems_of(FolderSource(path=tmp_path))

        assert (problem.where, problem.what) == (f"candidate 'a': {tmp_path / 'a.onnx'}", "is a symbolic link")

    @pytest.mark.parametrize("name", [b"\xff.txt", b"deep\xff/file"])
    def test_with_a_file_name_that_is_not_utf_8_is_refused(self, tmp_path: Path, name: bytes) -> None:
        write_classifier(tmp_path / "a" / "model.onnx")
        path = Path(os.fsdecode(bytes(tmp_path / "a") + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_text("")

        (problem,) = problems_of(FolderSource(path=tmp_path))

        assert problem.what == "is a name that is not UTF-8"
        assert str(problem).isprintable()

    def test_with_a_candidate_name_that_is_not_utf_8_is_refused(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "a.onnx").rename(os.fsdecode(bytes(tmp_path) + b"/\xff.onnx"))

        (problem,) = problems_of(FolderSource(path=tmp_path))

        assert problem == Problem(r"candidate '\udcff': '\udcff'", "is a name that is not UTF-8", "rename the file")

    def test_every_problem_of_every_candidate_is_told_at_once(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "good.onnx")
        (tmp_path / "text.onnx").write_text("weights\n")
        (tmp_path / "none.onnx").touch()
        write_family(tmp_path / "two")
        write_classifier(tmp_path / "lost.onnx", external="gone.bin")
        (tmp_path / "gone.bin").unlink()

        problems = problems_of(FolderSource(path=tmp_path))

        assert [problem.where for problem in problems] == [
            f"candidate 'lost': {tmp_path / 'gone.bin'}",
            f"candidate 'none': {tmp_path / 'none.onnx'}",
            f"candidate 'text': {tmp_path / 'text.onnx'}",
            f"candidate 'two': {tmp_path / 'two'}",
        ]

    def test_is_left_as_it_was(self, tmp_path: Path) -> None:
        write_classifier(tmp_path / "a" / "model.onnx", external=DATA)
        before = tree(tmp_path)

        found_in(tmp_path)

        assert tree(tmp_path) == before


class TestList:
    def test_its_models_are_files_or_folders_anywhere_under_names_of_their_own(self, tmp_path: Path) -> None:
        file = write_classifier(tmp_path / "here" / "a.onnx")
        folder = write_classifier(tmp_path / "there" / "model.onnx", external=DATA).parent

        models = listed(second=folder, first=file).find()

        assert [(model.name, model.entry, sorted(model.files)) for model in models] == [
            ("first", "a.onnx", ["a.onnx"]),
            ("second", "model.onnx", ["model.onnx", DATA]),
        ]

    def test_session_options_of_a_model_become_its_settings(self, tmp_path: Path) -> None:
        entry: dict[str, Any] = {"name": "a", "path": write_classifier(tmp_path / "a.onnx")}
        entry["session_options"] = {"intra_op_num_threads": 1}

        (model,) = ListSource.model_validate({"models": [entry]}).find()

        assert model.settings == InferenceSettings(session_options=SessionOptions(intra_op_num_threads=1))

    def test_one_file_may_be_listed_twice_under_two_names(self, tmp_path: Path) -> None:
        path = write_classifier(tmp_path / "a.onnx")

        assert [model.name for model in listed(one=path, two=path).find()] == ["one", "two"]

    def test_a_name_used_twice_is_refused(self, tmp_path: Path) -> None:
        entry = {"name": "a", "path": write_classifier(tmp_path / "a.onnx")}

        expected = Problem("candidates", "the name 'a' is used more than once", "give every candidate its own name")
        assert problems_of(ListSource.model_validate({"models": [entry, entry]})) == [expected]

    @pytest.mark.parametrize("models", [[], [{"name": "", "path": "a.onnx"}], [{"name": "a", "path": "a", "rank": 1}]])
    def test_which_is_empty_or_not_understood_is_refused(self, models: list[dict[str, Any]]) -> None:
        with pytest.raises(ValidationError):
            ListSource.model_validate({"models": models})

    def test_a_folder_without_a_model_is_refused(self, tmp_path: Path) -> None:
        (problem,) = problems_of(listed(a=tmp_path))

        assert (problem.where, problem.what) == (
            f"candidate 'a': {tmp_path}",
            "holds 0 .onnx files, and a candidate is one",
        )

    def test_weights_in_a_file_named_like_a_model_are_refused(self, tmp_path: Path) -> None:
        # Packages call the ONNX file model.onnx, so weights of that name would take its place.
        path = write_classifier(tmp_path / "a.onnx", external="model.onnx")

        expected = Problem(
            f"candidate 'a': {path}",
            "keeps its weights in 'model.onnx', which is named like a model",
            "save the model with its external data in a file of another kind",
        )
        assert problems_of(listed(a=path)) == [expected]

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("gone.onnx", "No such file or directory"), ("x" * 300, "File name too long"), ("a.onnx/b", "Not a directory")],
    )
    def test_paths_that_lead_nowhere_are_refused(self, tmp_path: Path, name: str, reason: str) -> None:
        path = write_classifier(tmp_path / "a.onnx").parent / name

        expected = Problem(f"candidate 'a': {path}", f"cannot be read ({reason})", "check the path")
        assert problems_of(listed(a=path)) == [expected]

    def test_a_path_through_a_closed_folder_is_refused(self) -> None:
        with as_nobody() as folder:
            path = write_classifier(folder / "closed" / "a.onnx")
            path.parent.chmod(0)

            problems = problems_of(listed(a=path))

            path.parent.chmod(0o755)
        assert problems == [Problem(f"candidate 'a': {path}", "cannot be read (Permission denied)", "check the path")]
