"""A model without its weights: graph and shapes, with weights drawn again from their statistics.

Latency depends on graph, shapes and types, hardly on values; a skeleton is small enough to commit
and gives nothing of the training away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

KEPT_ELEMENTS = 32
STATISTICS_KEY = "edgenas.statistics"
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def strip_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights hold mean, deviation, least and largest value instead of data.

    Weights are initializers and constants, those of subgraphs too. Scales and zero points of
    quantized tensors stay, as do weights of up to 32 elements; metadata and comments go.
    """
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    stripped.doc_string = stripped.graph.doc_string = ""
    del stripped.metadata_props[:]
    for graph in _graphs(stripped.graph):
        kept = {name for node in graph.node if node.op_type in _QUANTIZERS for name in node.input[1:] if name}
        for node in graph.node:
            node.doc_string = ""
        for name, tensor in _weights(graph):
            values = numpy_helper.to_array(tensor)
            if values.size > KEPT_ELEMENTS and name not in kept and values.dtype.kind in "fiu":
                _forget(tensor, values)
    return stripped


def same_network(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two skeletons differ in their weights' statistics at most."""
    return _anonymous(one) == _anonymous(other)


def seeded_model(skeleton: onnx.ModelProto, *, role: str) -> onnx.ModelProto:
    """A runnable copy of a skeleton; the same skeleton gives the same weights every time.

    Args:
        role: written into the metadata, so that two roles of one network are two models.
    """
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    weights = (weight for graph in _graphs(model.graph) for _, weight in _weights(graph))
    for number, tensor in enumerate(weights):
        statistics = _statistics(tensor)
        if statistics is not None:
            values = _draw(np.random.default_rng(number), tensor, statistics)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.helper.set_model_props(model, {"edgenas.gate": role})
    return model


def structure(model: onnx.ModelProto) -> tuple[int, dict[str, int]]:
    """The number of parameters and how often each operator stands in the model, subgraphs included."""
    graphs = list(_graphs(model.graph))
    weights = [weight for graph in graphs for _, weight in _weights(graph)]
    parameters = sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in weights)
    ops = Counter(node.op_type for graph in graphs for node in graph.node)
    return parameters, dict(sorted(ops.items()))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the subgraphs of its control flow."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _weights(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Initializers, and the tensors of constants, by the name that other nodes call them."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield node.output[0], attribute.t


def _anonymous(skeleton: onnx.ModelProto) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(skeleton)
    for graph in _graphs(copy.graph):
        for _, tensor in _weights(graph):
            name, data_type, dims = tensor.name, tensor.data_type, list(tensor.dims)
            tensor.CopyFrom(onnx.TensorProto(name=name, data_type=data_type, dims=dims))
    return bytes(copy.SerializeToString(deterministic=True))


def _forget(tensor: onnx.TensorProto, values: NDArray[np.generic]) -> None:
    numbers = values.astype(np.float64)
    statistics = [float(f"{v:.4g}") for v in (numbers.mean(), numbers.std(), numbers.min(), numbers.max())]
    empty = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=list(tensor.dims))
    empty.external_data.add(key=STATISTICS_KEY, value=" ".join(map(repr, statistics)))
    tensor.CopyFrom(empty)


def _statistics(tensor: onnx.TensorProto) -> tuple[float, ...] | None:
    for entry in tensor.external_data:
        if entry.key == STATISTICS_KEY:
            return tuple(float(value) for value in entry.value.split())
    return None


def _draw(
    generator: np.random.Generator, tensor: onnx.TensorProto, statistics: tuple[float, ...]
) -> NDArray[np.generic]:
    mean, deviation, least, largest = statistics
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    drawn = np.clip(generator.normal(mean, deviation, tuple(tensor.dims)), least, largest)
    return np.asarray(np.rint(drawn) if dtype.kind in "iu" else drawn).astype(dtype)
