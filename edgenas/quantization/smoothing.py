"""SmoothQuant: outliers of normalised activations move into the weights that read them, exactly.

A layer normalisation ends with a scale and a shift of each channel. Dividing both by ``s`` and
multiplying the rows of all matrices behind it by ``s`` changes nothing in float, but lets activations
and weights share what is hard to round.

Source: G. Xiao et al., SmoothQuant, ICML 2023, equation 4 with a migration strength of one half:
``s = sqrt(max |X| / max |W|)`` of each channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from edgenas.quantization.graph import Graph, set_constant
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.reference_run import run_batches

SAMPLES = 32
LARGEST_FACTOR = 64.0
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Group:
    """A normalised tensor, the constants that make its scale and shift, and the weights that read it."""

    tensor: str
    constants: tuple[str, ...]
    weights: tuple[str, ...]


def smoothable(model: onnx.ModelProto) -> int:
    """How many normalised tensors could be smoothed."""
    return len(_groups(Graph(model)))


def smooth(model: onnx.ModelProto, inputs: Inputs) -> int:
    """Smooths all normalised tensors in place; returns how many. At most ``SAMPLES`` samples are run."""
    graph = Graph(model)
    groups = _groups(graph)
    if not groups:
        return 0
    few = inputs.subset(np.arange(min(SAMPLES, len(inputs))))
    largest = _channel_maxima(model, [group.tensor for group in groups], few)
    for group in groups:
        weights = {name: graph.constants[name] for name in group.weights}
        rows = np.max([np.abs(weight).max(axis=1) for weight in weights.values()], axis=0)
        factor = _factors(largest[group.tensor], rows)
        for name in group.constants:
            set_constant(model, name, graph.constants[name] / factor)
        for name, weight in weights.items():
            set_constant(model, name, weight * factor[:, None])
    return len(groups)


def _factors(activations: Floats, weights: Floats) -> Floats:
    usable = (activations > 0) & (weights > 0)
    factor = np.sqrt(np.where(usable, activations, 1.0) / np.where(usable, weights, 1.0))
    limited: Floats = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)
    return limited


def _groups(graph: Graph) -> list[_Group]:
    found = []
    for node in graph.nodes:
        constants = _scale_and_shift(graph, node)
        weights = _readers_weights(graph, node.output[0]) if constants else ()
        sizes = {graph.constants[name].shape[0] for name in (*constants, *weights)}
        if constants and weights and len(sizes) == 1:
            found.append(_Group(node.output[0], constants, weights))
    return found


def _scale_and_shift(graph: Graph, node: onnx.NodeProto) -> tuple[str, ...]:
    """The vectors that belong to ``node`` alone: one operator, or the last two of a written-out one."""
    if node.op_type == "LayerNormalization":
        names = tuple(name for name in node.input[1:] if name)
    elif node.op_type == "Add":
        shift = _vector(graph, node)
        product = next((graph.producer[n] for n in graph.activations(node) if n in graph.producer), None)
        if product is None or product.op_type != "Mul" or graph.only_reader(product.output[0]) is None:
            return ()
        scale = _vector(graph, product)
        names = (scale, shift) if scale and shift else ()
    else:
        return ()
    own = all(n in graph.constants and graph.constants[n].ndim == 1 and _single(graph, n) for n in names)
    return names if own else ()


def _vector(graph: Graph, node: onnx.NodeProto) -> str:
    vectors = [n for n in node.input if n in graph.constants and graph.constants[n].ndim == 1]
    return vectors[0] if len(vectors) == 1 and graph.constants[vectors[0]].size > 1 else ""


def _single(graph: Graph, name: str) -> bool:
    return len(graph.readers[name]) == 1


def _readers_weights(graph: Graph, tensor: str) -> tuple[str, ...]:
    """The matrices of all readers; none where one of them is anything else."""
    readers = graph.readers.get(tensor, [])
    weights = tuple(reader.input[1] for reader in readers if len(reader.input) > 1)
    plain = all(
        reader.op_type == "MatMul"
        and reader.input[0] == tensor
        and reader.input[1] in graph.constants
        and graph.constants[reader.input[1]].ndim == 2
        and _single(graph, reader.input[1])
        for reader in readers
    )
    return weights if plain and readers and tensor not in graph.outputs else ()


def _channel_maxima(model: onnx.ModelProto, tensors: list[str], inputs: Inputs) -> dict[str, Floats]:
    largest: dict[str, Floats] = {}
    for values in run_batches(model, tensors, inputs):
        for name, array in values.items():
            found = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0)
            largest[name] = np.maximum(largest[name], found) if name in largest else found
    return largest
