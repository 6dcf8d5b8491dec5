"""Cross-layer equalization: neighbouring weights are rescaled so that no channel wastes the integers.

For ``y = W2 relu(W1 x + b1)`` each channel of the middle may be divided by ``s`` before the Relu and
multiplied by it after, exactly, because ``relu(x / s) = relu(x) / s`` for ``s > 0``.

Source: M. Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction,
ICCV 2019, section 4.1: ``s = sqrt(r1 / r2)`` with the ranges of the channel in both weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from edgenas.quantization.graph import Graph, attribute, set_constant

TRANSPARENT = frozenset({"Relu", "LeakyRelu"})  # what scaling by a positive number passes through
ROUNDS = 10
LARGEST_FACTOR = 64.0
Floats = npt.NDArray[np.float32]


@dataclass
class _Pair:
    first: onnx.NodeProto
    second: onnx.NodeProto


def equalize(model: onnx.ModelProto) -> int:
    """Equalizes all pairs of convolutions in place, up and down the network; returns how many pairs.

    Outputs of the model stay the same up to rounding.
    """
    graph = Graph(model)
    pairs = [pair for node in graph.nodes if (pair := _pair(graph, node)) is not None]
    weights = {name: graph.constants[name].copy() for name in _names(pairs)}
    for _ in range(ROUNDS if pairs else 0):
        for pair in pairs:
            _balance(pair, weights)
    for name, array in weights.items():
        set_constant(model, name, array)
    return len(pairs)


def _names(pairs: list[_Pair]) -> set[str]:
    names = {pair.second.input[1] for pair in pairs}
    for pair in pairs:
        names.update(pair.first.input[1:])
    return {name for name in names if name}


def _pair(graph: Graph, node: onnx.NodeProto) -> _Pair | None:
    if not _movable(graph, node):
        return None
    reader = graph.only_reader(node.output[0])
    if reader is not None and reader.op_type in TRANSPARENT:
        reader = graph.only_reader(reader.output[0])
    if reader is None or not _movable(graph, reader):
        return None
    groups = attribute(reader, "group", 1)
    inner = graph.constants[reader.input[1]].shape[1]
    return _Pair(node, reader) if groups == 1 or inner == 1 else None


def _movable(graph: Graph, node: onnx.NodeProto) -> bool:
    """A convolution whose constants belong to it alone."""
    constants = [name for name in node.input[1:] if name]
    return node.op_type == "Conv" and all(
        name in graph.constants and len(graph.readers[name]) == 1 for name in constants
    )


def _balance(pair: _Pair, weights: dict[str, Floats]) -> None:
    first, second = weights[pair.first.input[1]], weights[pair.second.input[1]]
    depthwise = attribute(pair.second, "group", 1) > 1
    axis = 0 if depthwise else 1
    if second.shape[axis] != first.shape[0]:
        return
    r1 = np.abs(first).reshape(len(first), -1).max(1)
    r2 = np.abs(np.moveaxis(second, axis, 0)).reshape(second.shape[axis], -1).max(1)
    usable = (r1 > 0) & (r2 > 0)
    factor = np.where(usable, np.sqrt(r1 / np.where(usable, r2, 1.0)), 1.0)
    factor = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)
    first /= _along(factor, 0, first.ndim)
    second *= _along(factor, axis, second.ndim)
    if len(pair.first.input) > 2 and pair.first.input[2]:
        weights[pair.first.input[2]] /= factor


def _along(factor: Floats, axis: int, rank: int) -> Floats:
    shape = [1] * rank
    shape[axis] = -1
    return factor.reshape(shape)
