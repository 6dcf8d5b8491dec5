"""How a kernel walks through memory: in which stretches it works, and how far apart they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgenas.latency_tables.kernels import KernelSpec, bytes_of, elements, is_convolution, is_matrix_product

Shape = tuple[int, ...]

_LINE_BYTES, _PAGE_BYTES = 64, 4096
_MOVES_PARTS = frozenset({"Slice", "Split", "Pad", "Gather", "StridedSlice", "VariadicSplit"})


def stretch_of(spec: KernelSpec) -> int:
    """Elements that the kernel handles in one go, without looking where to go on.

    Transposes and concatenations copy stretches, and an operation of two tensors of which one is
    broadcast works on one stretch after the other: many short ones cost more than their elements.
    """
    if not spec.outputs or not spec.inputs:
        return 1
    output = spec.outputs[0].shape
    if spec.kind == "Transpose":
        return _unmoved(spec.inputs[0].shape, _order(spec))
    if "Concat" in spec.kind:
        return max(math.prod(output[_axis(spec) :]) // max(len(_parts(spec)), 1), 1)
    if spec.kind in _MOVES_PARTS:
        return _common_end(spec.inputs[0].shape, output)
    if is_convolution(spec) or is_matrix_product(spec):
        return output[-1] if output else 1
    return _broadcast_stretch([tensor.shape for tensor in spec.inputs if elements(tensor) > 1], output)


def alignment_of(spec: KernelSpec) -> float:
    """Base-2 logarithm of the largest power of two in the bytes between neighbouring stretches.

    In lines of a cache, 0 to 6: lines that are whole pages apart fall into the same few places of a cache
    and drive each other out, which makes a transpose of 64x64 positions four times slower.

    Source: Hennessy and Patterson, Computer Architecture (2011), appendix B (conflict misses).
    """
    strides = _strides_bytes(spec)
    shared = max((stride & -stride for stride in strides if stride > 0), default=1)
    return math.log2(min(max(shared, _LINE_BYTES), _PAGE_BYTES) / _LINE_BYTES)


def _strides_bytes(spec: KernelSpec) -> Sequence[int]:
    """How far apart in memory a kernel reads, or writes, what it writes, or reads, side by side."""
    if not spec.inputs or not spec.outputs:
        return ()
    first, last = spec.inputs[0], spec.outputs[0]
    size = bytes_of(first) // max(elements(first), 1)
    if spec.kind == "Transpose" and first.shape:
        order = [axis for axis in _order(spec) if first.shape[axis] > 1]
        if not order:
            return ()
        inner, moved = order[-1], max(order)
        read = math.prod(first.shape[inner + 1 :])
        written = math.prod(first.shape[axis] for axis in order[order.index(moved) + 1 :])
        return [size * stride for stride in (read, written) if stride > 1]
    return [size * math.prod(last.shape[2:])] if len(last.shape) == 4 else ()


def _order(spec: KernelSpec) -> list[int]:
    order = spec.attributes.get("perm")
    return order if isinstance(order, list) else list(reversed(range(len(spec.inputs[0].shape))))


def _axis(spec: KernelSpec) -> int:
    axis = spec.attributes.get("axis", 1)
    rank = len(spec.outputs[0].shape)
    return axis % rank if isinstance(axis, int) and rank else 0


def _parts(spec: KernelSpec) -> list[Shape]:
    """Shapes of what is concatenated; scales and zero points stand between them."""
    rank = len(spec.outputs[0].shape)
    return [tensor.shape for tensor in spec.inputs if len(tensor.shape) == rank]


def _unmoved(shape: Shape, order: Sequence[int]) -> int:
    """Elements of the last axes that stay where they are."""
    stretch = 1
    for position in reversed(range(len(order))):
        axis = order[position]
        if axis != position and shape[axis] > 1:
            break
        stretch *= shape[axis]
    return stretch


def _common_end(before: Shape, after: Shape) -> int:
    """Elements of the last axes of ``after`` that are taken whole, and what is taken of the next."""
    stretch = 1
    for old, new in zip(reversed(before), reversed(after), strict=False):
        stretch *= new
        if old != new:
            break
    return max(stretch, 1)


def _broadcast_stretch(inputs: Sequence[Shape], output: Shape) -> int:
    """Elements of the last axes over which each input either goes along or stands still."""
    padded = [(1,) * (len(output) - len(shape)) + shape for shape in inputs if len(shape) <= len(output)]
    stretch, ways = 1, None
    for axis in reversed(range(len(output))):
        if output[axis] == 1:
            continue
        here = tuple(shape[axis] == output[axis] for shape in padded)
        if ways is not None and here != ways:
            break
        stretch, ways = stretch * output[axis], here
    return max(stretch, 1)
