"""From found models to candidates in the artifact store: what identifies them, and that their bytes stay the same."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.accelerators import InferenceSettings, SessionOptions
from packhouse.artifacts import ArtifactStore
from packhouse.candidates import Candidate, FolderSource, FoundModel, identify, lay_out, receive
from packhouse.errors import ArtifactError, InputError, Problem
from tests.candidates.test_model_file import as_nobody
from tests.classifiers import CENTRES, points, write_classifier, write_family

DATA = "weights.bin"
SETTINGS = InferenceSettings(session_options=SessionOptions(intra_op_num_threads=1))


def found(folder: Path) -> tuple[FoundModel, ...]:
    return FolderSource(path=folder).find()


def write_model_folder(folder: Path, error: float = 0.0) -> Path:
    """Write a candidate with an ONNX file, external data and a file in a folder of its own, and return its folder."""
    write_classifier(folder / "model.onnx", external=DATA, error=error)
    (folder / "deep").mkdir()
    (folder / "deep" / "vocabulary.txt").write_text("a b c")
    return folder


def digest_in(folder: Path) -> str:
    (candidate,) = identify(found(folder))
    return candidate.digest


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture(scope="module")
def five_files(tmp_path_factory: pytest.TempPathFactory) -> FoundModel:
    folder = write_model_folder(tmp_path_factory.mktemp("five") / "a")
    (folder / "a").write_text("1")
    (folder / "é").write_text("2")
    (model,) = found(folder.parent)
    return model


class TestDigest:
    def test_does_not_depend_on_the_names_of_candidate_and_model_or_on_the_folder(self, tmp_path: Path) -> None:
        first = write_model_folder(tmp_path / "one" / "a")
        second = shutil.copytree(first, tmp_path / "two" / "deeper" / "b")
        (second / "model.onnx").rename(second / "classifier.onnx")

        assert digest_in(tmp_path / "one") == digest_in(tmp_path / "two" / "deeper")

    @pytest.mark.parametrize("change", ["model", "weights", "extra", "renamed extra", "moved extra", "added", "removed"])
    def test_depends_on_the_name_and_bytes_of_every_file(self, tmp_path: Path, change: str) -> None:
        folder = write_model_folder(tmp_path / "a")
        before = digest_in(tmp_path)

        extra = folder / "deep" / "vocabulary.txt"
        if change == "model":
            (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes().replace(b"layer0", b"layer1"))
        elif change == "weights":
            content = bytearray((folder / DATA).read_bytes())
            content[-1] ^= 1
            (folder / DATA).write_bytes(content)
        elif change == "extra":
            extra.write_text("a b d")
        elif change == "renamed extra":
            extra.rename(extra.with_name("words.txt"))
        elif change == "moved extra":
            extra.rename(folder / "vocabulary.txt")
        elif change == "added":
            (folder / "empty").touch()
        else:
            extra.unlink()

        assert digest_in(tmp_path) != before

    def test_depends_on_the_inference_settings(self, tmp_path: Path) -> None:
        (model,) = found(write_family(tmp_path, [0.0]))

        plain, tuned = identify([model, replace(model, name="tuned", settings=SETTINGS)])

        assert plain.digest != tuned.digest
        assert tuned.settings == SETTINGS

    def test_does_not_depend_on_the_history(self, tmp_path: Path) -> None:
        (model,) = found(write_family(tmp_path, [0.0]))

        assert identify([model])[0].digest == identify([replace(model, history={"quantize": {"bits": 8}})])[0].digest

    @given(order=st.permutations(["model.onnx", DATA, "deep/vocabulary.txt", "a", "é"]))
    def test_does_not_depend_on_the_order_of_the_files(self, five_files: FoundModel, order: Sequence[str]) -> None:
        shuffled = replace(five_files, files={name: five_files.files[name] for name in order})

        assert identify([shuffled])[0].digest == identify([five_files])[0].digest


class TestIdentify:
    def test_a_candidate_says_what_is_known_of_its_model(self, tmp_path: Path) -> None:
        folder = write_model_folder(tmp_path / "a")
        (model,) = found(tmp_path)

        (candidate,) = identify([replace(model, history={"quantize": None})])

        assert (candidate.name, candidate.entry, candidate.opset) == ("a", "model.onnx", 17)
        assert (candidate.inputs, candidate.outputs) == (model.facts.inputs, model.facts.outputs)
        assert candidate.external_data == (DATA,)
        assert candidate.history == {"quantize": None}
        assert candidate.same_as == ()
        assert candidate.size_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def test_equal_models_become_one_that_names_the_others(self, tmp_path: Path) -> None:
        for name in ("a", "c", "d"):
            write_model_folder(tmp_path / name)
        write_model_folder(tmp_path / "b", error=0.5)

        candidates = identify(found(tmp_path))

        assert [(candidate.name, candidate.same_as) for candidate in candidates] == [("a", ("c", "d")), ("b", ())]

    def test_candidates_survive_their_way_through_json(self, tmp_path: Path) -> None:
        write_model_folder(tmp_path / "a")
        (candidate,) = identify(found(tmp_path))

        assert Candidate.model_validate_json(candidate.model_dump_json()) == candidate

    def test_a_weight_file_that_may_not_be_read_is_refused(self) -> None:
        with as_nobody() as folder:
            write_classifier(folder / "a.onnx", external=DATA)
            (folder / DATA).chmod(0)
            models = found(folder)

            with pytest.raises(InputError) as caught:
                identify(models)

        expected = Problem(str(folder / DATA), "cannot be read (Permission denied)", "check the path and its permissions")
        assert caught.value.problems == (expected,)

    def test_a_file_that_became_a_link_is_refused(self, tmp_path: Path) -> None:
        models = found(write_family(tmp_path, [0.0]))
        path = tmp_path / "turned-0.0.onnx"
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")

        with pytest.raises(InputError, match=r"turned-0\.0\.onnx: cannot be read"):
            identify(models)


class TestReceive:
    def test_the_store_has_the_bytes_of_every_file(self, tmp_path: Path, store: ArtifactStore) -> None:
        folder = write_model_folder(tmp_path / "models" / "a")
        models = found(folder.parent)
        (candidate,) = identify(models)

        receive(models, [candidate], store)

        assert set(candidate.files) == {"model.onnx", DATA, "deep/vocabulary.txt"}
        for name, artifact in candidate.files.items():
            assert store.is_intact(artifact)
            assert store.path(artifact.sha256).read_bytes() == (folder / name).read_bytes()

    def test_merged_candidates_are_received_once(self, tmp_path: Path, store: ArtifactStore) -> None:
        for name in ("a", "b"):
            write_model_folder(tmp_path / "models" / name)
        models = found(tmp_path / "models")

        receive(models, identify(models), store)

        assert len(list((tmp_path / "store" / "blobs" / "sha256").iterdir())) == 3

    def test_a_damaged_file_in_the_store_is_replaced_from_the_source(self, tmp_path: Path, store: ArtifactStore) -> None:
        models = found(write_model_folder(tmp_path / "models" / "a").parent)
        (candidate,) = identify(models)
        receive(models, [candidate], store)
        blob = store.path(candidate.files[DATA].sha256)
        blob.chmod(0o644)
        blob.write_bytes(b"damaged")
        assert not store.is_intact(candidate.files[DATA])

        receive(models, [candidate], store)

        assert store.is_intact(candidate.files[DATA])

    @pytest.mark.parametrize("name", ["model.onnx", DATA, "deep/vocabulary.txt"])
    def test_a_file_that_changed_since_it_was_identified_is_refused(
        self, tmp_path: Path, store: ArtifactStore, name: str
    ) -> None:
        path = write_model_folder(tmp_path / "models" / "a") / name
        models = found(tmp_path / "models")
        candidates = identify(models)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

        with pytest.raises(ArtifactError) as caught:
            receive(models, candidates, store)

        assert str(caught.value) == f"{path} changed while it was being received; leave it alone and run again"
        assert candidates[0].files[name].sha256 not in store

    @pytest.mark.parametrize("became", ["gone", "link"])
    def test_a_file_that_went_away_since_it_was_identified_is_refused(
        self, tmp_path: Path, store: ArtifactStore, became: str
    ) -> None:
        path = write_model_folder(tmp_path / "models" / "a") / DATA
        models = found(tmp_path / "models")
        candidates = identify(models)
        path.rename(tmp_path / DATA)
        if became == "link":
            path.symlink_to(tmp_path / DATA)

        with pytest.raises(ArtifactError, match=f"{DATA} cannot be stored"):
            receive(models, candidates, store)

    def test_what_the_store_has_is_not_read_again(self, tmp_path: Path, store: ArtifactStore) -> None:
        models = found(write_model_folder(tmp_path / "models" / "a").parent)
        candidates = identify(models)
        receive(models, candidates, store)
        shutil.rmtree(tmp_path / "models")

        receive(models, candidates, store)


class TestLayOut:
    @pytest.mark.parametrize("entry", [None, "renamed.onnx"])
    def test_a_candidate_runs_from_where_it_was_laid_out(self, tmp_path: Path, store: ArtifactStore, entry: str | None) -> None:
        models = found(write_model_folder(tmp_path / "models" / "a").parent)
        (candidate,) = identify(models)
        receive(models, [candidate], store)
        shutil.rmtree(tmp_path / "models")

        model = lay_out(candidate, store, tmp_path / "out", entry)

        assert model == tmp_path / "out" / (entry or "model.onnx")
        laid_out = {path.relative_to(tmp_path / "out").as_posix() for path in model.parent.rglob("*") if path.is_file()}
        assert laid_out == {model.name, DATA, "deep/vocabulary.txt"}
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        samples, _ = points(5)
        np.testing.assert_allclose(session.run(None, {"x": samples})[0], samples @ CENTRES.T, rtol=1e-5)

    def test_two_candidates_with_data_of_one_name_do_not_mix(self, tmp_path: Path, store: ArtifactStore) -> None:
        write_model_folder(tmp_path / "models" / "a")
        write_model_folder(tmp_path / "models" / "b", error=0.5)
        models = found(tmp_path / "models")
        candidates = identify(models)
        receive(models, candidates, store)

        laid_out = [lay_out(candidate, store, tmp_path / candidate.name) for candidate in candidates]

        weights = [(model.parent / DATA).read_bytes() for model in laid_out]
        assert weights == [(tmp_path / "models" / name / DATA).read_bytes() for name in ("a", "b")]
        assert weights[0] != weights[1]

    def test_a_candidate_whose_bytes_are_missing_is_refused(self, tmp_path: Path, store: ArtifactStore) -> None:
        (candidate,) = identify(found(write_model_folder(tmp_path / "models" / "a").parent))

        with pytest.raises(ArtifactError, match="is missing from the result storage"):
            lay_out(candidate, store, tmp_path / "out")


def test_receiving_needs_no_more_than_what_was_identified(tmp_path: Path, store: ArtifactStore) -> None:
    """Later files beside the models are no part of the candidates, also where they are in their folders."""
    folder = write_model_folder(tmp_path / "models" / "a")
    models = found(tmp_path / "models")
    candidates = identify(models)
    (folder / "later").write_text("later")
    os.utime(folder / DATA)

    receive(models, candidates, store)

    assert set(candidates[0].files) == {"model.onnx", DATA, "deep/vocabulary.txt"}
