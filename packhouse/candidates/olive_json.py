"""The JSON that Olive writes, as far as it is needed here, in the shapes of all versions from 0.7 to 0.13."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from packhouse.accelerators import InferenceSettings, SessionOptions
from packhouse.errors import InputError

COPY_AGAIN = "copy Olive's output again"

T = TypeVar("T")
History = dict[str, dict[str, Any] | None]


def _as_text(options: object) -> object:
    if not isinstance(options, dict):
        return options
    return {key: str(value) for key, value in options.items() if value is not None}


def _as_session_options(options: object) -> object:
    if not isinstance(options, dict):
        return options
    known = {**options, "extra_session_config": _as_text(options.get("extra_session_config"))}
    return {key: value for key, value in known.items() if value is not None}


class OliveJson(BaseModel):
    """What we need of something that Olive wrote."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Options = Annotated[dict[str, str], BeforeValidator(_as_text)]


class Inference(OliveJson):
    """A model's inference settings: providers by name, or as pairs of name and options."""

    execution_provider: list[str | tuple[str, Options | None]] | None = None
    provider_options: list[Options | None] | None = None
    session_options: Annotated[SessionOptions, BeforeValidator(_as_session_options)] | None = None


class OnnxModel(OliveJson):
    """The configuration of an ONNX model: a file, or a folder and the name of the file in it."""

    path: Path = Field(alias="model_path")
    file_name: str | None = Field(default=None, alias="onnx_file_name")
    inference: Inference | None = Field(default=None, alias="inference_settings")

    @property
    def settings(self) -> InferenceSettings:
        """The settings with the first provider only; those after it are fallbacks, which nothing is graded on."""
        inference = self.inference or Inference()
        first = next(iter(inference.execution_provider or ()), None)
        provider, options = first if isinstance(first, tuple) else (first, None)
        return InferenceSettings(
            execution_provider=provider,
            provider_options=options or next(iter(inference.provider_options or ()), None) or {},
            session_options=inference.session_options or SessionOptions(),
        )


class Model(OliveJson):
    """A model of any type."""

    type: str = ""
    config: dict[str, Any] = {}
    is_pruned: bool = False


class PackagedModel(OliveJson):
    """An entry of ``models_rank.json``, and the content of ``model_info.json``."""

    model: Model = Field(alias="model_config")


class Node(OliveJson):
    """A node of a footprint: a model, what it was made of, and by which configuration of a pass."""

    parent: str | None = Field(default=None, alias="parent_model_id")
    model: Model | None = Field(default=None, validation_alias=AliasChoices("model_config_data", "model_config"))
    pass_run_config: dict[str, Any] | None = None
    is_pareto_frontier: bool = False
    is_pruned: bool = False
    metrics: dict[str, Any] | None = None


FOOTPRINT = TypeAdapter(dict[str, Node])
MODEL = TypeAdapter(Model)
PACKAGED_MODEL = TypeAdapter(PackagedModel)
HISTORY = TypeAdapter(Annotated[History, Field(min_length=1)])


def read_json(kind: TypeAdapter[T], file: Path) -> T:
    """Return what is in a file. Raises InputError where it cannot be read, or is of another shape."""
    try:
        return kind.validate_json(file.read_bytes())
    except OSError as error:
        raise InputError.at(str(file), f"cannot be read ({error.strerror})", COPY_AGAIN) from error
    except ValidationError as error:
        raise _malformed(str(file), error) from error


def _malformed(where: str, error: ValidationError) -> InputError:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    what = f"{place} is not what Packhouse knows of Olive ({first['msg']})" if place else first["msg"]
    return InputError.at(where, what, f"{COPY_AGAIN}, or list the models yourself (candidates.type = list)")


def onnx_model(model: Model, where: str) -> OnnxModel:
    """Return the configuration of an ONNX model. Raises InputError for a model of another type."""
    if model.type.lower() != "onnxmodel":
        what = f"is a model of type {model.type!r}, and a candidate is a single ONNX model"
        raise InputError.at(where, what, "end Olive's passes with one that makes an ONNXModel")
    try:
        return OnnxModel.model_validate(model.config)
    except ValidationError as error:
        raise _malformed(where, error) from error
