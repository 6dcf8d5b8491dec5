"""The cell of NAS-Bench-201 and the block between its stages.

Source: Dong and Yang, NAS-Bench-201 (2020), figure 1.
"""

from __future__ import annotations

from typing import Literal

from edgenas.search_spaces.layer import Layer, conv
from edgenas.search_spaces.parts import INPUT, Activate, Add, AnyPart, AveragePool, Conv, Zero

CellOperation = Literal["none", "skip", "avgpool3x3", "conv1x1", "conv3x3"]

NODES = 4
EDGES = tuple((source, target) for source in range(NODES) for target in range(source + 1, NODES))
"""Pairs of nodes in the order of HW-NAS-Bench's rows: 0-1, 0-2, 0-3, 1-2, 1-3, 2-3."""


class Cell(Layer, kw_only=True):
    """Four nodes, an operation on each of the six edges; a node is the sum of what reaches it.

    ``operations`` stand in the order of ``EDGES``. Convolutions are Relu, convolution, batch norm;
    a node's Relu is computed once for all of its convolutions. Edges that no path leads through are
    left out, as every runtime would: a cell without any path is zero, one of skips alone its input.
    """

    operations: tuple[CellOperation, ...]

    def parts(self) -> tuple[AnyPart, ...]:
        used = self._used_edges()
        if not used:
            return (Zero(name="zero", inputs=(INPUT,)),)
        parts: list[AnyPart] = []
        wires = {0: INPUT}
        for target in range(1, NODES):
            reached = [self._edge(parts, wires[s], (s, t)) for s, t in used if t == target]
            if reached:
                wires[target] = _sum(parts, reached, f"node{target}")
        return tuple(parts)

    def _edge(self, parts: list[AnyPart], source: str, edge: tuple[int, int]) -> str:
        """Adds the parts of one edge that reads ``source``; returns the wire it ends in."""
        operation = self.operations[EDGES.index(edge)]
        name = f"edge{edge[0]}{edge[1]}"
        if operation == "skip":
            return source
        if operation == "avgpool3x3":
            parts.append(AveragePool(name=name, inputs=(source,), kernel=3))
            return name
        relu = f"relu{edge[0]}"
        if all(part.name != relu for part in parts):
            parts.append(Activate(name=relu, inputs=(source,), activation="relu"))
        kernel = 1 if operation == "conv1x1" else 3
        parts.append(conv(name, relu, self.in_channels, self.out_channels, kernel))
        return name

    def _used_edges(self) -> list[tuple[int, int]]:
        """Edges on a path from the first node to the last one, in the order of ``EDGES``."""
        edges = [edge for edge, name in zip(EDGES, self.operations, strict=True) if name != "none"]
        reached, needed = {0}, {NODES - 1}
        for source, target in edges:  # sources ascend, so one pass in each direction is enough
            if source in reached:
                reached.add(target)
        for source, target in reversed(edges):
            if target in needed:
                needed.add(source)
        return [(source, target) for source, target in edges if source in reached and target in needed]


class PreActivationBlock(Layer, kw_only=True):
    """Two Relu-convolution-norms, the first of stride 2, beside a mean of 2x2 and a convolution."""

    def parts(self) -> tuple[AnyPart, ...]:
        return (
            Activate(name="relu1", inputs=(INPUT,), activation="relu"),
            conv("conv1", "relu1", self.in_channels, self.out_channels, 3, 2, "relu"),
            conv("conv2", "conv1", self.out_channels, self.out_channels, 3),
            AveragePool(name="halve", inputs=(INPUT,), kernel=2, stride=2),
            Conv(name="shortcut", inputs=("halve",), in_channels=self.in_channels,
                 out_channels=self.out_channels, normalized=False),
            Add(name="add", inputs=("conv2", "shortcut")),
        )  # fmt: skip


def _sum(parts: list[AnyPart], wires: list[str], name: str) -> str:
    """Adds the sum of ``wires``, pair by pair; returns its wire."""
    total = wires[0]
    for number, wire in enumerate(wires[1:]):
        parts.append(Add(name=f"{name}_{number}", inputs=(total, wire)))
        total = parts[-1].name
    return total
