"""What a candidate is graded on: a device and the execution provider that drives it."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from packhouse.pins import parse_runtime
from packhouse.records import Record

DEFAULT_PROVIDER = "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
PROVIDER_SUFFIX = "ExecutionProvider"
PLUGIN_FOLDER = "{plugin}"  # in provider options: the folder of the plug-in's library

# Names that onnxruntime, its distributions and their plug-in libraries register providers under; others need `plugin`.
KNOWN_PROVIDERS = (
    "ACLExecutionProvider",
    "ArmNNExecutionProvider",
    "AzureExecutionProvider",
    "CANNExecutionProvider",
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "DnnlExecutionProvider",
    "JsExecutionProvider",
    "MIGraphXExecutionProvider",
    "NnapiExecutionProvider",
    "NvTensorRTRTXExecutionProvider",
    "OpenVINOExecutionProvider",
    "QNNExecutionProvider",
    "ROCMExecutionProvider",
    "RknpuExecutionProvider",
    "SNPEExecutionProvider",
    "TensorrtExecutionProvider",
    "TvmExecutionProvider",
    "VSINPUExecutionProvider",
    "VitisAIExecutionProvider",
    "WebGpuExecutionProvider",
    "WebNNExecutionProvider",
    "XnnpackExecutionProvider",
)


class SessionOptions(Record):
    """ONNX Runtime session options under the names that Olive writes; unset options keep the runtime's defaults."""

    execution_mode: Literal[0, 1] | None = Field(default=None, description="0 sequential, 1 parallel.")
    graph_optimization_level: Literal[0, 1, 2, 3, 99] | None = Field(
        default=None, description="0 disabled, 1 basic, 2 extended, 3 layout, 99 all."
    )
    inter_op_num_threads: int | None = Field(default=None, ge=0, description="Threads between operators.")
    intra_op_num_threads: int | None = Field(default=None, ge=0, description="Threads within an operator.")
    extra_session_config: dict[str, str] | None = Field(
        default=None, description="Further session configuration entries, for example session.intra_op.allow_spinning."
    )

    def overridden_by(self, other: "SessionOptions") -> "SessionOptions":
        """Return these options with every option that `other` sets taken from it."""
        return SessionOptions.model_validate({**self.model_dump(), **other.model_dump(exclude_none=True)})


class InferenceSettings(Record):
    """How a candidate wants to be run: what its optimisation tuned, in Olive's terms."""

    execution_provider: str | None = None
    provider_options: dict[str, str] = {}
    session_options: SessionOptions = SessionOptions()


class SessionSettings(Record):
    """How a session is created: what an accelerator says, with a candidate's own settings on top."""

    execution_provider: str
    provider_options: dict[str, str]
    session_options: SessionOptions

    @property
    def threads(self) -> int | None:
        """The number of threads that it computes on; None if the execution provider, or the runtime, chooses."""
        options = self.session_options
        if self.execution_provider == OPENVINO and self.provider_options.get("device_type", "CPU") == "CPU":
            given = self.provider_options.get("num_of_threads", "")
            return int(given) if given.isdecimal() else None
        if self.execution_provider != DEFAULT_PROVIDER or (options.execution_mode and options.inter_op_num_threads != 1):
            return None
        return options.intra_op_num_threads or None


class Accelerator(Record):
    """A device with an execution provider and its options, written as a spec such as ``cpu-cpu`` or ``npu-qnn``."""

    device: Literal["cpu", "gpu", "npu"] = Field(default="cpu", description="Kind of device.")
    execution_provider: str = Field(
        default=DEFAULT_PROVIDER,
        description="ONNX Runtime execution provider that must run every node of the model.",
        examples=["CPUExecutionProvider", "CUDAExecutionProvider", "QNNExecutionProvider"],
    )
    provider_options: dict[str, str] = Field(default={}, description="Options passed to the execution provider, as text.")
    session_options: SessionOptions = Field(
        default=SessionOptions(), description="Session options; a candidate's own inference settings override them."
    )
    runtime: tuple[str, ...] = Field(
        default=(),
        description="Pinned packages of an environment of its own, with one onnxruntime distribution among them; "
        "without them the onnxruntime of Packhouse's environment is used.",
        examples=["onnxruntime-openvino==1.24.1", ["onnxruntime==1.31.1", "onnxruntime-qnn==2.7.0"]],
    )
    plugin: str | None = Field(
        default=None,
        description="Import name of the package that has the execution provider as a plug-in library; "
        "`{plugin}` in provider options is the folder of that library.",
        examples=["onnxruntime_qnn"],
    )

    dimensions: dict[str, int] = Field(
        default={},
        description="Dynamic dimensions of the models to fix, by name; many providers for NPUs take no others.",
        examples=[{"batch": 1}],
    )
    concurrency_limit: str | None = Field(
        default=None,
        min_length=1,
        description="Prefect global concurrency limit to hold while timing, where machines share a device; it has to exist. "
        "By default one for this host and device, which is made.",
    )

    @field_validator("device", mode="before")
    @classmethod
    def _lower_case_device(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("dimensions")
    @classmethod
    def _dimensions_have_a_size(cls, value: dict[str, int]) -> dict[str, int]:
        if bad := next((name for name, size in value.items() if size < 1), None):
            raise ValueError(f"the dimension {bad!r} is {value[bad]}; give a size of 1 or more")
        return value

    @field_validator("provider_options", mode="before", json_schema_input_type=dict[str, str | int | float | bool])
    @classmethod
    def _options_as_text(cls, value: object) -> object:
        """Write numbers and truth values as onnxruntime does; anything else but text is refused."""
        if not isinstance(value, dict):
            return value
        return {key: str(item) if isinstance(item, int | float) else item for key, item in value.items()}

    @field_validator("runtime", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("runtime")
    @classmethod
    def _runtime_is_pinned(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(str, parse_runtime(value)))

    @field_validator("plugin")
    @classmethod
    def _plugin_is_a_module(cls, value: str | None) -> str | None:
        if value is not None and not all(part.isidentifier() for part in value.split(".")):
            raise ValueError(f"{value!r} is not the name of a Python module; write it as in import, such as onnxruntime_qnn")
        return value

    @model_validator(mode="after")
    def _plugin_makes_sense(self) -> "Accelerator":
        if self.plugin and self.execution_provider == DEFAULT_PROVIDER:
            raise ValueError(
                f"{DEFAULT_PROVIDER} is built into onnxruntime and comes from no plug-in; "
                f"name the execution provider of {self.plugin}, or leave out plugin"
            )
        if self.plugin and not re.search("[A-Za-z0-9]", self.execution_provider):
            raise ValueError(f"{self.execution_provider!r} is no name of an execution provider; write that of {self.plugin}")
        used = next((key for key, value in self.provider_options.items() if PLUGIN_FOLDER in value), None)
        if used and not self.plugin:
            raise ValueError(f"provider option {used!r} has {PLUGIN_FOLDER}, and there is no plug-in; set plugin")
        return self

    @model_validator(mode="after")
    def _provider_is_known(self) -> "Accelerator":
        if self.execution_provider not in KNOWN_PROVIDERS and not self.plugin:
            names = {name.removesuffix(PROVIDER_SUFFIX).lower(): name for name in KNOWN_PROVIDERS}
            close = difflib.get_close_matches(self.execution_provider.lower().split("exec")[0], names, 1)
            hint = f"did you mean {names[close[0]]}?" if close else f"use one of {', '.join(KNOWN_PROVIDERS)}."
            hint += " For one that a plug-in brings, set plugin too"
            raise ValueError(f"unknown execution provider {self.execution_provider!r}; {hint}")
        return self

    @property
    def spec(self) -> str:
        """Device, dash, provider without its suffix in lower case, with single dashes: ``gpu-cuda``, ``cpu-cpu-ep``."""
        provider = self.execution_provider.removesuffix(PROVIDER_SUFFIX) or self.execution_provider
        return f"{self.device}-{re.sub('[^a-z0-9]+', '-', provider.lower()).strip('-')}"

    @property
    def identity(self) -> dict[str, Any]:
        """What a measurement on it depends on, as JSON."""
        return self.model_dump(mode="json", exclude={"concurrency_limit"})

    def devices(self, candidates: Iterable[InferenceSettings] = ()) -> tuple[str, ...]:
        """Return the physical devices that candidates occupy: the CPU, which takes part in all work, and ``gpu-0`` besides."""
        sessions = [self.session_for(settings) for settings in (*candidates, InferenceSettings())]
        others = {f"{self.device}-{session.provider_options.get('device_id', '0')}" for session in sessions}
        return ("cpu",) if self.device == "cpu" else ("cpu", *sorted(others))

    def session_for(self, settings: InferenceSettings) -> SessionSettings:
        """Return the settings of a session for a candidate; provider options are only taken from the same provider."""
        tuned = settings.provider_options if settings.execution_provider == self.execution_provider else {}
        return SessionSettings(
            execution_provider=self.execution_provider,
            provider_options={**self.provider_options, **tuned},
            session_options=self.session_options.overridden_by(settings.session_options),
        )
