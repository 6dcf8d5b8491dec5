"""Equivalent forms of a float graph that integer kernels exist for.

Each rewrite is exact up to the rounding of float32; the tests compare outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, shape_inference

from edgenas.quantization.graph import Graph, attribute, light_copy, replace_nodes

SPATIAL = ({2, 3}, {-2, -1}, {2, -1}, {-2, 3})


@dataclass(frozen=True)
class Replacement:
    """Nodes that take the place of others: written where the last of the removed ones stood."""

    removed: tuple[onnx.NodeProto, ...]
    added: tuple[onnx.NodeProto, ...]


def rewrite(model: onnx.ModelProto) -> None:
    """Applies all rewrites to ``model`` in place, each until it finds nothing more."""
    for rule in (_relu6_gate, _hard_swish, _spatial_mean):
        while _apply(model, rule):
            pass


Rule = Callable[[Graph, onnx.NodeProto], Replacement | None]


def _apply(model: onnx.ModelProto, rule: Rule) -> bool:
    graph = Graph(model)
    for node in graph.nodes:
        found = rule(graph, node)
        if found is not None:
            removed = {id(n) for n in found.removed}
            last = max(i for i, n in enumerate(graph.nodes) if id(n) in removed)
            nodes = [n for n in graph.nodes[:last] if id(n) not in removed]
            replace_nodes(model, [*nodes, *found.added, *graph.nodes[last + 1 :]])
            return True
    return False


def _hard_swish(graph: Graph, node: onnx.NodeProto) -> Replacement | None:
    """``x * HardSigmoid(x)`` is ``HardSwish(x)`` by its definition in the ONNX standard (opset 14)."""
    if node.op_type != "HardSigmoid" or not _is_standard_gate(node):
        return None
    product = graph.only_reader(node.output[0])
    source = node.input[0]
    if product is None or product.op_type != "Mul" or set(product.input) != {source, node.output[0]}:
        return None
    swish = helper.make_node("HardSwish", [source], [product.output[0]], name=product.name)
    return Replacement((node, product), (swish,))


def _is_standard_gate(node: onnx.NodeProto) -> bool:
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return bool(np.isclose(alpha, 1 / 6, rtol=1e-5) and np.isclose(beta, 0.5, rtol=1e-6))


def _relu6_gate(graph: Graph, node: onnx.NodeProto) -> Replacement | None:
    """``Clip(x + 3, 0, 6) / 6`` is ``HardSigmoid(x)``, wherever the division stands beside one product.

    Exporters write HardSwish as ``x * Clip(x + 3, 0, 6) / 6`` with the division first or last.
    """
    if node.op_type != "Clip" or not _clips_to(graph, node, 0.0, 6.0):
        return None
    add, reader = graph.producer.get(node.input[0]), graph.only_reader(node.output[0])
    if add is None or reader is None or add.op_type != "Add":
        return None
    source = _other_input(graph, add, 3.0)
    if source is None or graph.only_reader(add.output[0]) is None:
        return None
    if _divides_by_six(graph, reader, node.output[0]):
        gate = helper.make_node(
            "HardSigmoid", [source], [reader.output[0]], name=reader.name, alpha=1 / 6, beta=0.5
        )
        return Replacement((add, node, reader), (gate,))
    return _product_then_division(graph, add, node, reader, source)


def _product_then_division(
    graph: Graph, add: onnx.NodeProto, clip: onnx.NodeProto, product: onnx.NodeProto, source: str
) -> Replacement | None:
    division = graph.only_reader(product.output[0]) if product.op_type == "Mul" else None
    if division is None or not _divides_by_six(graph, division, product.output[0]):
        return None
    gate = graph.fresh(f"{clip.output[0]}_gate")
    inputs = [gate if name == clip.output[0] else name for name in product.input]
    added = (
        helper.make_node("HardSigmoid", [source], [gate], name=clip.name, alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", inputs, [division.output[0]], name=product.name),
    )
    return Replacement((add, clip, product, division), added)


def _spatial_mean(graph: Graph, node: onnx.NodeProto) -> Replacement | None:
    """The mean over height and width of a 4-d tensor is ``GlobalAveragePool`` (and ``Flatten``)."""
    if node.op_type != "ReduceMean":
        return None
    given = graph.constant(node, 1)
    axes = attribute(node, "axes") if given is None else given.tolist()
    if not axes or set(axes) not in SPATIAL or len(axes) != 2 or _rank(graph, node.input[0]) != 4:
        return None
    if attribute(node, "keepdims", 1):
        pool = helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0]], name=node.name)
        return Replacement((node,), (pool,))
    pooled = graph.fresh(f"{node.output[0]}_pooled")
    added = (
        helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name),
        helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flatten", axis=1),
    )
    return Replacement((node,), added)


def _rank(graph: Graph, tensor: str) -> int | None:
    producer = graph.producer.get(tensor)
    while producer is not None and producer.op_type in {"Relu", "Clip", "Add", "Mul", "HardSigmoid"}:
        producer = graph.producer.get(next(iter(graph.activations(producer)), ""))
    if producer is not None and producer.op_type == "Conv":
        weight = graph.constant(producer, 1)
        return None if weight is None else weight.ndim
    inferred = shape_inference.infer_shapes(light_copy(graph.model))
    for value in (*inferred.graph.value_info, *inferred.graph.input):
        if value.name == tensor and value.type.tensor_type.HasField("shape"):
            return len(value.type.tensor_type.shape.dim)
    return None


def clip_bounds(graph: Graph, node: onnx.NodeProto) -> tuple[float, float] | None:
    """The limits of a Relu or Clip node; None where they are not constant."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = []
    for position, unlimited in ((1, -np.inf), (2, np.inf)):
        if len(node.input) <= position or not node.input[position]:
            bounds.append(float(unlimited))
            continue
        value = graph.constant(node, position)
        if value is None or value.size != 1:
            return None
        bounds.append(float(value.reshape(())))
    return bounds[0], bounds[1]


def _clips_to(graph: Graph, node: onnx.NodeProto, low: float, high: float) -> bool:
    return clip_bounds(graph, node) == (low, high)


def _other_input(graph: Graph, node: onnx.NodeProto, scalar: float) -> str | None:
    """The computed input of a binary node whose other input is the constant ``scalar``."""
    for mine, other in ((0, 1), (1, 0)):
        value = graph.constant(node, other)
        if value is not None and value.size == 1 and np.isclose(float(value.reshape(())), scalar, rtol=1e-5):
            return node.input[mine] if node.input[mine] not in graph.constants else None
    return None


def _divides_by_six(graph: Graph, node: onnx.NodeProto, tensor: str) -> bool:
    if node.op_type == "Div":
        return node.input[0] == tensor and _other_input(graph, node, 6.0) == tensor
    return node.op_type == "Mul" and _other_input(graph, node, 1 / 6) == tensor
