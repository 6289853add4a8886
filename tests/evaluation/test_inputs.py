"""From an array in a file to what a model is fed: every type and shape, through the real worker, judged and timed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from packhouse.evaluation.data import Array, DataConfig, input_keys, select
from packhouse.evaluation.session_host import SessionHost
from tests.evaluation.models import Signature, candidates_with, floats

LARGEST = {kind: np.iinfo(kind) for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")}


def fed(folder: Path, signature: Signature, batch_size: int, **arrays: Any) -> dict[str, Array]:
    """Return what identities give back for arrays of a file, after they were timed on them in batches of that size."""
    np.savez(folder / "samples.npz", **arrays)
    dataset = select(DataConfig(path=folder / "samples.npz"), candidates_with(folder / "models", signature), needs_labels=False)
    dataset.save(folder / "data.npz")
    with SessionHost(folder) as host:
        host.ask("read_data", path=str(folder / "data.npz"), inputs=input_keys(dataset.inputs))
        host.ask(
            "create_session",
            model=str(folder / "models" / "0.onnx"),
            provider="CPUExecutionProvider",
            provider_options={},
            session_options={},
        )
        host.ask("prepare_timing", batch_size=batch_size)
        assert len(host.ask("time", runs=5)["wall_ns"]) == 5
        host.ask("predict", batch_size=batch_size, output=str(folder / "predictions.npz"), samples=None)
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return {name.removesuffix("_out"): file[name] for name in file.files}


@pytest.mark.parametrize("batch", ["n", 4])
@pytest.mark.parametrize("batch_size", [1, 3])
class TestEveryType:
    @pytest.mark.parametrize("kind", LARGEST)
    def test_integers_keep_their_least_and_greatest_values(
        self, tmp_path: Path, batch: Any, batch_size: int, kind: str
    ) -> None:
        values = np.array([[LARGEST[kind].min, 0], [1, LARGEST[kind].max]] * 3, kind)

        found = fed(tmp_path, {"x": (getattr(TensorProto, kind.upper()), (batch, 2))}, batch_size, x=values)

        assert found["x"].dtype == kind
        assert found["x"].tolist() == values.tolist()

    @pytest.mark.parametrize("stored", ["float16", "float32", "float64", ">f8", "int64", "uint8", "bool"])
    @pytest.mark.parametrize("kind", ["FLOAT16", "FLOAT", "DOUBLE"])
    def test_floats_are_made_of_any_numbers(self, tmp_path: Path, batch: Any, batch_size: int, stored: str, kind: str) -> None:
        values = np.array([[0, 1], [1, 0], [1, 1]]).astype(stored)

        found = fed(tmp_path, {"x": (getattr(TensorProto, kind), (batch, 2))}, batch_size, x=values)

        assert found["x"].dtype == {"FLOAT16": "float16", "FLOAT": "float32", "DOUBLE": "float64"}[kind]
        assert found["x"].tolist() == values.astype(float).tolist()

    @pytest.mark.parametrize("stored", ["bool", "uint8", "int64", "float32"])
    def test_bools_are_made_of_zeros_and_ones(self, tmp_path: Path, batch: Any, batch_size: int, stored: str) -> None:
        values = np.array([0, 1, 1, 0, 1]).astype(stored)

        found = fed(tmp_path, {"x": (TensorProto.BOOL, (batch,))}, batch_size, x=values)

        assert found["x"].tolist() == [False, True, True, False, True]

    def test_texts_keep_their_length_and_letters(self, tmp_path: Path, batch: Any, batch_size: int) -> None:
        values = np.array([["Grüße", ""], ["a\nb", "日本"], ["x" * 300, " "]])

        found = fed(tmp_path, {"x": (TensorProto.STRING, (batch, 2))}, batch_size, x=values)

        assert found["x"].tolist() == values.tolist()

    def test_dynamic_dimensions_are_those_of_the_data(self, tmp_path: Path, batch: Any, batch_size: int) -> None:
        signature = {
            "ids": (TensorProto.INT64, (batch, "sequence")),
            "mask": (TensorProto.INT32, (batch, "sequence")),
            "image": floats(batch, 3, None, None),
            "word": (TensorProto.STRING, (batch,)),
        }
        arrays = {
            "ids": np.arange(35).reshape(5, 7),
            "mask": np.ones((5, 7), bool),
            "image": np.random.default_rng(0).random((5, 3, 4, 6), np.float32),
            "word": np.array(list("abcde")),
        }

        found = fed(tmp_path, signature, batch_size, **arrays)

        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(("kind", "stored"), [("INT64", "float64"), ("UINT8", "float32"), ("INT8", "uint64")])
def test_whole_numbers_of_another_type_are_cast(tmp_path: Path, kind: str, stored: str) -> None:
    values = np.array([0, 3, 127]).astype(stored)

    assert fed(tmp_path, {"x": (getattr(TensorProto, kind), ("n",))}, 2, x=values)["x"].tolist() == [0, 3, 127]
