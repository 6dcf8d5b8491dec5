"""Groups of operators that published architectures share, written into a sketch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgenas.latency_tables.profile_networks.sketch import Sketch

Sides = int | tuple[int, int]
_FUSED = ("Relu", "Clip")  # quantizers put no Q/DQ between a convolution and these


def convolve(
    sketch: Sketch,
    out: int,
    kernel: Sides = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    act: str = "",
    dilation: int = 1,
    pad: bool = True,
) -> None:
    """A convolution with bias, as it is after batch norm was folded, and its activation."""
    _, channels, height, width = sketch.shape
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    before = tuple(dilation * (side // 2) if pad else 0 for side in sides)
    size = (
        (length + 2 * begin - dilation * (side - 1) - 1) // stride + 1
        for length, begin, side in zip((height, width), before, sides, strict=True)
    )
    sketch.op(
        "Conv", sketch.value, sketch.weight(out, channels // groups, *sides), sketch.bias(out),
        shape=(1, out, *size), fused=act in _FUSED, group=groups, kernel_shape=list(sides),
        strides=[stride] * 2, pads=[*before, *before], dilations=[dilation] * 2,
    )  # fmt: skip
    activate(sketch, act)


def depthwise(sketch: Sketch, kernel: int, *, stride: int = 1, act: str = "") -> None:
    """A convolution of each channel with itself."""
    channels = sketch.shape[1]
    convolve(sketch, channels, kernel, stride=stride, groups=channels, act=act)


def activate(sketch: Sketch, kind: str) -> None:
    """An activation by the name of its operator, or Silu, Gelu and PRelu; nothing for an empty name."""
    value = sketch.value
    if kind == "Clip":
        low, high = (sketch.constant(np.array(bound, np.float32)) for bound in (0.0, 6.0))
        sketch.op("Clip", value, low, high)
    elif kind == "Silu":
        sketch.op("Mul", value, sketch.op("Sigmoid"))
    elif kind == "Gelu":
        sketch.op("Div", value, sketch.constant(np.array(2**0.5, np.float32)))
        sketch.op("Erf")
        sketch.op("Add", sketch.value, sketch.constant(np.array(1.0, np.float32)))
        sketch.op("Mul", value, sketch.value)
        sketch.op("Mul", sketch.value, sketch.constant(np.array(0.5, np.float32)))
    elif kind == "PRelu":
        slope = np.linspace(0.1, 0.4, sketch.shape[1], dtype=np.float32).reshape(-1, 1, 1)
        sketch.op("PRelu", value, sketch.constant(slope))
    elif kind:
        sketch.op(kind)


def normalise(sketch: Sketch, *, scaled: bool = False) -> None:
    """A batch norm that stands before its convolution, where nothing can fold it.

    ``scaled`` is how Caffe wrote it and what was converted from there still has: only mean and variance,
    then a scale and a bias of their own.
    """
    channels = sketch.shape[1]
    positive = sketch.constant(np.linspace(0.5, 1.5, channels, dtype=np.float32))
    parameters = (sketch.bias(channels), sketch.bias(channels), sketch.bias(channels))
    sketch.op("BatchNormalization", sketch.value, *parameters, positive)
    if scaled:
        for kind in ("Mul", "Add"):
            factors = np.linspace(0.5, 1.5, channels, dtype=np.float32).reshape(-1, 1, 1)
            sketch.op(kind, sketch.value, sketch.constant(factors))


def pool(sketch: Sketch, kind: str, kernel: int, stride: int, *, pad: int | None = None) -> None:
    """Max or average pooling; padded to keep the size where ``pad`` is None and the window is odd."""
    _, channels, height, width = sketch.shape
    padded = (kernel // 2 if kernel % 2 else 0) if pad is None else pad
    size = ((side + 2 * padded - kernel) // stride + 1 for side in (height, width))
    sketch.op(
        kind, shape=(1, channels, *size), kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padded] * 4
    )


def squeeze_excite(sketch: Sketch, squeezed: int, act: str = "Relu", gate: str = "Sigmoid") -> None:
    """Channels weighted by their means."""
    source, shape = sketch.value, sketch.shape
    sketch.op("GlobalAveragePool", shape=(*shape[:2], 1, 1))
    convolve(sketch, squeezed, act=act)
    convolve(sketch, shape[1], act=gate)
    sketch.op("Mul", source, sketch.value, shape=shape)


def add(sketch: Sketch, other: str, act: str = "", *, kind: str = "Add") -> None:
    """A residual connection, which some exporters write as a ``Sum``, and its activation."""
    sketch.op(kind, sketch.value, other, fused=act in _FUSED)
    activate(sketch, act)


def concatenate(sketch: Sketch, values: Sequence[str]) -> None:
    """Feature maps of one size, side by side."""
    shapes = [sketch.shape_of(value) for value in values]
    channels = sum(shape[1] for shape in shapes)
    sketch.op("Concat", *values, shape=(1, channels, *shapes[0][2:]), axis=1)


def upsample(sketch: Sketch, mode: str = "nearest") -> None:
    """Twice the size."""
    _, channels, height, width = sketch.shape
    extra: dict[str, Any] = {}
    if mode == "nearest":
        extra = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    scales = sketch.constant(np.array([1, 1, 2, 2], np.float32))
    shape = (1, channels, 2 * height, 2 * width)
    sketch.op("Resize", sketch.value, "", scales, shape=shape, mode=mode, **extra)


def reshape(sketch: Sketch, *shape: int) -> None:
    """The same numbers in another shape."""
    sketch.op("Reshape", sketch.value, sketch.constant(np.array(shape, np.int64)), shape=shape)


def transpose(sketch: Sketch, *perm: int) -> None:
    """Axes in another order."""
    moved = tuple(sketch.shape[axis] for axis in perm)
    sketch.op("Transpose", shape=moved, perm=list(perm))


def shuffle(sketch: Sketch, groups: int) -> None:
    """Channels of the groups interleaved."""
    shape = _, channels, height, width = sketch.shape
    reshape(sketch, 1, groups, channels // groups, height, width)
    transpose(sketch, 0, 2, 1, 3, 4)
    reshape(sketch, *shape)


def slice_channels(sketch: Sketch, source: str, start: int, end: int) -> str:
    """Some of the channels of a value."""
    _, _, height, width = sketch.shape_of(source)
    bounds = (sketch.constant(np.array([number])) for number in (start, end, 1))
    return sketch.op("Slice", source, *bounds, shape=(1, end - start, height, width))


def connect(sketch: Sketch, out: int, act: str = "") -> None:
    """A fully connected layer on a vector."""
    weight, bias = sketch.weight(out, sketch.shape[1]), sketch.bias(out)
    sketch.op("Gemm", sketch.value, weight, bias, shape=(1, out), fused=act in _FUSED, transB=1)
    activate(sketch, act)


def classify(sketch: Sketch, classes: int, *, hidden: int = 0, act: str = "Relu") -> None:
    """The mean over space, and fully connected layers."""
    channels = sketch.shape[1]
    sketch.op("GlobalAveragePool", shape=(1, channels, 1, 1))
    sketch.op("Flatten", shape=(1, channels), axis=1)
    if hidden:
        connect(sketch, hidden, act)
    connect(sketch, classes)


def tokens(sketch: Sketch) -> None:
    """Positions become tokens and channels features."""
    _, channels, height, width = sketch.shape
    reshape(sketch, 1, channels, height * width)
    transpose(sketch, 0, 2, 1)


def linear(sketch: Sketch, out: int, act: str = "") -> None:
    """A matrix product over the last axis, with bias."""
    *others, features = sketch.shape
    sketch.op("MatMul", sketch.value, sketch.weight(features, out), shape=(*others, out))
    sketch.op("Add", sketch.value, sketch.bias(out))
    activate(sketch, act)


def layer_norm(sketch: Sketch) -> None:
    """Normalisation over the last axis."""
    features = sketch.shape[-1]
    sketch.op("LayerNormalization", sketch.value, sketch.bias(features), sketch.bias(features), axis=-1)


def attend(sketch: Sketch, heads: int) -> None:
    """Multi-head attention with its four projections."""
    _, count, features = sketch.shape
    size, source, split = features // heads, sketch.value, []
    for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        sketch.go_to(source)
        linear(sketch, features)
        reshape(sketch, 1, count, heads, size)
        transpose(sketch, *perm)
        split.append(sketch.value)
    query, key, value = split
    sketch.op("MatMul", query, key, shape=(1, heads, count, count))
    sketch.op("Mul", sketch.value, sketch.constant(np.array(size**-0.5, np.float32)))
    sketch.op("Softmax", axis=-1)
    sketch.op("MatMul", sketch.value, value, shape=(1, heads, count, size))
    transpose(sketch, 0, 2, 1, 3)
    reshape(sketch, 1, count, features)
    linear(sketch, features)
