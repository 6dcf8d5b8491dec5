"""Kernels as vectors of numbers, for the regressors of kernels that were never measured."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.kernels import (
    KernelSpec,
    bytes_of,
    channels,
    convolution_groups,
    elements,
    is_convolution,
    macs_of,
    sides,
    weight_of,
    window_area,
)
from edgenas.latency_tables.strides import alignment_of, stretch_of

FEATURES = (
    "macs", "read", "written", "weights", "in_channels", "out_channels", "height", "width", "window",
    "stride", "inputs", "rank", "activation", "sum", "in_padding", "out_padding", "groups", "zero_point",
    "stretch", "alignment", "block_padding", "requantized",
)  # fmt: skip

WORK = (
    "call", "groups", "macs", "padded_macs", "blocked_macs", "unrolled", "windows", "rows", "stretches",
    "requantized", "read_mb", "written_mb", "weights_mb", "beyond_half_mb", "beyond_2_mb", "beyond_8_mb",
)  # fmt: skip
"""What a kernel's time is a sum of, to a first approximation; counts in millions.

Unrolled is a convolution's input as the matrix that some kernels make of it. What is beyond so many
megabytes, of all that is read and written, does not stay in a cache of that size.
"""

_VECTOR = 16  # channels that runtimes block by: the widest vectors of today hold as many floats
_BLOCK = 64  # output channels that a kernel has registers for at once
_CLAMPS = frozenset({"Relu", "Clip", "Clamp"})
_CACHES_MB = (0.5, 2.0, 8.0)


def features_of(spec: KernelSpec) -> NDArray[np.float64]:
    """Base-2 logarithms of work, traffic and shape, (len(FEATURES),) float64.

    Logarithms, because latency over shape is close to a power law between the steps that vector
    widths and caches make.
    """
    return np.array(_features(spec))


def work_of(spec: KernelSpec) -> NDArray[np.float64]:
    """How much of each kind of ``WORK`` a kernel does, (len(WORK),) float64.

    Source: Williams et al., Roofline (2009): time is bound by arithmetic or by traffic; a sum of both
    with what each call costs lies within a factor of two of the larger and can be fitted.
    """
    macs, weight = macs_of(spec), weight_of(spec)
    read, written = (sum(map(bytes_of, tensors)) / 1e6 for tensors in (spec.inputs, spec.outputs))
    outputs = sum(elements(tensor) for tensor in spec.outputs)
    rows = math.prod(spec.outputs[0].shape[:-1]) if spec.outputs else 0
    groups, per_group = _groups(spec)
    filled = (macs * _filled_up(per_group, size) for size in (_VECTOR, _BLOCK))
    stretches = outputs / stretch_of(spec)
    requantized = outputs * float(spec.attributes.get("requantized", 0.0))
    millions = (macs, *filled, macs / per_group, outputs * window_area(spec), rows, stretches, requantized)
    traffic = (read, written, bytes_of(weight) / 1e6 if weight is not None else 0.0)
    beyond = (max(read + written - size, 0.0) for size in _CACHES_MB)
    return np.array((1.0, groups, *(count / 1e6 for count in millions), *traffic, *beyond))


def _groups(spec: KernelSpec) -> tuple[int, int]:
    """Matrix products that a grouped convolution is made of, and output channels of each; else 0 and 1."""
    if not is_convolution(spec) or not spec.outputs:
        return 0, 1
    count, groups = channels(spec.outputs[0], spec), convolution_groups(spec)
    # One product a channel is no product: depthwise convolutions have kernels of their own.
    return (0, count) if groups >= count else (groups, max(count // groups, 1))


def _filled_up(count: int, size: int) -> float:
    """By how much channels grow when they fill whole vectors, or whole blocks of them."""
    return -(-count // size) * size / count


def _features(spec: KernelSpec) -> tuple[float, ...]:
    first = spec.inputs[0] if spec.inputs else None
    last = spec.outputs[0] if spec.outputs else None
    height, width = sides(last, spec) if last is not None else (1, 1)
    weight = weight_of(spec)
    return (
        _log(macs_of(spec)),
        _log(sum(elements(tensor) for tensor in spec.inputs)),
        _log(sum(elements(tensor) for tensor in spec.outputs)),
        _log(elements(weight) if weight is not None else 0),
        _log(channels(first, spec) if first is not None else 0),
        _log(channels(last, spec) if last is not None else 0),
        _log(height),
        _log(width),
        _log(window_area(spec)),
        _log(_stride(spec)),
        float(len(spec.inputs)),
        float(len(last.shape)) if last is not None else 0.0,
        float(_activation(spec)),
        float(is_convolution(spec) and len(spec.inputs) > 3),
        _padding(channels(first, spec) if first is not None else 0),
        _padding(channels(last, spec) if last is not None else 0),
        math.log2(convolution_groups(spec)) if is_convolution(spec) else 0.0,
        2.0 * bool(spec.attributes.get("input_zero_point")),
        _log(stretch_of(spec)),
        alignment_of(spec),
        _padding(channels(last, spec) if last is not None and is_convolution(spec) else 0, _BLOCK),
        2.0 * float(spec.attributes.get("requantized", 0.0)),
    )


def _padding(count: int, size: int = _VECTOR) -> float:
    """How much work the channels that fill up the last vector add; 0 where none do."""
    return math.log2(_filled_up(count, size)) if count > 0 else 0.0


def _stride(spec: KernelSpec) -> int:
    strides = spec.attributes.get("strides")
    return math.prod(int(step) for step in strides) if isinstance(strides, list) and strides else 1


def _activation(spec: KernelSpec) -> int:
    """0 without a fused activation, 1 for a clamp, 2 for anything that costs more."""
    names = [spec.attributes.get("activation", ""), *spec.attributes.get("fused", [])]
    fused = [name for name in names if name]
    return 0 if not fused else 1 if _CLAMPS.issuperset(fused) else 2


def _log(value: float) -> float:
    return math.log2(1.0 + value)
