"""A model without its weights: graph and shapes, with weights drawn again from their statistics.

Latency depends on graph, shapes and types, hardly on values; a skeleton is small enough to commit
and gives nothing of the training away.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

KEPT_ELEMENTS = 32
STATISTICS_KEY = "edgenas.statistics"
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def strip_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large initializers hold mean, deviation, least and largest value instead of data.

    Scales and zero points of quantized tensors stay, as do initializers of up to 32 elements.
    """
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    kept = {
        name for node in model.graph.node if node.op_type in _QUANTIZERS for name in node.input[1:] if name
    }
    for tensor in stripped.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size > KEPT_ELEMENTS and tensor.name not in kept and values.dtype.kind in "fiu":
            _forget(tensor, values)
    return stripped


def seeded_model(skeleton: onnx.ModelProto, *, role: str) -> onnx.ModelProto:
    """A runnable copy of a skeleton; the same skeleton gives the same weights every time.

    Args:
        role: written into the metadata, so that two roles of one network are two models.
    """
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    for number, tensor in enumerate(model.graph.initializer):
        statistics = _statistics(tensor)
        if statistics is not None:
            values = _draw(np.random.default_rng(number), tensor, statistics)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.helper.set_model_props(model, {"edgenas.gate": role})
    return model


def structure(model: onnx.ModelProto) -> tuple[int, dict[str, int]]:
    """The number of parameters and how often each operator stands in the graph."""
    parameters = sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in model.graph.initializer)
    return parameters, dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


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
