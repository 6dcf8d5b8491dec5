"""One small network for each operator that ordinary classifiers and detectors have.

Random chains of operators teach how the common kernels depend on shape, but leave to chance which of
the rare ones they show. The tour leaves nothing out: network number i is about operator number i and
nothing else, at three sizes, so that a runtime that refuses an operator loses that operator alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgenas.latency_tables.profile_networks.sketch import Sketch

Stop = Callable[[Sketch], None]

_SIDES = ((56, 28, 14), (32, 16, 8), (80, 40, 20), (28, 14, 7))
_CHANNELS = (16, 32, 64)
_MOST_NUMBERS = 2e5


def tour_network(
    index: int, *, seed: int, int8_scheme: str | None, opset: int, ir_version: int
) -> onnx.ModelProto:
    """The network about operator number ``index`` of ``STOPS``; quantized where a scheme is given."""
    name, stop = STOPS[index]
    rng = np.random.default_rng([seed, index, int8_scheme is not None, 1])
    sides = _SIDES[int(rng.integers(len(_SIDES)))]
    fitting = [count for count in _CHANNELS if count * sides[0] ** 2 <= _MOST_NUMBERS]
    channels = int(rng.choice(fitting))
    sketch = Sketch((1, channels, sides[0], sides[0]), rng, int8_scheme=int8_scheme)
    for side in sides:
        _shrink_to(sketch, side)
        _convolve(sketch, channels)
        stop(sketch)
    _convolve(sketch, channels)
    return sketch.model(f"tour-{name}", opset=opset, ir_version=ir_version)


def _shrink_to(sketch: Sketch, side: int) -> None:
    if sketch.shape[2] != side:
        shape = (1, sketch.shape[1], side, side)
        sketch.op("MaxPool", shape=shape, kernel_shape=[2, 2], strides=[2, 2])


def _convolve(sketch: Sketch, channels: int) -> None:
    weight, bias = sketch.weight(channels, sketch.shape[1], 1, 1), sketch.bias(channels)
    sketch.op("Conv", sketch.value, weight, bias, shape=(1, channels, *sketch.shape[2:]), kernel_shape=[1, 1])


# --- one value in, one of the same shape out ------------------------------------------------------


def _unary(kind: str, sketch: Sketch, **attributes: Any) -> None:
    sketch.op(kind, **attributes)


def _of_positive(kind: str, sketch: Sketch) -> None:
    sketch.op("Abs")
    sketch.op(kind)


def _clip(sketch: Sketch) -> None:
    sketch.op("Tanh")  # no convolution that takes the clipping in
    low, high = (sketch.constant(np.array(bound, np.float32)) for bound in (-0.5, 0.5))
    sketch.op("Clip", sketch.value, low, high)


def _silu(sketch: Sketch) -> None:
    value = sketch.value
    sketch.op("Mul", value, sketch.op("Sigmoid"))


def _gelu(sketch: Sketch) -> None:
    value, root = sketch.value, sketch.constant(np.array(2**0.5, np.float32))
    one, half = (sketch.constant(np.array(number, np.float32)) for number in (1.0, 0.5))
    sketch.op("Div", value, root)
    sketch.op("Erf")
    sketch.op("Add", sketch.value, one)
    sketch.op("Mul", value, sketch.value)
    sketch.op("Mul", sketch.value, half)


def _prelu(sketch: Sketch) -> None:
    slope = np.linspace(0.1, 0.4, sketch.shape[1], dtype=np.float32).reshape(-1, 1, 1)
    sketch.op("PRelu", sketch.value, sketch.constant(slope))


# --- two values in ---------------------------------------------------------------------------------


def _binary(kind: str, sketch: Sketch) -> None:
    """With a number, with a number for each channel, with a value of the same shape and a gate."""
    channels = sketch.shape[1]
    source = sketch.op("Sigmoid")
    by_channel = np.linspace(0.5, 1.5, channels, dtype=np.float32).reshape(-1, 1, 1)
    for operand in (np.array(1.25, np.float32), by_channel):
        sketch.op(kind, sketch.value, sketch.constant(operand))
    sketch.op(kind, sketch.value, source)
    mean = sketch.op("GlobalAveragePool", source, shape=(*sketch.shape[:2], 1, 1))
    sketch.op(kind, source, mean, shape=(*sketch.shape[:2], *_side_of(sketch, source)))


def _side_of(sketch: Sketch, value: str) -> tuple[int, ...]:
    return sketch.shape_of(value)[2:]


def _many(kind: str, sketch: Sketch) -> None:
    value = sketch.value
    sketch.op(kind, value, sketch.op("Sigmoid"), sketch.op("Tanh", value))


def _compared(kind: str, sketch: Sketch) -> None:
    value, zero = sketch.value, sketch.constant(np.zeros((), np.float32))
    condition = sketch.op(kind, value, zero, fused=True)
    sketch.op("Where", condition, value, zero)


def _logic(kind: str, sketch: Sketch) -> None:
    value, zero = sketch.value, sketch.constant(np.zeros((), np.float32))
    positive = sketch.op("Greater", value, zero, fused=True)
    if kind == "Not":
        sketch.op("Not", fused=True)
    else:
        other = sketch.op("Less", value, sketch.constant(np.ones((), np.float32)), fused=True)
        sketch.op(kind, positive, other, fused=True)
    gate = sketch.op("Cast", fused=True, to=TensorProto.FLOAT)
    sketch.op("Mul", value, gate)


# --- values moved ----------------------------------------------------------------------------------


def _integers(sketch: Sketch, *numbers: int) -> str:
    return sketch.constant(np.array(numbers, np.int64))


def _reshape(sketch: Sketch, *shape: int) -> None:
    sketch.op("Reshape", sketch.value, _integers(sketch, *shape), shape=shape)


def _flattened(sketch: Sketch) -> None:
    shape = sketch.shape
    sketch.op("Tanh")
    sketch.op("Flatten", shape=(1, int(np.prod(shape))), axis=1)
    _reshape(sketch, *shape)


def _squeezed(sketch: Sketch) -> None:
    shape, axis = sketch.shape, _integers(sketch, 0)
    sketch.op("Squeeze", sketch.value, axis, shape=shape[1:])
    sketch.op("Tanh")
    sketch.op("Unsqueeze", sketch.value, axis, shape=shape)


def _channels_last(sketch: Sketch) -> None:
    _, channels, height, width = sketch.shape
    sketch.op("Transpose", shape=(1, height, width, channels), perm=[0, 2, 3, 1])
    sketch.op("Tanh")
    sketch.op("Transpose", shape=(1, channels, height, width), perm=[0, 3, 1, 2])


def _sliced(sketch: Sketch) -> None:
    """Half of the channels, and every other pixel as in a focus layer."""
    source, (_, channels, height, width) = sketch.value, sketch.shape
    start, middle, end = (_integers(sketch, number) for number in (0, channels // 2, channels))
    axis, steps = _integers(sketch, 1), _integers(sketch, 2, 2)
    half = (1, channels // 2, height, width)
    first = sketch.op("Slice", source, start, middle, axis, shape=half)
    second = sketch.op("Slice", source, middle, end, axis, shape=half)
    sketch.op("Mul", first, sketch.op("Sigmoid", second))
    bounds = _integers(sketch, 0, 0), _integers(sketch, height, width), _integers(sketch, 2, 3)
    sketch.op(
        "Slice", sketch.value, *bounds, steps, shape=(1, channels // 2, -(-height // 2), -(-width // 2))
    )
    sketch.op("Sigmoid")


def _split(sketch: Sketch) -> None:
    _, channels, height, width = sketch.shape
    half = (1, channels // 2, height, width)
    first, second = sketch.split("Split", 2, shape=half, axis=1)
    sketch.op("Mul", first, sketch.op("Sigmoid", second, shape=half))


def _concatenated(sketch: Sketch) -> None:
    source, (_, channels, height, width) = sketch.value, sketch.shape
    other = sketch.op("Sigmoid")
    sketch.op("Concat", source, other, shape=(1, 2 * channels, height, width), axis=1)
    sketch.op("Tanh")


def _expanded(sketch: Sketch) -> None:
    shape = sketch.shape
    source = sketch.value
    sketch.op("GlobalAveragePool", shape=(*shape[:2], 1, 1))
    sketch.op("Expand", sketch.value, _integers(sketch, *shape), shape=shape)
    sketch.op("Add", sketch.value, source)


def _tiled(sketch: Sketch) -> None:
    _, channels, height, width = sketch.shape
    sketch.op("Tile", sketch.value, _integers(sketch, 1, 2, 1, 1), shape=(1, 2 * channels, height, width))


def _padded(mode: str, sketch: Sketch) -> None:
    _, channels, height, width = sketch.shape
    pads = _integers(sketch, 0, 0, 1, 1, 0, 0, 1, 1)
    sketch.op("Tanh")
    sketch.op("Pad", sketch.value, pads, shape=(1, channels, height + 2, width + 2), mode=mode)
    sketch.op("AveragePool", shape=(1, channels, height, width), kernel_shape=[3, 3], strides=[1, 1])


def _gathered(sketch: Sketch) -> None:
    order = np.random.default_rng(0).permutation(sketch.shape[1])
    sketch.op("Gather", sketch.value, sketch.constant(order), axis=1)
    sketch.op("Tanh")


def _gathered_elements(sketch: Sketch) -> None:
    order = np.zeros(sketch.shape, np.int64)
    sketch.op("GatherElements", sketch.value, sketch.constant(order), axis=3)


def _gathered_points(sketch: Sketch) -> None:
    """Single positions by their indices, which then take their places again."""
    shape = sketch.shape
    points = np.argwhere(np.ones((1, shape[1])))
    indices = sketch.constant(points.astype(np.int64))
    source = sketch.value
    sketch.op("GatherND", source, indices, shape=(shape[1], *shape[2:]))
    sketch.op("ScatterND", source, indices, sketch.value, shape=shape)


def _depth_to_space(sketch: Sketch) -> None:
    _, channels, height, width = sketch.shape
    sketch.op("DepthToSpace", shape=(1, channels // 4, 2 * height, 2 * width), blocksize=2)
    sketch.op("Tanh")
    sketch.op("SpaceToDepth", shape=(1, channels, height, width), blocksize=2)


def _resized(sketch: Sketch, mode: str, coordinates: str) -> None:
    _, channels, height, width = sketch.shape
    extra: dict[str, Any] = {"nearest_mode": "floor"} if mode == "nearest" else {}
    scales = sketch.constant(np.array([1, 1, 2, 2], np.float32))
    shape = (1, channels, 2 * height, 2 * width)
    sketch.op(
        "Resize", sketch.value, "", scales, shape=shape, mode=mode,
        coordinate_transformation_mode=coordinates, **extra,
    )  # fmt: skip
    _shrink_to(sketch, height)


def _sampled(sketch: Sketch) -> None:
    side = np.linspace(-1, 1, sketch.shape[2], dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1)[None]
    sketch.op("GridSample", sketch.value, sketch.constant(grid))


# --- values gathered up ----------------------------------------------------------------------------


def _reduced(kind: str, sketch: Sketch) -> None:
    """Over positions, over channels and over the last axis of tokens."""
    source, (_, channels, height, width) = sketch.value, sketch.shape
    sketch.op("Sigmoid")
    positive = sketch.value
    over_positions = _reduce(sketch, kind, positive, [2, 3], (1, channels, 1, 1))
    over_channels = _reduce(sketch, kind, positive, [1], (1, 1, height, width))
    sketch.op("Mul", source, over_positions, shape=(1, channels, height, width))
    sketch.op("Mul", sketch.value, over_channels)


def _reduce(sketch: Sketch, kind: str, value: str, axes: list[int], shape: tuple[int, ...]) -> str:
    if kind == "ReduceSum":  # the one that takes its axes as an input at the opsets that we write
        return sketch.op(kind, value, _integers(sketch, *axes), shape=shape, keepdims=1)
    return sketch.op(kind, value, shape=shape, axes=axes, keepdims=1)


def _best(kind: str, sketch: Sketch) -> None:
    source, (_, _, height, width) = sketch.value, sketch.shape
    sketch.op(kind, shape=(1, 1, height, width), fused=True, axis=1, keepdims=1)
    sketch.op("Cast", fused=True, to=TensorProto.FLOAT)
    sketch.op("Add", source, sketch.value, shape=sketch.shape_of(source))


def _top(sketch: Sketch) -> None:
    source, (_, channels, height, width) = sketch.value, sketch.shape
    _reshape(sketch, 1, channels, height * width)
    count = min(50, height * width)
    best, _ = sketch.split("TopK", 2, _integers(sketch, count), shape=(1, channels, count), fused=True)
    mean = sketch.op("ReduceMean", best, shape=(1, channels, 1), axes=[2], keepdims=1)
    gate = sketch.op("Reshape", mean, _integers(sketch, 1, channels, 1, 1), shape=(1, channels, 1, 1))
    sketch.op("Mul", source, gate, shape=(1, channels, height, width))


def _accumulated(sketch: Sketch) -> None:
    sketch.op("CumSum", sketch.value, sketch.constant(np.array(3, np.int64)))


def _pooled(kind: str, sketch: Sketch) -> None:
    for kernel in (3, 5):
        pads = [kernel // 2] * 4
        sketch.op(kind, kernel_shape=[kernel] * 2, strides=[1, 1], pads=pads)


def _gated_by(kind: str, sketch: Sketch) -> None:
    source, shape = sketch.value, sketch.shape
    gate = sketch.op(kind, shape=(*shape[:2], 1, 1))
    sketch.op("Mul", source, gate, shape=shape)


# --- normalisation ---------------------------------------------------------------------------------


def _parameters(sketch: Sketch, count: int) -> tuple[str, str]:
    return sketch.bias(count), sketch.bias(count)


def _batch_normalised(sketch: Sketch) -> None:
    channels = sketch.shape[1]
    sketch.op("Tanh")  # no convolution that takes it in
    variance = sketch.constant(np.linspace(0.5, 1.5, channels, dtype=np.float32))
    inputs = (*_parameters(sketch, channels), sketch.bias(channels), variance)
    sketch.op("BatchNormalization", sketch.value, *inputs)


def _instance_normalised(sketch: Sketch) -> None:
    sketch.op("InstanceNormalization", sketch.value, *_parameters(sketch, sketch.shape[1]))


def _group_normalised(sketch: Sketch) -> None:
    """As exporters write it: instance normalisation of groups, then scale and shift."""
    _, channels, height, width = shape = sketch.shape
    _reshape(sketch, 1, 8, channels * height * width // 8)
    sketch.op("InstanceNormalization", sketch.value, *_parameters(sketch, 8))
    _reshape(sketch, *shape)
    for kind in ("Mul", "Add"):
        operand = np.linspace(0.5, 1.5, channels, dtype=np.float32).reshape(-1, 1, 1)
        sketch.op(kind, sketch.value, sketch.constant(operand))


def _layer_normalised(sketch: Sketch) -> None:
    _, channels, height, width = sketch.shape
    sketch.op("Transpose", shape=(1, height, width, channels), perm=[0, 2, 3, 1])
    sketch.op("LayerNormalization", sketch.value, *_parameters(sketch, channels), axis=-1)
    sketch.op("Transpose", shape=(1, channels, height, width), perm=[0, 3, 1, 2])


def _softened(kind: str, sketch: Sketch) -> None:
    _, channels, height, width = shape = sketch.shape
    sketch.op(kind, axis=1)
    _reshape(sketch, 1, channels, height * width)
    sketch.op(kind, axis=-1)
    _reshape(sketch, *shape)


# --- products --------------------------------------------------------------------------------------


def _tokens(sketch: Sketch) -> tuple[int, int]:
    """Positions become tokens (1, T, C)."""
    _, channels, height, width = sketch.shape
    _reshape(sketch, 1, channels, height * width)
    sketch.op("Transpose", shape=(1, height * width, channels), perm=[0, 2, 1])
    return height * width, channels


def _image(sketch: Sketch, shape: tuple[int, ...]) -> None:
    """Tokens become positions again."""
    _, tokens, features = sketch.shape
    sketch.op("Transpose", shape=(1, features, tokens), perm=[0, 2, 1])
    _reshape(sketch, *shape)


def _projected(sketch: Sketch) -> None:
    shape = sketch.shape
    tokens, features = _tokens(sketch)
    for width in (2 * features, features):
        weight = sketch.weight(sketch.shape[2], width)
        sketch.op("MatMul", sketch.value, weight, shape=(1, tokens, width), fused=True)
        sketch.op("Add", sketch.value, sketch.bias(width))
        sketch.op("Relu")
    _image(sketch, shape)


def _multiplied(sketch: Sketch) -> None:
    """Both factors are computed, as in attention; at most 256 tokens."""
    shape = sketch.shape
    tokens, features = _tokens(sketch)
    value = sketch.value
    turned = sketch.op("Transpose", value, shape=(1, features, tokens), perm=[0, 2, 1])
    sketch.op("MatMul", turned, value, shape=(1, features, features))
    sketch.op("Softmax", axis=-1)
    sketch.op("MatMul", value, sketch.value, shape=(1, tokens, features))
    _image(sketch, shape)


def _connected(sketch: Sketch) -> None:
    shape = sketch.shape
    sketch.op("GlobalAveragePool", shape=(*shape[:2], 1, 1))
    sketch.op("Flatten", shape=shape[:2], axis=1)
    width = 10 * shape[1]
    weight, bias = sketch.weight(width, shape[1]), sketch.bias(width)
    sketch.op("Gemm", sketch.value, weight, bias, shape=(1, width), transB=1)
    weight, bias = sketch.weight(shape[1], width), sketch.bias(shape[1])
    sketch.op("Gemm", sketch.value, weight, bias, shape=shape[:2], transB=1)
    _reshape(sketch, *shape[:2], 1, 1)
    sketch.op("Expand", sketch.value, _integers(sketch, *shape), shape=shape)


def _einsum(sketch: Sketch) -> None:
    shape = sketch.shape
    tokens, features = _tokens(sketch)
    weight = sketch.constant(np.eye(features, dtype=np.float32))
    sketch.op("Einsum", sketch.value, weight, shape=(1, tokens, features), equation="btc,cd->btd")
    _image(sketch, shape)


def _recurrent(kind: str, gates: int, sketch: Sketch) -> None:
    _, channels, _, width = shape = sketch.shape
    sketch.op("ReduceMean", shape=(1, channels, width), axes=[2], keepdims=0)
    sketch.op("Transpose", shape=(width, 1, channels), perm=[2, 0, 1])
    weights = [sketch.constant(np.full((1, gates * 16, size), 0.05, np.float32)) for size in (channels, 16)]
    sketch.op(kind, sketch.value, *weights, shape=(width, 1, 1, 16), fused=True, hidden_size=16)
    _reshape(sketch, 1, 1, width, 16)
    mean = sketch.op("ReduceMean", shape=(1, 1, 1, 1), axes=[2, 3], keepdims=1)
    sketch.op("Expand", mean, _integers(sketch, *shape), shape=shape)


# --- convolutions of other kinds ---------------------------------------------------------------------


def _transposed(sketch: Sketch) -> None:
    _, channels, height, width = sketch.shape
    for kernel in (2, 4):
        pads = [(kernel - 2) // 2] * 4
        weight, doubled = sketch.weight(channels, channels, kernel, kernel), (2 * height, 2 * width)
        sketch.op(
            "ConvTranspose", sketch.value, weight, shape=(1, channels, *doubled),
            kernel_shape=[kernel] * 2, strides=[2, 2], pads=pads,
        )  # fmt: skip
        _shrink_to(sketch, height)


def _along_a_line(sketch: Sketch) -> None:
    _, channels, height, width = shape = sketch.shape
    _reshape(sketch, 1, channels, height * width)
    weight, bias = sketch.weight(channels, channels, 3), sketch.bias(channels)
    sketch.op("Conv", sketch.value, weight, bias, kernel_shape=[3], pads=[1, 1])
    sketch.op("Relu")
    _reshape(sketch, *shape)


def _through_volume(sketch: Sketch) -> None:
    _, channels, height, width = shape = sketch.shape
    _reshape(sketch, 1, channels // 4, 4, height, width)
    weight, bias = sketch.weight(channels // 4, channels // 4, 3, 3, 3), sketch.bias(channels // 4)
    sketch.op("Conv", sketch.value, weight, bias, kernel_shape=[3, 3, 3], pads=[1] * 6)
    sketch.op("Relu")
    _reshape(sketch, *shape)


# --- detection ---------------------------------------------------------------------------------------


def _suppressed(sketch: Sketch) -> None:
    """Boxes from four channels, scores from another; what is kept only counts."""
    source, (_, channels, height, width) = sketch.value, sketch.shape
    count = min(height * width, 400)
    sketch.op("Sigmoid")
    _reshape(sketch, 1, channels, height * width)
    bounds = [_integers(sketch, *numbers) for numbers in ((0, 0), (4, count), (1, 2))]
    sketch.op("Slice", sketch.value, *bounds, shape=(1, 4, count), fused=True)
    boxes = sketch.op("Transpose", shape=(1, count, 4), fused=True, perm=[0, 2, 1])
    scores = sketch.op("ReduceMax", boxes, shape=(1, count, 1), fused=True, axes=[2], keepdims=1)
    scores = sketch.op("Transpose", scores, shape=(1, 1, count), fused=True, perm=[0, 2, 1])
    limits = (_integers(sketch, 50), *(sketch.constant(np.array([x], np.float32)) for x in (0.5, 0.0)))
    kept = sketch.op("NonMaxSuppression", boxes, scores, *limits, shape=(50, 3), fused=True)
    found = sketch.op("Cast", kept, shape=(50, 3), fused=True, to=TensorProto.FLOAT)
    mean = sketch.op("ReduceMean", found, shape=(1, 1), fused=True, axes=[0, 1], keepdims=1)
    sketch.op("Add", source, mean, shape=(1, channels, height, width))


def _aligned(sketch: Sketch) -> None:
    _, channels, height, width = shape = sketch.shape
    boxes = np.tile(np.array([[0, 0, width - 1, height - 1]], np.float32), (8, 1))
    inputs = sketch.constant(boxes), sketch.constant(np.zeros(8, np.int64))
    sketch.op("RoiAlign", sketch.value, *inputs, shape=(8, channels, 7, 7), output_height=7, output_width=7)
    sketch.op("ReduceMean", shape=(1, channels, 1, 1), axes=[0, 2, 3], keepdims=1)
    sketch.op("Expand", sketch.value, _integers(sketch, *shape), shape=shape)


_UNARY = (
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softplus",
    "Softsign", "ThresholdedRelu", "Erf", "Exp", "Abs", "Neg", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos",
)  # fmt: skip
_COMPARISONS = ("Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual")
_STOPS: dict[str, Stop] = {
    **{kind: partial(_unary, kind) for kind in _UNARY},
    **{kind: partial(_of_positive, kind) for kind in ("Sqrt", "Log", "Reciprocal")},
    "Clip": _clip, "Silu": _silu, "Gelu": _gelu, "PRelu": _prelu,
    **{kind: partial(_binary, kind) for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")},
    **{kind: partial(_many, kind) for kind in ("Sum", "Mean")},
    **{kind: partial(_compared, kind) for kind in _COMPARISONS},
    **{kind: partial(_logic, kind) for kind in ("Not", "And", "Or", "Xor")},
    "Flatten": _flattened, "Squeeze": _squeezed, "Transpose": _channels_last, "Slice": _sliced,
    "Split": _split, "Concat": _concatenated, "Expand": _expanded, "Tile": _tiled,
    **{f"Pad-{mode}": partial(_padded, mode) for mode in ("constant", "reflect", "edge")},
    "Gather": _gathered, "GatherElements": _gathered_elements, "GatherND": _gathered_points,
    "DepthToSpace": _depth_to_space,
    "Resize-nearest": partial(_resized, mode="nearest", coordinates="asymmetric"),
    "Resize-linear": partial(_resized, mode="linear", coordinates="half_pixel"),
    "Resize-corners": partial(_resized, mode="linear", coordinates="align_corners"),
    "Resize-cubic": partial(_resized, mode="cubic", coordinates="half_pixel"),
    "GridSample": _sampled,
    **{
        f"Reduce{name}": partial(_reduced, f"Reduce{name}")
        for name in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
    },
    **{kind: partial(_best, kind) for kind in ("ArgMax", "ArgMin")},
    "TopK": _top, "CumSum": _accumulated,
    **{kind: partial(_pooled, kind) for kind in ("MaxPool", "AveragePool")},
    **{kind: partial(_gated_by, kind) for kind in ("GlobalAveragePool", "GlobalMaxPool")},
    "BatchNormalization": _batch_normalised, "InstanceNormalization": _instance_normalised,
    "GroupNormalization": _group_normalised, "LayerNormalization": _layer_normalised,
    "LRN": partial(_unary, "LRN", size=5),
    "LpNormalization": partial(_unary, "LpNormalization", axis=1),
    **{kind: partial(_softened, kind) for kind in ("Softmax", "LogSoftmax")},
    "Project": _projected, "MatMul": _multiplied, "Gemm": _connected, "Einsum": _einsum,
    "LSTM": partial(_recurrent, "LSTM", 4), "GRU": partial(_recurrent, "GRU", 3),
    "RNN": partial(_recurrent, "RNN", 1),
    "ConvTranspose": _transposed, "Conv1D": _along_a_line, "Conv3D": _through_volume,
    "NonMaxSuppression": _suppressed, "RoiAlign": _aligned,
}  # fmt: skip
STOPS: tuple[tuple[str, Stop], ...] = tuple(_STOPS.items())
"""Names and writers of the operators, in the order of the tour."""
