"""Random small networks over the operators of ordinary classifiers and detectors.

They teach a table kernels of every family over a range of shapes, so that models that were never
profiled can be predicted. Every network is a chain of a few steps; a step is an operator or a
common group of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edgenas.latency_tables.profile_networks.building_blocks import (
    activate,
    layer_norm,
    pool,
    reshape,
    shuffle,
    tokens,
    upsample,
)
from edgenas.latency_tables.profile_networks.sketch import Sketch

_SIDES = (4, 7, 8, 10, 14, 16, 20, 28, 32, 40, 56, 64, 80, 112, 160, 224, 320)
_IMAGE_SIDES = (32, 64, 96, 112, 128, 160, 224, 320)
# Real networks' widths are seldom powers of two, and runtimes pad them to their vectors.
_CHANNELS = (
    3, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 120, 128, 144, 160, 184, 192, 240, 256, 320,
    384, 480, 512, 576, 672, 768, 960, 1024, 1280, 1536, 2048,
)  # fmt: skip
_MOST_MACS = 1e8  # of one operator: some milliseconds at most
_MOST_ELEMENTS = 8e5
_STEPS = (4, 8)

Step = Callable[[Sketch, np.random.Generator], None]


def kernel_network(
    index: int, *, seed: int, int8_scheme: str | None, opset: int, ir_version: int
) -> onnx.ModelProto:
    """The network number ``index`` of the sequence that ``seed`` makes; quantized where a scheme is given."""
    rng = np.random.default_rng([seed, index, int8_scheme is not None])
    sketch = Sketch(_input_shape(rng), rng, int8_scheme=int8_scheme)
    # Every step leads now and then, so that none depends on chance alone.
    _run(_IMAGE_STEPS[index % len(_IMAGE_STEPS)], sketch, rng)
    for _ in range(int(rng.integers(*_STEPS))):
        steps = _IMAGE_STEPS if len(sketch.shape) == 4 else _TOKEN_STEPS
        _run(steps[int(rng.integers(len(steps)))], sketch, rng)
    _classify(sketch, rng)
    return sketch.model(f"kernels-{index}", opset=opset, ir_version=ir_version)


def _run(step: Step, sketch: Sketch, rng: np.random.Generator) -> None:
    if len(sketch.shape) == 4 or step in _TOKEN_STEPS:
        step(sketch, rng)


def _input_shape(rng: np.random.Generator) -> tuple[int, ...]:
    if rng.random() < 0.25:
        return (1, 3, *(int(rng.choice(_IMAGE_SIDES)),) * 2)
    side = int(rng.choice(_SIDES))
    fitting = [count for count in _CHANNELS if count * side * side <= _MOST_ELEMENTS / 2]
    return (1, int(rng.choice(fitting)), side, side)


def _width(sketch: Sketch, rng: np.random.Generator, area: int, positions: int) -> int:
    """Output channels that keep the operator within the limits."""
    channels = sketch.shape[1]
    fitting = [
        count
        for count in _CHANNELS[1:]
        if count * channels * area * positions <= _MOST_MACS and count * positions <= _MOST_ELEMENTS
    ]
    return int(rng.choice(fitting)) if fitting else 8


# --- convolutions ---------------------------------------------------------------------------------


def _convolve(
    sketch: Sketch,
    out: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    fused: bool = False,
) -> None:
    _, channels, height, width = sketch.shape
    size = (-(-height // stride), -(-width // stride))
    sketch.op(
        "Conv", sketch.value, sketch.weight(out, channels // groups, kernel, kernel), sketch.bias(out),
        shape=(1, out, *size), fused=fused, group=groups, kernel_shape=[kernel] * 2, strides=[stride] * 2,
        pads=[dilation * (kernel // 2)] * 4, dilations=[dilation] * 2,
    )  # fmt: skip


def _dense(sketch: Sketch, rng: np.random.Generator) -> None:
    kernel = int(rng.choice([3, 3, 3, 5, 7]))
    stride = int(rng.choice([1, 1, 2]))
    positions = (-(-sketch.shape[2] // stride)) * (-(-sketch.shape[3] // stride))
    dilation = 2 if rng.random() < 0.1 else 1
    _convolve(
        sketch,
        _width(sketch, rng, kernel**2, positions),
        kernel,
        stride=stride,
        dilation=dilation,
        fused=True,
    )
    _activate(sketch, rng)


def _pointwise(sketch: Sketch, rng: np.random.Generator) -> None:
    _convolve(sketch, _width(sketch, rng, 1, sketch.shape[2] * sketch.shape[3]), 1, fused=True)
    _activate(sketch, rng)


def _depthwise(sketch: Sketch, rng: np.random.Generator) -> None:
    channels = sketch.shape[1]
    kernel, stride = int(rng.choice([3, 3, 5, 7])), int(rng.choice([1, 1, 2]))
    _convolve(sketch, channels, kernel, stride=stride, groups=channels, fused=True)
    _activate(sketch, rng)


def _grouped(sketch: Sketch, rng: np.random.Generator) -> None:
    channels = sketch.shape[1]
    groups = next((count for count in (8, 4, 2) if channels % count == 0), 1)
    if groups > 1:
        _convolve(sketch, channels, 3, groups=groups, fused=True)
        _activate(sketch, rng)


def _transposed(sketch: Sketch, rng: np.random.Generator) -> None:
    _, channels, height, width = sketch.shape
    kernel = int(rng.choice([2, 4]))
    out = _width(sketch, rng, kernel**2, height * width * 2)
    if 4 * height * width * out > _MOST_ELEMENTS:
        return
    pads = [(kernel - 2) // 2] * 4
    sketch.op(
        "ConvTranspose", sketch.value, sketch.weight(channels, out, kernel, kernel),
        shape=(1, out, 2 * height, 2 * width), kernel_shape=[kernel] * 2, strides=[2, 2], pads=pads,
    )  # fmt: skip


# --- what stands between convolutions --------------------------------------------------------------


def _activate(sketch: Sketch, rng: np.random.Generator) -> None:
    """The activation of what was just computed; the plain ones most often."""
    kind = str(rng.choice(["Relu", "Relu", "Relu", "Clip", "HardSwish", "Silu", "Sigmoid", "Other", ""]))
    if kind == "Clip":
        low, high = (sketch.constant(np.array(bound, np.float32)) for bound in (0.0, 6.0))
        sketch.op("Clip", sketch.value, low, high)
    elif kind == "Silu":
        value = sketch.op("Identity") if sketch.value.endswith("conv_out") else sketch.value
        sketch.op("Mul", value, sketch.op("Sigmoid"))
    elif kind == "Other":
        sketch.op(str(rng.choice(["LeakyRelu", "Tanh", "HardSigmoid", "Elu", "Softplus"])))
    else:
        sketch.op(kind or "Identity")


def _pool(sketch: Sketch, rng: np.random.Generator) -> None:
    kernel, stride = ((2, 2), (3, 2), (3, 1), (5, 1))[int(rng.integers(4))]
    if min(sketch.shape[2:]) < kernel:
        return
    pool(sketch, "MaxPool" if rng.random() < 0.5 else "AveragePool", kernel, stride)


def _attend_channels(sketch: Sketch, rng: np.random.Generator) -> None:
    """Squeeze and excite."""
    source, shape = sketch.value, sketch.shape
    kind = "GlobalAveragePool" if rng.random() < 0.8 else "GlobalMaxPool"
    sketch.op(kind, shape=(1, shape[1], 1, 1))
    squeezed = max(8, shape[1] // 4)
    _convolve(sketch, squeezed, 1, fused=True)
    sketch.op("Relu")
    _convolve(sketch, shape[1], 1, fused=True)
    gate = sketch.op("HardSigmoid" if rng.random() < 0.5 else "Sigmoid")
    sketch.op("Mul", source, gate, shape=shape)


def _residual(sketch: Sketch, rng: np.random.Generator) -> None:
    source, channels = sketch.value, sketch.shape[1]
    if channels**2 * 9 * sketch.shape[2] * sketch.shape[3] > 2 * _MOST_MACS:
        return
    _convolve(sketch, channels, int(rng.choice([1, 3])))
    sketch.op("Add", sketch.value, source)
    if rng.random() < 0.5:
        sketch.op("Relu")


def _elementwise(sketch: Sketch, rng: np.random.Generator) -> None:
    kind = str(rng.choice(["Add", "Mul", "Sub", "Div", "Max", "Pow", "Sqrt"]))
    if kind == "Sqrt":
        sketch.op("Abs")
        sketch.op("Sqrt")
    elif kind == "Pow":
        sketch.op("Pow", sketch.value, sketch.constant(np.array(2.0, np.float32)))
    else:
        image = len(sketch.shape) == 4
        count = sketch.shape[1] if image else sketch.shape[2]
        operand = np.linspace(0.5, 1.5, count, dtype=np.float32).reshape((-1, 1, 1) if image else (-1,))
        sketch.op(kind, sketch.value, sketch.constant(operand))


def _concatenate(sketch: Sketch, rng: np.random.Generator) -> None:
    """Two branches side by side, as in inception and dense blocks."""
    source, shape = sketch.value, sketch.shape
    out = min(_width(sketch, rng, 9, shape[2] * shape[3]), 128)
    _convolve(sketch, out, 3, fused=True)
    left = sketch.op("Relu")
    if 2 * (out + shape[1]) * shape[2] * shape[3] <= 2 * _MOST_ELEMENTS:
        sketch.op("Concat", left, source, shape=(1, out + shape[1], *shape[2:]), axis=1)


def _split(sketch: Sketch, rng: np.random.Generator) -> None:
    """Half of the channels go through a convolution and come back, as in CSP blocks."""
    del rng
    _, channels, height, width = sketch.shape
    if channels % 16 or (channels // 2) ** 2 * 9 * height * width > _MOST_MACS:
        return
    source, half = sketch.value, (1, channels // 2, height, width)
    start, middle, end, axis = (
        sketch.constant(np.array([value])) for value in (0, channels // 2, channels, 1)
    )
    kept = sketch.op("Slice", source, start, middle, axis, shape=half)
    sketch.op("Slice", source, middle, end, axis, shape=half)
    _convolve(sketch, channels // 2, 3)
    sketch.op("Concat", kept, sketch.value, shape=(1, channels, height, width), axis=1)


def _shuffle(sketch: Sketch, rng: np.random.Generator) -> None:
    """Channels of two groups interleaved, as in ShuffleNet."""
    del rng
    if sketch.shape[1] % 2 == 0:
        shuffle(sketch, 2)


def _resize(sketch: Sketch, rng: np.random.Generator) -> None:
    _, channels, height, width = sketch.shape
    if 4 * channels * height * width <= _MOST_ELEMENTS:
        upsample(sketch, "nearest" if rng.random() < 0.6 else "linear")


def _normalise(sketch: Sketch, rng: np.random.Generator) -> None:
    channels = sketch.shape[1]
    scale, shift, mean = sketch.bias(channels), sketch.bias(channels), sketch.bias(channels)
    if rng.random() < 0.5:
        sketch.op("InstanceNormalization", sketch.value, scale, shift)
        return
    variance = sketch.constant(np.linspace(0.5, 1.5, channels, dtype=np.float32))
    sketch.op("Relu")  # after a convolution the runtime would fold the normalisation away
    sketch.op("BatchNormalization", sketch.value, scale, shift, mean, variance)


def _pad(sketch: Sketch, rng: np.random.Generator) -> None:
    _, channels, height, width = sketch.shape
    pads = sketch.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    sketch.op("Pad", sketch.value, pads, shape=(1, channels, height + 2, width + 2))
    _pool(sketch, rng)


def _reduce(sketch: Sketch, rng: np.random.Generator) -> None:
    """Statistics over space, as in style and context blocks: the mean is taken away."""
    source, shape = sketch.value, sketch.shape
    kind = "ReduceMean" if rng.random() < 0.7 else "ReduceMax"
    mean = sketch.op(kind, shape=(1, shape[1], 1, 1), axes=[2, 3], keepdims=1)
    sketch.op("Sub", source, mean, shape=shape)


# --- tokens ----------------------------------------------------------------------------------------


def _to_tokens(sketch: Sketch, rng: np.random.Generator) -> None:
    """Positions become tokens and channels features; too many positions are pooled first."""
    while sketch.shape[2] * sketch.shape[3] > 400:
        _, channels, height, width = sketch.shape
        sketch.op(
            "MaxPool", shape=(1, channels, height // 2, width // 2), kernel_shape=[2, 2], strides=[2, 2]
        )
    if sketch.shape[1] % 16 or sketch.shape[1] > 512:
        _convolve(sketch, int(rng.choice([64, 96, 192])), 1)
    tokens(sketch)


def _linear(sketch: Sketch, out: int) -> None:
    _, count, features = sketch.shape
    sketch.op("MatMul", sketch.value, sketch.weight(features, out), shape=(1, count, out), fused=True)
    sketch.op("Add", sketch.value, sketch.bias(out))


def _attend(sketch: Sketch, rng: np.random.Generator) -> None:
    """Multi-head attention."""
    _, count, features = sketch.shape
    heads = int(rng.choice([2, 4, 8]))
    size, source = features // heads, sketch.value
    split: list[str] = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        sketch.go_to(source)
        _linear(sketch, features)
        reshape(sketch, 1, count, heads, size)
        moved = tuple((1, count, heads, size)[axis] for axis in perm)
        split.append(sketch.op("Transpose", shape=moved, perm=perm))
    query, key, value = split
    sketch.op("MatMul", query, key, shape=(1, heads, count, count))
    sketch.op("Mul", sketch.value, sketch.constant(np.array(size**-0.5, np.float32)))
    sketch.op("Softmax", axis=-1)
    sketch.op("MatMul", sketch.value, value, shape=(1, heads, count, size))
    sketch.op("Transpose", shape=(1, count, heads, size), perm=[0, 2, 1, 3])
    reshape(sketch, 1, count, features)
    _linear(sketch, features)


def _feed_forward(sketch: Sketch, rng: np.random.Generator) -> None:
    features = sketch.shape[2]
    _linear(sketch, min(features * int(rng.choice([2, 4])), 1024))
    activate(sketch, "Gelu")
    _linear(sketch, features)


def _layer_norm(sketch: Sketch, rng: np.random.Generator) -> None:
    del rng
    layer_norm(sketch)


def _soften(sketch: Sketch, rng: np.random.Generator) -> None:
    del rng
    sketch.op("Softmax", axis=-1)


def _classify(sketch: Sketch, rng: np.random.Generator) -> None:
    """Mean over positions, a fully connected layer, often a softmax."""
    channels = sketch.shape[1] if len(sketch.shape) == 4 else sketch.shape[2]
    if len(sketch.shape) == 4:
        sketch.op("GlobalAveragePool", shape=(1, channels, 1, 1))
        sketch.op("Flatten", shape=(1, channels), axis=1)
    else:
        sketch.op("ReduceMean", shape=(1, channels), axes=[1], keepdims=0)
    classes = int(rng.choice([2, 10, 100, 1000]))
    weight, bias = sketch.weight(classes, channels), sketch.bias(classes)
    sketch.op("Gemm", sketch.value, weight, bias, shape=(1, classes), transB=1)
    if rng.random() < 0.5:
        sketch.op("Softmax", axis=-1)


_IMAGE_STEPS: tuple[Step, ...] = (
    _dense, _pointwise, _depthwise, _dense, _pointwise, _depthwise, _grouped, _transposed, _pool, _pool,
    _attend_channels, _residual, _residual, _elementwise, _concatenate, _split, _shuffle, _resize,
    _normalise, _pad, _reduce, _to_tokens,
)  # fmt: skip
_TOKEN_STEPS: tuple[Step, ...] = (_attend, _feed_forward, _layer_norm, _soften, _elementwise)
