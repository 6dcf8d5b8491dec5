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
    weight_of,
    window_area,
)

FEATURES = (
    "macs", "read", "written", "weights", "in_channels", "out_channels", "height", "width", "window",
    "stride", "inputs", "rank", "activation", "sum", "in_padding", "out_padding", "groups",
)  # fmt: skip


WORK = ("call", "macs", "padded_macs", "read_mb", "written_mb", "weights_mb", "windows", "rows")
"""What a kernel's time is a sum of, to a first approximation; counts in millions."""

_VECTOR = 16  # channels that runtimes block by: the widest vectors of today hold as many floats


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
    outputs = sum(elements(tensor) for tensor in spec.outputs)
    shape = spec.outputs[0].shape if spec.outputs else ()
    counts = (
        macs, macs * _filled_up(spec), sum(map(bytes_of, spec.inputs)), sum(map(bytes_of, spec.outputs)),
        bytes_of(weight) if weight is not None else 0, outputs * window_area(spec), math.prod(shape[:-1]),
    )  # fmt: skip
    return np.array((1.0, *(count / 1e6 for count in counts)))


def _filled_up(spec: KernelSpec) -> float:
    """By how much a convolution's output channels grow when they fill whole vectors."""
    if not is_convolution(spec) or not spec.outputs:
        return 1.0
    count = channels(spec.outputs[0], spec)
    groups = convolution_groups(spec)
    per_group = count if groups >= count else max(count // groups, 1)
    return -(-per_group // _VECTOR) * _VECTOR / max(per_group, 1)


def _features(spec: KernelSpec) -> tuple[float, ...]:
    first = spec.inputs[0] if spec.inputs else None
    last = spec.outputs[0] if spec.outputs else None
    spatial = last.shape[2:4] if last is not None and len(last.shape) == 4 else (1, 1)
    weight = weight_of(spec)
    return (
        _log(macs_of(spec)),
        _log(sum(elements(tensor) for tensor in spec.inputs)),
        _log(sum(elements(tensor) for tensor in spec.outputs)),
        _log(elements(weight) if weight is not None else 0),
        _log(channels(first, spec) if first is not None else 0),
        _log(channels(last, spec) if last is not None else 0),
        _log(spatial[0]),
        _log(spatial[1]),
        _log(window_area(spec)),
        _log(_stride(spec)),
        float(len(spec.inputs)),
        float(len(last.shape)) if last is not None else 0.0,
        float(_activation(spec)),
        float(is_convolution(spec) and len(spec.inputs) > 3),
        _padding(channels(first, spec) if first is not None else 0),
        _padding(channels(last, spec) if last is not None else 0),
        math.log2(convolution_groups(spec)) if is_convolution(spec) else 0.0,
    )


def _padding(count: int) -> float:
    """How much work the channels that fill up the last vector add; 0 where none do."""
    return math.log2(-(-count // _VECTOR) * _VECTOR / count) if count > 0 else 0.0


def _stride(spec: KernelSpec) -> int:
    strides = spec.attributes.get("strides")
    return math.prod(int(step) for step in strides) if isinstance(strides, list) and strides else 1


def _activation(spec: KernelSpec) -> int:
    """0 without a fused activation, 1 for a clamp, 2 for anything that costs more."""
    name = str(spec.attributes.get("activation", ""))
    return 0 if not name else 1 if name in ("Relu", "Clip") else 2


def _log(value: float) -> float:
    return math.log2(1.0 + value)
