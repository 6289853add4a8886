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
        written: Any = {"device_id": 0, "ratio": 0.5, "use_tf32": True, "backend_path": "libQnnHtp.so"}

        assert Accelerator(provider_options=written).provider_options == {
            "device_id": "0",
            "ratio": "0.5",
            "use_tf32": "True",
            "backend_path": "libQnnHtp.so",
        }

    @pytest.mark.parametrize("value", [None, ["0"], {"id": 0}])
    def test_provider_options_that_have_no_text_are_refused(self, value: Any) -> None:
        with pytest.raises(ValidationError, match="device_id"):
            Accelerator(provider_options={"device_id": value})

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


class TestRuntime:
    def test_by_default_there_is_none_and_no_plugin(self) -> None:
        assert (Accelerator().runtime, Accelerator().plugin) == ((), None)

    @pytest.mark.parametrize("written", ["OnnxRuntime_OpenVINO == 1.24.1", ["onnxruntime-openvino==1.24.1"]])
    def test_it_is_one_package_or_a_list_of_them_in_canonical_form(self, written: Any) -> None:
        assert Accelerator(runtime=written).runtime == ("onnxruntime-openvino==1.24.1",)

    @pytest.mark.parametrize(
        ("written", "what"),
        [
            ("onnxruntime-gpu", "is not pinned to one version, so results could not be compared; write name==version"),
            (["onnxruntime==1.31.1", "onnxruntime-gpu==1.31.1"], "are both distributions of onnxruntime"),
            ("onnxruntime-qnn==2.7.0", "there is no distribution of onnxruntime"),
            (["onnxruntime==1.31.1", 3], "should be a valid string"),
        ],
    )
    def test_what_is_no_runtime_is_refused(self, written: Any, what: str) -> None:
        with pytest.raises(ValidationError, match=what):
            Accelerator(runtime=written)

    def test_equal_runtimes_make_equal_accelerators(self) -> None:
        one = Accelerator(runtime=("onnxruntime==1.31.1", "onnxruntime-qnn==2.7.0"))
        other = Accelerator(runtime=("onnxruntime-qnn==2.7.0", "onnxruntime==1.31.1"))

        assert one.content_digest == other.content_digest

    @pytest.mark.parametrize(
        ("provider", "spec"),
        [("cpu_ep", "cpu-cpu-ep"), ("My.Fancy EP", "cpu-my-fancy-ep"), ("QNNExecutionProvider", "cpu-qnn"), ("__x", "cpu-x")],
    )
    def test_a_plugin_may_call_its_provider_what_it_likes_and_the_spec_is_in_plain_letters(
        self, provider: str, spec: str
    ) -> None:
        assert Accelerator(execution_provider=provider, plugin="some_plugin").spec == spec

    def test_an_unknown_provider_without_a_plugin_is_refused_with_a_word_on_plugins(self) -> None:
        with pytest.raises(
            ValidationError, match=r"unknown execution provider 'cpu_ep'.*that a plug-in brings, set plugin too"
        ):
            Accelerator(execution_provider="cpu_ep")

    @pytest.mark.parametrize("name", ["onnxruntime-qnn", "", "a b", ".a", "a..b", "1a", "/tmp/a.so"])
    def test_a_plugin_that_is_no_module_name_is_refused(self, name: str) -> None:
        with pytest.raises(ValidationError, match="is not the name of a Python module; write it as in import"):
            Accelerator(execution_provider="QNNExecutionProvider", plugin=name)

    def test_the_built_in_cpu_provider_comes_from_no_plugin(self) -> None:
        with pytest.raises(ValidationError, match=r"is built into onnxruntime.*; name the execution provider of nxrt_ep_cpu"):
            Accelerator(plugin="nxrt_ep_cpu")

    @pytest.mark.parametrize("name", ["", "__", "–"])
    def test_a_provider_without_a_letter_is_refused(self, name: str) -> None:
        with pytest.raises(ValidationError, match="is no name of an execution provider"):
            Accelerator(execution_provider=name, plugin="a")

    def test_the_folder_of_a_plugin_needs_a_plugin(self) -> None:
        options = {"backend_path": "{plugin}/libQnnHtp.so"}
        with pytest.raises(ValidationError, match=r"'backend_path' has \{plugin\}, and there is no plug-in; set plugin"):
            Accelerator(execution_provider="QNNExecutionProvider", provider_options=options)

        kept = Accelerator(execution_provider="QNNExecutionProvider", provider_options=options, plugin="onnxruntime_qnn")
        assert kept.provider_options == options


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
