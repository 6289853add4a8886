"""A small convolutional network in plain numpy: two convolutions, a hidden layer and an output layer.

Images are (n, height, width, channels). Every layer is one matrix product with weights (inputs, outputs); the inputs of
a convolution are its 3x3 patches, laid out as rows. The inputs of every layer are (positions, channels), flattened, and
the channels are the outputs of the layer before: pruning and the ONNX export build on that.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
LabelArray = NDArray[np.int64]
# Channels of the two convolutions, and neurons of the hidden layer.
Widths = tuple[int, int, int]

IMAGE_SIDE = 8
CLASSES = 10
KERNEL_SIDE = 3
STRIDES = (1, 2)

BATCH_SIZE = 32
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
# How often a training image is moved by -1, 0 and 1 pixel, in each direction.
SHIFT_SHARES = (0.1, 0.8, 0.1)


class Schedule(NamedTuple):
    """How long to train, and the learning rate at the start, from which it falls to zero along a cosine."""

    epochs: int
    learning_rate: float


class Layer(NamedTuple):
    """Weights (inputs, outputs) and bias (outputs,)."""

    weight: FloatArray
    bias: FloatArray

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Return the outputs (..., outputs) of `inputs` (..., inputs), before the activation."""
        return (_rows(inputs) @ self.weight + self.bias).reshape(*inputs.shape[:-1], -1)

    def input_gradient(self, error: FloatArray) -> FloatArray:
        """Return the gradient of the loss by the inputs, given `error`, that by the outputs."""
        return (_rows(error) @ self.weight.T).reshape(*error.shape[:-1], -1)

    def gradient(self, inputs: FloatArray, error: FloatArray) -> "Layer":
        """Return the gradient of the loss by weight and bias, given `error`, that by the outputs."""
        return Layer(_rows(inputs).T @ _rows(error), _rows(error).sum(axis=0))


class Network(NamedTuple):
    """The four layers, each but the last followed by a ReLU; the convolutions have the strides in `STRIDES`."""

    convolution_1: Layer
    convolution_2: Layer
    hidden: Layer
    output: Layer


