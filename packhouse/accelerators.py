"""What a candidate is graded on: a device and the execution provider that drives it."""

import difflib
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from packhouse.records import Record

DEFAULT_PROVIDER = "CPUExecutionProvider"
PROVIDER_SUFFIX = "ExecutionProvider"

# Names that onnxruntime, its distributions and its plug-in libraries register providers under.
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
    provider_options: dict[str, str] = Field(default={}, description="Options passed to the execution provider.")
    session_options: SessionOptions = Field(
        default=SessionOptions(), description="Session options; a candidate's own inference settings override them."
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

    @field_validator("provider_options", mode="before")
    @classmethod
    def _options_as_text(cls, value: object) -> object:
        return {key: str(item) for key, item in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _provider_is_known(self) -> "Accelerator":
        if self.execution_provider not in KNOWN_PROVIDERS:
            names = {name.removesuffix(PROVIDER_SUFFIX).lower(): name for name in KNOWN_PROVIDERS}
            close = difflib.get_close_matches(self.execution_provider.lower().split("exec")[0], names, 1)
            hint = f"did you mean {names[close[0]]}?" if close else f"use one of {', '.join(KNOWN_PROVIDERS)}"
            raise ValueError(f"unknown execution provider {self.execution_provider!r}; {hint}")
        return self

    @property
    def spec(self) -> str:
        """Device, dash, provider without its suffix in lower case: ``gpu-cuda``."""
        return f"{self.device}-{self.execution_provider.removesuffix(PROVIDER_SUFFIX).lower()}"

    @property
    def identity(self) -> dict[str, Any]:
        """What a measurement on it depends on, as JSON."""
        return self.model_dump(mode="json", exclude={"concurrency_limit"})

    @property
    def devices(self) -> tuple[str, ...]:
        """The physical devices that it occupies: the CPU, which takes part in all work, and ``gpu-0`` or ``npu-0`` besides."""
        return ("cpu",) if self.device == "cpu" else ("cpu", f"{self.device}-{self.provider_options.get('device_id', '0')}")

    def session_for(self, settings: InferenceSettings) -> SessionSettings:
        """Return the settings of a session for a candidate; provider options are only taken from the same provider."""
        tuned = settings.provider_options if settings.execution_provider == self.execution_provider else {}
        return SessionSettings(
            execution_provider=self.execution_provider,
            provider_options={**self.provider_options, **tuned},
            session_options=self.session_options.overridden_by(settings.session_options),
        )
