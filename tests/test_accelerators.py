"""Accelerators: how they are written, what they are called, and whose settings a session gets."""

from typing import Any

import pytest
from pydantic import ValidationError

from packhouse.accelerators import KNOWN_PROVIDERS, Accelerator, InferenceSettings, SessionOptions

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class TestAccelerator:
    def test_by_default_it_is_the_cpu(self) -> None:
        assert (Accelerator().spec, Accelerator().execution_provider) == ("cpu-cpu", CPU)

    @pytest.mark.parametrize(
        ("device", "provider", "spec"),
        [
            ("gpu", CUDA, "gpu-cuda"),
            ("GPU", "TensorrtExecutionProvider", "gpu-tensorrt"),
            ("npu", "QNNExecutionProvider", "npu-qnn"),
            ("cpu", "OpenVINOExecutionProvider", "cpu-openvino"),
        ],
    )
    def test_its_spec_is_device_and_provider(self, device: Any, provider: str, spec: str) -> None:
        assert Accelerator(device=device, execution_provider=provider).spec == spec

    def test_every_known_provider_gives_a_spec_of_its_own(self) -> None:
        specs = {Accelerator(execution_provider=provider).spec for provider in KNOWN_PROVIDERS}

        assert len(specs) == len(KNOWN_PROVIDERS)

    @pytest.mark.parametrize("written", ["cuda", "CUDA", "cudaexecutionprovider", "CudaExecutionProvider"])
    def test_a_provider_that_is_almost_right_is_suggested(self, written: str) -> None:
        with pytest.raises(ValidationError, match=f"unknown execution provider '{written}'; did you mean {CUDA}?"):
            Accelerator(execution_provider=written)

    def test_an_unknown_provider_is_refused_with_all_that_are_known(self) -> None:
        with pytest.raises(ValidationError, match=r"unknown execution provider 'AbacusExecutionProvider'; use one of ACL.*QNN"):
            Accelerator(execution_provider="AbacusExecutionProvider")

    @pytest.mark.parametrize("device", ["tpu", "", 3, None])
    def test_an_unknown_device_is_refused(self, device: Any) -> None:
        with pytest.raises(ValidationError, match="device"):
            Accelerator(device=device)

    def test_provider_options_are_texts_as_onnxruntime_wants_them(self) -> None:
        written: Any = {"device_id": 0, "ratio": 0.5, "backend_path": "libQnnHtp.so"}

        assert Accelerator(provider_options=written).provider_options == {
            "device_id": "0",
            "ratio": "0.5",
            "backend_path": "libQnnHtp.so",
        }

    @pytest.mark.parametrize(
        "options",
        [
            {"intra_op_num_threads": -1},
            {"execution_mode": 2},
            {"graph_optimization_level": 4},
            {"extra_session_config": {"key": 1}},
            {"intra_op_threads": 1},
        ],
    )
    def test_session_options_that_onnxruntime_would_not_take_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=next(iter(options))):
            SessionOptions.model_validate(options)


class TestSession:
    def test_options_of_the_candidate_win_and_the_others_stay(self) -> None:
        accelerator = Accelerator(session_options=SessionOptions(intra_op_num_threads=4, execution_mode=1))
        tuned = InferenceSettings(session_options=SessionOptions(intra_op_num_threads=1, graph_optimization_level=0))

        assert accelerator.session_for(tuned).session_options == SessionOptions(
            intra_op_num_threads=1, execution_mode=1, graph_optimization_level=0
        )

    def test_a_zero_of_the_candidate_is_an_option_too(self) -> None:
        accelerator = Accelerator(session_options=SessionOptions(execution_mode=1, intra_op_num_threads=4))
        tuned = InferenceSettings(session_options=SessionOptions(execution_mode=0, intra_op_num_threads=0))

        assert accelerator.session_for(tuned).session_options == tuned.session_options

    def test_a_candidate_without_settings_runs_as_the_accelerator_says(self) -> None:
        accelerator = Accelerator(
            device="gpu",
            execution_provider=CUDA,
            provider_options={"device_id": "1"},
            session_options=SessionOptions(intra_op_num_threads=2),
        )

        session = accelerator.session_for(InferenceSettings())

        assert session.execution_provider == CUDA
        assert session.provider_options == {"device_id": "1"}
        assert session.session_options == SessionOptions(intra_op_num_threads=2)

    def test_provider_options_that_were_tuned_for_the_same_provider_are_added(self) -> None:
        accelerator = Accelerator(execution_provider=CUDA, provider_options={"device_id": "1", "use_tf32": "0"})
        tuned = InferenceSettings(execution_provider=CUDA, provider_options={"use_tf32": "1", "prefer_nhwc": "1"})

        expected = {"device_id": "1", "use_tf32": "1", "prefer_nhwc": "1"}
        assert accelerator.session_for(tuned).provider_options == expected

    @pytest.mark.parametrize("provider", [CPU, None])
    def test_provider_options_that_were_tuned_for_another_provider_are_left_out(self, provider: str | None) -> None:
        accelerator = Accelerator(execution_provider=CUDA, provider_options={"device_id": "1"})
        tuned = InferenceSettings(execution_provider=provider, provider_options={"use_arena": "0"})

        session = accelerator.session_for(tuned)

        assert (session.execution_provider, session.provider_options) == (CUDA, {"device_id": "1"})

    def test_settings_are_made_and_neither_side_is_changed(self) -> None:
        accelerator = Accelerator(execution_provider=CUDA, provider_options={"device_id": "1"})
        tuned = InferenceSettings(execution_provider=CUDA, provider_options={"use_tf32": "1"})
        before = accelerator.model_dump_json(), tuned.model_dump_json()

        accelerator.session_for(tuned)

        assert (accelerator.model_dump_json(), tuned.model_dump_json()) == before