def initialise(widths: Widths, seed: int) -> Network:
    """Return an untrained network with random weights that keep the scale of their inputs (He et al. 2015)."""
    random = np.random.default_rng(seed)
    positions = (KERNEL_SIDE**2, KERNEL_SIDE**2, (IMAGE_SIDE // math.prod(STRIDES)) ** 2, 1)
    channels = (1, *widths)
    outputs = (*widths, CLASSES)
    return Network(
        *(
            Layer(_random_weight(count * inputs, width, random), np.zeros(width, np.float32))
            for count, inputs, width in zip(positions, channels, outputs, strict=True)
        )
    )


def train(network: Network, images: FloatArray, labels: LabelArray, schedule: Schedule, seed: int) -> Network:
    """Return `network` trained further on randomly shifted `images`, by gradient descent with momentum."""
    random = np.random.default_rng(seed)
    network = Network(*(Layer(layer.weight.copy(), layer.bias.copy()) for layer in network))
    velocity = Network(*(Layer(np.zeros_like(layer.weight), np.zeros_like(layer.bias)) for layer in network))
    shifted = _shifted(images)
    batches = len(images) // BATCH_SIZE
    for epoch in range(schedule.epochs):
        order = random.permutation(len(images))
        for batch in range(batches):
            chosen = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
            down, right = random.choice(len(SHIFT_SHARES), p=SHIFT_SHARES, size=(2, BATCH_SIZE))
            gradient = _gradient(network, shifted[chosen, down, right], labels[chosen])
            progress = (epoch + batch / batches) / schedule.epochs
            _step(network, velocity, gradient, schedule.learning_rate * (1 + math.cos(math.pi * progress)) / 2)
    return network


def prune(network: Network, widths: Widths) -> Network:
    """Return a smaller network: of each layer the outputs with the largest weights, without what read the others."""
    layers = []
    channels, kept = 1, np.arange(1)
    for layer, width in zip(network, (*widths, CLASSES), strict=True):
        outputs = len(layer.bias)
        weight = layer.weight.reshape(-1, channels, outputs)[:, kept].reshape(-1, outputs)
        strength = np.linalg.norm(weight, axis=0)
        channels, kept = outputs, np.sort(np.argsort(strength, kind="stable")[-width:])
        layers.append(Layer(weight[:, kept], layer.bias[kept]))
    return Network(*layers)


def _random_weight(inputs: int, outputs: int, random: np.random.Generator) -> FloatArray:
    return (random.standard_normal((inputs, outputs)) * math.sqrt(2 / inputs)).astype(np.float32)


def _gradient(network: Network, images: FloatArray, labels: LabelArray) -> Network:
    """Return the gradient of the mean cross-entropy, by back-propagation."""
    patches_1 = _patches(images, STRIDES[0])
    maps_1 = _relu(network.convolution_1(patches_1))
    patches_2 = _patches(maps_1, STRIDES[1])
    maps_2 = _relu(network.convolution_2(patches_2))
    features = maps_2.reshape(len(images), -1)
    hidden = _relu(network.hidden(features))

    error = _softmax(network.output(hidden))
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    hidden_error = _before_relu(network.output.input_gradient(error), hidden)
    error_2 = _before_relu(network.hidden.input_gradient(hidden_error).reshape(maps_2.shape), maps_2)
    patch_error = network.convolution_2.input_gradient(error_2)
    error_1 = _before_relu(_add_patches(patch_error, maps_1.shape, STRIDES[1]), maps_1)
    return Network(
        network.convolution_1.gradient(patches_1, error_1),
        network.convolution_2.gradient(patches_2, error_2),
        network.hidden.gradient(features, hidden_error),
        network.output.gradient(hidden, error),
    )


def _step(network: Network, velocity: Network, gradient: Network, rate: float) -> None:
    """Move `network` one step, and update its `velocity`, both in place."""
    for layer, speed, slope in zip(network, velocity, gradient, strict=True):
        speed.weight[:] = MOMENTUM * speed.weight - rate * (slope.weight + WEIGHT_DECAY * layer.weight)
        speed.bias[:] = MOMENTUM * speed.bias - rate * slope.bias
        layer.weight[:] += speed.weight
        layer.bias[:] += speed.bias


def _shifted(images: FloatArray) -> FloatArray:
    """Return a view (n, 3, 3, h, w, c) of the images (n, h, w, c), moved by up to one pixel down and right."""
    return np.moveaxis(sliding_window_view(_padded(images), images.shape[1:3], axis=(1, 2)), 3, -1)


def _patches(maps: FloatArray, stride: int) -> FloatArray:
    """Lay out the zero-padded 3x3 patches of (n, h, w, c) as (n, h / stride, w / stride, 9 * c)."""
    padded = _padded(maps)
    return np.concatenate([padded[window] for window in _windows(maps.shape, stride)], axis=-1)


def _add_patches(patches: FloatArray, shape: tuple[int, ...], stride: int) -> FloatArray:
    """Add the patches up where they came from, in maps of `shape`: the transpose of `_patches`."""
    padded = _padded(np.zeros(shape, np.float32))
    parts = np.split(patches, KERNEL_SIDE**2, axis=-1)
    for window, part in zip(_windows(shape, stride), parts, strict=True):
        padded[window] += part
    return padded[:, 1:-1, 1:-1]


def _windows(shape: tuple[int, ...], stride: int) -> list[tuple[slice, slice, slice]]:
    """Return, for each place in the kernel, the part of padded maps that it is multiplied with."""
    _, height, width, _ = shape
    return [
        (slice(None), slice(row, row + height, stride), slice(column, column + width, stride))
        for row in range(KERNEL_SIDE)
        for column in range(KERNEL_SIDE)
    ]


def _padded(maps: FloatArray) -> FloatArray:
    return np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _rows(array: FloatArray) -> FloatArray:
    return array.reshape(-1, array.shape[-1])


def _relu(values: FloatArray) -> FloatArray:
    return np.maximum(values, 0)


def _before_relu(error: FloatArray, outputs: FloatArray) -> FloatArray:
    return np.multiply(error, outputs > 0, dtype=np.float32)


def _softmax(logits: FloatArray) -> FloatArray:
    powers: FloatArray = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers
