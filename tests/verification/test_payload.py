"""The payload: every sample has an id, by which answers find their labels, and each has to be answered once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.errors import VerificationFailed
from packhouse.verification.payload import Payload
from tests.packaging_jobs import ONE, make_packing

IDS, LABELS = np.array(["a", "b", "c", "d"]), np.array([10, 11, 12, 13])


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    path = tmp_path_factory.mktemp("payload") / "payload.npz"
    np.savez(path, ids=IDS, labels=LABELS, input_0=np.eye(4, dtype=np.float32))
    return Payload(path, {"x": "input_0"})


def test_the_payload_of_a_job_is_what_its_candidates_were_evaluated_on(tmp_path: Path) -> None:
    packing = make_packing(tmp_path, ONE)
    payload = Payload.of(packing.job, packing.workplace.store)
    with np.load(tmp_path / "points.npz") as points:
        assert np.array_equal(payload.inputs(["x"])["x"], points["x"])
        assert np.array_equal(payload.labels_of(payload.ids), points["label"])


def test_inputs_are_found_by_the_names_that_the_model_has_for_them(payload: Payload) -> None:
    assert np.array_equal(payload.inputs(["x"])["x"], np.eye(4))


@given(st.permutations(range(4)))
def test_labels_follow_their_ids_in_any_order(payload: Payload, order: list[int]) -> None:
    assert payload.labels_of(IDS[order]).tolist() == LABELS[order].tolist()


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (["a", "b", "c"], "it gave no answer for 1 of 4 samples, 'd' among them"),
        ([], "it gave no answer for 4 of 4 samples, 'a' among them"),
        (["a", "b", "c", "d", "b"], "it answered twice for the sample 'b'"),
        (["a", "b", "b", "d"], "it answered twice for the sample 'b'"),
        (["a", "b", "c", "e"], "it answered for the sample 'e', which was never asked for"),
        (["a", "b", "c", "d", "e"], "it answered for the sample 'e', which was never asked for"),
        ([0, 1, 2, 3], "it answered for the sample 0, which was never asked for"),
    ],
)
def test_an_id_that_is_missing_or_unknown_or_there_twice_is_refused(payload: Payload, ids: list[Any], reason: str) -> None:
    with pytest.raises(VerificationFailed, match=f"^{reason}$"):
        payload.labels_of(np.array(ids))


class CountedText(str):
    """A text that counts how often it was looked up."""

    lookups = 0

    def __hash__(self) -> int:
        CountedText.lookups += 1
        return super().__hash__()


def test_answers_for_many_samples_are_not_gone_through_again_for_each_of_them(tmp_path: Path) -> None:
    ids = [f"sample {number}" for number in range(1000)]
    np.savez(tmp_path / "payload.npz", ids=np.array(ids), labels=np.arange(1000))
    payload = Payload(tmp_path / "payload.npz", {})
    assert payload.labels_of(np.array([CountedText(sample) for sample in ids], dtype=object)).tolist() == list(range(1000))
    assert CountedText.lookups <= 10 * len(ids)
