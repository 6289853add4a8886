"""The model that is served: its session, on exactly the provider that it was measured on, and what may be fed to it."""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from . import SERVING_NAME, SETTINGS_NAME
from .tensors import DATATYPES, Array, BadRequest, Json, datatype_of

CPU = "CPUExecutionProvider"
NVIDIA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
PLUGIN_FOLDER = "{plugin}"
ONNX_TYPES = {"float16": "FP16", "float": "FP32", "double": "FP64", "string": "BYTES"}
BAD_INPUT = ("InvalidArgument", "RuntimeException", "Fail")  # what a run raises for shapes that do not go together


class Unservable(Exception):
    """The model cannot be served as it was measured; the message says why."""


class Model:
    """A session for the model in a folder, with the settings that lie there."""

    def __init__(self, folder: Path) -> None:
        """Create the session.

        Raises:
            Unservable: the provider is not here or does not take all nodes; nothing falls back to the CPU silently.
        """
        self.serving = json.loads((folder / SERVING_NAME).read_text(encoding="utf-8"))
        settings = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        self.provider, provider_options = settings["execution_provider"][0]
        try:
            self.session = self._open(folder / self.serving["model_path"], provider_options, settings["session_options"])
        except Exception as error:
            raise Unservable(f"it does not run on {self.provider}: {error}") from error
        self.placement = _placement(self.session)
        if set(self.placement) - {self.provider} or self.session.get_providers()[0] != self.provider:
            raise Unservable(f"not all of its nodes run on {self.provider}, but {self.placement}")
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}

    @property
    def name(self) -> str:
        """Its name in addresses."""
        return str(self.serving["name"])

    @property
    def version(self) -> str:
        """The digest of the candidate."""
        return str(self.serving["version"])

    @property
    def metadata(self) -> Json:
        """What the protocol tells of a model, and as `parameters` what it runs on."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "onnxruntime_onnx",
            "inputs": [_described(value) for value in self.inputs.values()],
            "outputs": [_described(value) for value in self.outputs.values()],
            "parameters": {
                "accelerator": self.serving["accelerator"],
                "execution_provider": self.provider,
                "onnxruntime": ort.__version__,
                "placement": self.placement,
            },
        }

    def infer(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Any]:
        """Return the outputs of these names. Raises BadRequest where the session does not take the feed."""
        try:
            return list(self.session.run(list(outputs), dict(feed)))
        except Exception as error:
            if type(error).__name__ in BAD_INPUT:
                raise BadRequest(f"the model cannot be run on this: {error}") from error
            raise

    def check_feed(self, feed: Mapping[str, Array]) -> None:
        """Raise BadRequest unless the feed has all inputs of the model, and no others, with their types and shapes."""
        if unknown := sorted(feed.keys() - self.inputs.keys()):
            raise BadRequest(f"there is no input {unknown[0]!r}; there are {', '.join(map(repr, self.inputs))}")
        if missing := sorted(self.inputs.keys() - feed.keys()):
            raise BadRequest(f"the input {missing[0]!r} is missing")
        for name, array in feed.items():
            wanted = _described(self.inputs[name])
            if datatype_of(array) != wanted["datatype"]:
                raise BadRequest(f"the input {name!r} is {datatype_of(array)} and should be {wanted['datatype']}")
            sizes = zip(array.shape, wanted["shape"], strict=False)
            if array.ndim != len(wanted["shape"]) or any(size not in (-1, given) for given, size in sizes):
                raise BadRequest(f"the input {name!r} has the shape {list(array.shape)} and should have {wanted['shape']}")

    def _open(self, path: Path, provider_options: dict[str, str], settings: Json) -> Any:
        options = _session_options(settings)
        for name, size in self.serving["dimensions"].items():
            options.add_free_dimension_override_by_name(name, size)
        if self.provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if self.provider in NVIDIA and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # CUDA and cuDNN, where they are installed as wheels
        if not (plugin := self.serving["plugin"]):
            return ort.InferenceSession(
                str(path), options, providers=[self.provider], provider_options=[provider_options], enable_fallback=0
            )
        library = str(importlib.import_module(plugin).get_library_path())
        ort.register_execution_provider_library(self.provider, library)
        devices = [device for device in ort.get_ep_devices() if device.ep_name == self.provider]
        mine = [device for device in devices if device.device.type.name.lower() == self.serving["device"]]
        if not mine:
            raise Unservable(f"{plugin} finds no {self.serving['device']} here")
        given = {key: value.replace(PLUGIN_FOLDER, str(Path(library).parent)) for key, value in provider_options.items()}
        options.add_provider_for_devices(mine[:1], given)
        return ort.InferenceSession(str(path), options, enable_fallback=0)


def _session_options(settings: Json) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for name, value in settings.items():
        if value is None:
            continue
        if name == "extra_session_config":
            for key, entry in value.items():
                options.add_session_config_entry(key, entry)
        elif name == "execution_mode":
            options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if value else ort.ExecutionMode.ORT_SEQUENTIAL
        elif name == "graph_optimization_level":
            options.graph_optimization_level = ort.GraphOptimizationLevel(value)
        else:
            setattr(options, name, value)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _placement(session: Any) -> dict[str, int]:
    """Count the nodes that each provider runs."""
    counts: dict[str, int] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        counts[subgraph.ep_name] = counts.get(subgraph.ep_name, 0) + len(subgraph.get_nodes())
    return counts


def _described(value: Any) -> Json:
    """Return name, datatype and shape of an input or output; -1 is any size, and what is no tensor is no datatype."""
    element = value.type.removeprefix("tensor(").removesuffix(")")
    datatype = ONNX_TYPES.get(element, element.upper())
    shape = [size if isinstance(size, int) else -1 for size in value.shape or []]
    return {"name": value.name, "datatype": datatype if datatype in DATATYPES else value.type, "shape": shape}
