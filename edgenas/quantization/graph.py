"""An ONNX graph with its wiring at hand: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
HEAVY_BYTES = 1024  # smaller tensors are shapes and axes, whose values matter to shapes


class Graph:
    """The wiring of one model; made anew after the nodes have changed.

    Attributes:
        producer: tensor name -> node that makes it.
        readers: tensor name -> nodes that read it, in graph order.
        constants: initializer name -> array.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.producer = {output: node for node in self.nodes for output in node.output if output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    self.readers[name].append(node)
        self.constants: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.outputs = {value.name for value in model.graph.output}

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of ``node`` that are computed, not constant, in order."""
        return [name for name in node.input if name and name not in self.constants]

    def constant(self, node: onnx.NodeProto, position: int) -> Array | None:
        """The constant at an input's position; None where there is none."""
        return self.constants.get(node.input[position]) if len(node.input) > position else None

    def only_reader(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads ``tensor``; None where several do or it is an output of the model."""
        readers = self.readers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def fresh(self, wanted: str) -> str:
        """``wanted``, or it with a number where a tensor has that name."""
        taken = set(self.producer) | set(self.constants) | {value.name for value in self.model.graph.input}
        name, number = wanted, 1
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        return name


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute, or ``default``."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def replace_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Sets the nodes of the model and drops initializers that nothing reads any more."""
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    drop_unread_constants(model)


def drop_unread_constants(model: onnx.ModelProto) -> None:
    """Removes initializers that no node reads and that are not outputs."""
    read = {name for node in model.graph.node for name in node.input}
    read |= {name for node in model.graph.node for name in _captured(node)}
    read |= {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    if len(kept) < len(model.graph.initializer):
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)


def set_constant(model: onnx.ModelProto, name: str, array: Array) -> None:
    """Replaces the initializer ``name``, or adds it."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
    for existing in model.graph.initializer:
        if existing.name == name:
            existing.CopyFrom(tensor)
            return
    model.graph.initializer.append(tensor)


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that can be changed.

    It is made tensor by tensor: protobuf copies a message by writing it, and writes 2 GB at most.
    """
    copied = _without_weights(model)
    copied.graph.initializer.extend(model.graph.initializer)
    return copied


def light_copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights have names, types and shapes alone: enough to infer shapes from."""
    copied = _without_weights(model)
    for tensor in model.graph.initializer:
        if tensor_bytes(tensor) < HEAVY_BYTES:
            copied.graph.initializer.append(tensor)
        else:
            copied.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return copied


def is_light(tensor: onnx.TensorProto) -> bool:
    """Whether ``light_copy`` left the values of this tensor behind."""
    return tensor_bytes(tensor) >= HEAVY_BYTES and not tensor.HasField("raw_data")


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """The bytes of a tensor's values."""
    return int(prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _set_field(copied, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _set_field(copied.graph, field.name, value)
    return copied


def _set_field(message: Any, name: str, value: Any) -> None:
    if hasattr(value, "extend"):
        getattr(message, name).extend(value)
    elif hasattr(value, "CopyFrom"):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


def name_nodes(model: onnx.ModelProto) -> None:
    """Gives every node a name of its own: schemes and measurements speak of nodes by name."""
    taken: set[str] = set()
    for position, node in enumerate(model.graph.node):
        wanted = node.name or f"{node.op_type}_{position}"
        name, number = wanted, 1
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        node.name = name
        taken.add(name)


def _captured(node: onnx.NodeProto) -> Iterable[str]:
    for entry in node.attribute:
        for inner in [entry.g] if entry.HasField("g") else entry.graphs:
            for inside in inner.node:
                yield from inside.input
                yield from _captured(inside)
