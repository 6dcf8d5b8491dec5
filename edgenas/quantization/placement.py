"""Which nodes run on integers and which tensors are quantized for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from edgenas.quantization.graph import Graph, attribute
from edgenas.quantization.rewrites import clip_bounds
from edgenas.quantization.schemes import QuantizationScheme
from edgenas.records import FloatOperators

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
COMPUTING = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Sigmoid", "LeakyRelu"})
MOVING = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad", "Split",
     "DepthToSpace", "SpaceToDepth", "Resize"}
)  # fmt: skip
GATES = frozenset({"HardSigmoid", "HardSwish"})
CLAMPS = frozenset({"Relu", "Clip"})


@dataclass
class Placement:
    """What the emitter is told.

    Attributes:
        integer: names of the nodes that become integer kernels, clamps that vanish included.
        clamps: output of a weighted or adding node -> the clamp node that quantization replaces.
        quantized: tensors that exist as integers, in the order of the graph.
        same_as: output of a moving node -> the tensor whose scale it shares.
    """

    integer: set[str] = field(default_factory=set)
    clamps: dict[str, onnx.NodeProto] = field(default_factory=dict)
    quantized: list[str] = field(default_factory=list)
    same_as: dict[str, str] = field(default_factory=dict)

    def scale_owner(self, tensor: str) -> str:
        """The tensor whose range sets the scale of ``tensor``."""
        while tensor in self.same_as:
            tensor = self.same_as[tensor]
        return tensor


def place(graph: Graph, scheme: QuantizationScheme) -> Placement:
    """Decides for every node of a prepared float graph; nodes that the scheme keeps float stay so."""
    placement = Placement()
    made_by_integers: set[str] = set()
    for node in graph.nodes:
        if scheme.keeps_float(node.name) or not _supported(graph, node, scheme):
            continue
        if node.op_type in WEIGHTED or any(name in made_by_integers for name in node.input):
            placement.integer.add(node.name)
            made_by_integers.update(_outputs(graph, node, placement))
    _release_idle(graph, placement)
    _list_tensors(graph, placement)
    return placement


def _outputs(graph: Graph, node: onnx.NodeProto, placement: Placement) -> list[str]:
    """The tensors that hold the node's integer result: behind its clamp where one vanishes."""
    clamp = vanishing_clamp(graph, node)
    if clamp is not None:
        placement.clamps[node.output[0]] = clamp
        placement.integer.add(clamp.name)
        return [clamp.output[0]]
    return [name for name in node.output if name]


