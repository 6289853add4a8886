"""Write a network as an ONNX file, and quantise one.

All models take `image`, float32 (batch, 1, 8, 8), and return `logits`, float32 (batch, 10).
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from network import CLASSES, IMAGE_SIDE, KERNEL_SIDE, STRIDES, FloatArray, Layer, Network
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

OPSET = 17
IR_VERSION = 8
# Named here because the quantiser's own list comes from a set, whose order differs from run to run.
DYNAMIC_OPERATORS = ["Conv", "MatMul"]
STATIC_OPERATORS = ["Conv", "Gemm", "Relu", "Flatten"]


def write_onnx(network: Network, path: Path, *, half: bool = False) -> None:
    """Write `network` to `path`; `half` stores the weights as float16, which the runtime widens once, on loading."""
    chain = _Chain(half)
    for name, layer, stride in zip(("convolution_1", "convolution_2"), network[:2], STRIDES, strict=True):
        chain.append("Conv", name, _kernels(layer), pads=[1, 1, 1, 1], strides=[stride, stride])
        chain.append("Relu", f"{name}_relu")
    chain.append("Flatten", "features")
    chain.append("Gemm", "hidden", _channels_first(network.hidden, len(network.convolution_2.bias)))
    chain.append("Relu", "hidden_relu")
    chain.append("Gemm", "logits", network.output)
    chain.write(path)


def quantise_dynamically(source: Path, target: Path) -> None:
    """Write `source` with int8 weights to `target`; the ranges of activations are found anew for every input."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepare(source, Path(folder))
        quantize_dynamic(prepared, target, op_types_to_quantize=DYNAMIC_OPERATORS, reduce_range=True)


def quantise_statically(source: Path, target: Path, images: FloatArray) -> None:
    """Write `source` with int8 weights and activations to `target`; their ranges come from `images` (n, 1, 8, 8)."""
    with tempfile.TemporaryDirectory() as folder:
        quantize_static(
            _prepare(source, Path(folder)),
            target,
            _CalibrationData(images),
            op_types_to_quantize=STATIC_OPERATORS,
            activation_type=QuantType.QUInt8,
            per_channel=True,
            # 7-bit weights cannot overflow on processors without VNNI, so accuracy is the same everywhere.
            reduce_range=True,
        )


def _prepare(source: Path, folder: Path) -> Path:
    """Add the shapes that the quantisers ask for."""
    prepared = folder / source.name
    quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    return prepared


class _CalibrationData:
    """One batch of images, read the way `quantize_static` reads."""

    def __init__(self, images: FloatArray) -> None:
        self._batches = iter([{"image": images}])

    def get_next(self) -> dict[str, FloatArray] | None:
        return next(self._batches, None)


def _kernels(convolution: Layer) -> Layer:
    """Return the weights (positions * channels, outputs) as ONNX has them: (outputs, channels, 3, 3)."""
    weight = convolution.weight.reshape(KERNEL_SIDE, KERNEL_SIDE, -1, len(convolution.bias))
    return Layer(weight.transpose(3, 2, 0, 1), convolution.bias)


def _channels_first(dense: Layer, channels: int) -> Layer:
    """Return the layer for inputs (channels, positions), as ONNX flattens them, instead of (positions, channels)."""
    weight = dense.weight.reshape(-1, channels, len(dense.bias))
    return Layer(weight.transpose(1, 0, 2).reshape(dense.weight.shape), dense.bias)


@dataclass
class _Chain:
    """An ONNX graph in which every node takes the value of the one before and is named after what it computes."""

    half: bool
    value: str = "image"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def append(self, operator: str, name: str, layer: Layer | None = None, **attributes: list[int]) -> None:
        weights = [self._store(f"{name}_{part}", array) for part, array in layer._asdict().items()] if layer else []
        node = helper.make_node(operator, [self.value, *weights], [name], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        self.value = name

    def write(self, path: Path) -> None:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, IMAGE_SIDE, IMAGE_SIDE])
        logits = helper.make_tensor_value_info(self.value, TensorProto.FLOAT, ["batch", CLASSES])
        graph = helper.make_graph(self.nodes, "digits", [image], [logits], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)

    def _store(self, name: str, array: FloatArray) -> str:
        """Store `array`, and return the name of its value as float32."""
        if not self.half:
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
            return name
        self.weights.append(numpy_helper.from_array(array.astype(np.float16, order="C"), f"{name}_half"))
        self.nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], name, to=TensorProto.FLOAT))
        return name
