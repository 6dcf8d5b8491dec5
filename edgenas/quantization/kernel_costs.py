"""Gives the device's measured kernels to the nodes that they came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx

from edgenas.quantization.graph import Graph, light_copy
from edgenas.quantization.segments import Segment
from edgenas.records import KernelTrace, TracedKernel

# What runtimes append to the names of fused and converted nodes, and what the emitter appends.
SUFFIX = re.compile(
    r"(_nchwc|_nhwc|_token_\d+|_fused|_quantized?|_dequantized?(_\d+)?|_float|_sum|_gate|_unquantized)+$"
)
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "Transpose", "ReorderInput", "ReorderOutput"})
# Kernels that move values and compute nothing, by the names of ONNX Runtime and of OpenVINO.
MOVEMENTS = frozenset(
    {"Transpose", "ReorderInput", "ReorderOutput", "Reorder", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
    | {"Identity", "Gather", "Slice", "StridedSlice", "Split", "Concat", "Concatenation", "Expand", "Tile"}
)
EIGHT_BIT = frozenset({"int8", "uint8"})


@dataclass(frozen=True)
class SegmentCosts:
    """Milliseconds of each segment in float and as integers, and of changing precision before it."""

    float_ms: tuple[float, ...]
    int8_ms: tuple[float, ...]
    change_ms: tuple[float, ...]


def segment_costs(
    graph: Graph, segments: Sequence[Segment], float_trace: KernelTrace, int8_trace: KernelTrace
) -> SegmentCosts:
    """From one trace of the float model and one of the all-integer model.

    A kernel without a known name (a reordering of memory) counts to the segment of the one before.
    Each trace is scaled to what the whole model takes in it, so that overhead between kernels counts.
    """
    owner = _owners(graph, segments)
    change = _conversion_model(int8_trace)
    sizes = tensor_sizes(graph.model)
    largest = max(sizes.values(), default=1)
    return SegmentCosts(
        _summed(float_trace, owner, len(segments)),
        _summed(int8_trace, owner, len(segments)),
        tuple(change(sizes.get(segment.entry, largest)) for segment in segments),
    )


def tensor_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Elements of one sample of each tensor whose shape is known."""
    inferred = onnx.shape_inference.infer_shapes(light_copy(model))
    sizes = {}
    for value in (*inferred.graph.value_info, *inferred.graph.input):
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:]]
        if shape and all(shape):
            sizes[value.name] = prod(shape)
    return sizes


def _owners(graph: Graph, segments: Sequence[Segment]) -> dict[str, int]:
    position = {name: i for i, segment in enumerate(segments) for name in segment.nodes}
    owner = dict(position)
    for node in graph.nodes:
        owner.update((output, position[node.name]) for output in node.output if node.name in position)
    return owner


def on_integers(kernel: TracedKernel) -> bool:
    """Whether a kernel computes on 8-bit integers: it reads one, and has another as weight or result.

    Conversions read or write a single one beside their zero point, and moving values is no gain.
    """
    if kernel.kind in CONVERSIONS | MOVEMENTS or not kernel.inputs:
        return False
    others = (*kernel.inputs[1:], *kernel.outputs)
    return kernel.inputs[0].dtype in EIGHT_BIT and any(one.dtype in EIGHT_BIT for one in others)


def _names(kernel: TracedKernel) -> list[str]:
    return [kernel.name, SUFFIX.sub("", kernel.name)]


def _summed(trace: KernelTrace, owner: Mapping[str, int], count: int) -> tuple[float, ...]:
    totals, current = [0.0] * count, 0
    for kernel in trace.kernels:
        current = next((owner[name] for name in _names(kernel) if name in owner), current)
        totals[current] += kernel.latency_ms
    whole = sum(totals)
    scale = trace.run_latency_ms / whole if whole > 0 else 1.0
    return tuple(total * scale for total in totals)


class _Conversion:
    """Cost of changing precision: two kernels' overhead and a time for each element."""

    def __init__(self, overhead_ms: float, per_element_ms: float) -> None:
        self._overhead_ms, self._per_element_ms = overhead_ms, per_element_ms

    def __call__(self, elements: int) -> float:
        return self._overhead_ms + self._per_element_ms * elements


def _conversion_model(trace: KernelTrace) -> _Conversion:
    """From the conversions that the all-integer model has anyway, at its input at least."""
    floor = min((kernel.latency_ms for kernel in trace.kernels), default=0.0)
    found = [kernel for kernel in trace.kernels if kernel.kind in CONVERSIONS and kernel.outputs]
    elements = sum(prod(kernel.outputs[0].shape or (1,)) for kernel in found)
    spent = sum(max(kernel.latency_ms - floor, 0.0) for kernel in found)
    return _Conversion(2 * floor, 2 * spent / max(elements, 1))
