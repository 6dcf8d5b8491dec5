"""Cuts a graph where one tensor alone connects what comes before with what comes after."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgenas.quantization.graph import Graph
from edgenas.quantization.placement import CLAMPS, MOVING, WEIGHTED


@dataclass(frozen=True)
class Segment:
    """Consecutive nodes that change precision together.

    Attributes:
        nodes: their names in graph order.
        entry: the tensor that enters; the one at which a change of precision costs something.
    """

    nodes: tuple[str, ...]
    entry: str


def segments_of(graph: Graph) -> list[Segment]:
    """The graph as a chain; residual blocks stay whole, each layer elsewhere is one segment.

    A segment without weights belongs to the one before it, as do clamps and nodes that only move
    values: a change of precision there could only cost.
    """
    chains = _cut(graph)
    merged: list[tuple[list[onnx.NodeProto], str]] = []
    for nodes, entry in chains:
        if merged and (_continues(nodes[0]) or not any(node.op_type in WEIGHTED for node in nodes)):
            merged[-1][0].extend(nodes)
        else:
            merged.append((list(nodes), entry))
    return [Segment(tuple(node.name for node in nodes), entry) for nodes, entry in merged]


def _continues(node: onnx.NodeProto) -> bool:
    return node.op_type in CLAMPS | MOVING


def _cut(graph: Graph) -> list[tuple[list[onnx.NodeProto], str]]:
    last_use = _last_uses(graph)
    given = [value.name for value in graph.model.graph.input if value.name not in graph.constants]
    alive = {name for name in given if name in last_use}
    pieces: list[tuple[list[onnx.NodeProto], str]] = []
    nodes: list[onnx.NodeProto] = []
    entry = next(iter(alive), "")
    for position, node in enumerate(graph.nodes):
        nodes.append(node)
        alive.update(name for name in node.output if name)
        alive = {name for name in alive if last_use.get(name, -1) > position}
        if len(alive) == 1:
            pieces.append((nodes, entry))
            nodes, entry = [], next(iter(alive))
    return [*pieces, (nodes, entry)] if nodes else pieces


def _last_uses(graph: Graph) -> dict[str, int]:
    uses: dict[str, int] = {}
    for position, node in enumerate(graph.nodes):
        uses.update((name, position) for name in node.input if name and name not in graph.constants)
    return uses