def vanishing_clamp(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The Relu or Clip behind ``node`` that the saturation of its integer output replaces."""
    if node.op_type not in {"Conv", "Gemm", "MatMul", "Add", "Mul"}:
        return None
    reader = graph.only_reader(node.output[0])
    if reader is None or reader.op_type not in CLAMPS or reader.input[0] != node.output[0]:
        return None
    bounds = clip_bounds(graph, reader)
    return reader if bounds is not None and bounds[0] <= 0.0 <= bounds[1] else None


def _supported(graph: Graph, node: onnx.NodeProto, scheme: QuantizationScheme) -> bool:
    check = _CHECKS.get(node.op_type)
    if node.op_type in COMPUTING and not scheme.integer_sums:
        return False
    if check is not None:
        return check(graph, node)
    if node.op_type in GATES:
        return scheme.integer_gates and scheme.integer_sums and gate_line(node)[0] > 0
    return node.op_type in COMPUTING | MOVING


def why_float(graph: Graph, scheme: QuantizationScheme) -> list[FloatOperators]:
    """The operators that ``scheme`` leaves in float, by kind and reason, most frequent first."""
    integer = place(graph, scheme).integer
    groups: dict[tuple[str, str], list[str]] = {}
    for node in graph.nodes:
        if node.name not in integer:
            groups.setdefault((node.op_type, _reason(graph, node, scheme)), []).append(node.name)
    found = [
        FloatOperators(op=op, count=len(names), reason=reason, examples=tuple(names[:3]))
        for (op, reason), names in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)


def _reason(graph: Graph, node: onnx.NodeProto, scheme: QuantizationScheme) -> str:
    if scheme.keeps_float(node.name):
        return "its time or its error on integers: the mixture of precisions has it in float"
    if _supported(graph, node, scheme):
        return "no integers come in or none are wanted behind it"
    if _supported(graph, node, QuantizationScheme()):
        return "the scheme computes it in float between integer layers"
    if node.op_type in _CHECKS or node.op_type in GATES:
        return "its attributes or weights have no integer form (computed weights, bias, padding, shapes)"
    return "the runtimes have no integer kernel for it"


def _is_float_weight(graph: Graph, node: onnx.NodeProto, position: int) -> bool:
    weight = graph.constant(node, position)
    return weight is not None and weight.dtype == np.float32 and weight.ndim >= 2


def _conv(graph: Graph, node: onnx.NodeProto) -> bool:
    constant_bias = len(node.input) < 3 or not node.input[2] or node.input[2] in graph.constants
    return _is_float_weight(graph, node, 1) and constant_bias


def _gemm(graph: Graph, node: onnx.NodeProto) -> bool:
    bias = graph.constant(node, 2)
    vector = len(node.input) < 3 or (bias is not None and bias.size == max(bias.shape, default=0))
    plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
    return plain and vector and not attribute(node, "transA", 0) and _is_float_weight(graph, node, 1)


def _matmul(graph: Graph, node: onnx.NodeProto) -> bool:
    weight = graph.constant(node, 1)
    return weight is not None and weight.dtype == np.float32 and weight.ndim == 2


def _float_constants(graph: Graph, node: onnx.NodeProto) -> bool:
    constants = [graph.constants[name] for name in node.input if name in graph.constants]
    return all(c.dtype == np.float32 for c in constants)


def _pad(graph: Graph, node: onnx.NodeProto) -> bool:
    value = graph.constant(node, 2)
    zero = len(node.input) < 3 or not node.input[2] or (value is not None and not value.any())
    return zero and attribute(node, "mode", b"constant") == b"constant"


def _resize(_: Graph, node: onnx.NodeProto) -> bool:
    """Repeats values; interpolation would compute new ones."""
    return bool(attribute(node, "mode", b"nearest") == b"nearest")


def _max_pool(_: Graph, node: onnx.NodeProto) -> bool:
    return len(node.output) == 1


_CHECKS: dict[str, Callable[[Graph, onnx.NodeProto], bool]] = {
    "Conv": _conv, "Gemm": _gemm, "MatMul": _matmul, "Add": _float_constants, "Mul": _float_constants,
    "Concat": _float_constants, "Pad": _pad, "MaxPool": _max_pool,
    "Resize": _resize,
}  # fmt: skip


def _release_idle(graph: Graph, placement: Placement) -> None:
    """Gives nodes that only move values back to float where nothing integer reads the result."""
    for node in reversed(graph.nodes):
        if node.name in placement.integer and node.op_type in MOVING:
            readers = [reader for output in node.output for reader in graph.readers.get(output, [])]
            if not any(reader.name in placement.integer for reader in readers):
                placement.integer.discard(node.name)


def _list_tensors(graph: Graph, placement: Placement) -> None:
    clamped = {clamp.name for clamp in placement.clamps.values()}
    tensors: dict[str, None] = {}
    for node in graph.nodes:
        if node.name not in placement.integer or node.name in clamped:
            continue
        tensors.update(dict.fromkeys(activation_inputs(node)))
        for output in node.output:
            clamp = placement.clamps.get(output)
            if output and (clamp is not None or keeps_integer_output(graph, node, placement)):
                tensors[clamp.output[0] if clamp is not None else output] = None
        if node.op_type in MOVING:
            placement.same_as.update(dict.fromkeys(node.output, node.input[0]))
    placement.quantized = list(tensors)


def gate_line(node: onnx.NodeProto) -> tuple[float, float]:
    """Slope and offset of the gate ``clip(slope * x + offset, 0, 1)`` in a HardSigmoid or HardSwish."""
    if node.op_type == "HardSwish":
        return 1 / 6, 0.5
    return float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5))


def activation_inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs of an integer node that hold values of activations: computed, or constants beside them."""
    if node.op_type in WEIGHTED | MOVING | GATES:
        return [node.input[0]]
    return [name for name in node.input if name]


def keeps_integer_output(graph: Graph, node: onnx.NodeProto, placement: Placement) -> bool:
    """False for a Gemm or MatMul whose result nobody wants as integers: it can give floats directly."""
    if node.op_type not in {"Gemm", "MatMul"}:
        return True
    readers = graph.readers.get(node.output[0], [])
    return any(reader.name in placement.integer for reader in readers)
