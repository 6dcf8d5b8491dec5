"""Writes the nodes of an ONNX graph, float or QDQ, one layer's part at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgenas.search_spaces.layer import output_wire, parts_of
from edgenas.search_spaces.layers import AnyLayer
from edgenas.search_spaces.onnx_weights import WeightSource
from edgenas.search_spaces.parts import (
    INPUT,
    LAYER_NORM_EPSILON,
    Activate,
    Activation,
    Add,
    AnyPart,
    Attention,
    AveragePool,
    Conv,
    Embed,
    GlobalPool,
    LayerNorm,
    Linear,
    Scale,
    Zero,
    padding,
)
from edgenas.search_spaces.qdq import ACTIVATION_RANGES, SIGNED, Int8Scheme, Parameters, Range


@dataclass(frozen=True)
class Quantized:
    """An integer tensor: its value's name, its parameters and their initializers' names."""

    value: str
    parameters: Parameters
    scale: str
    zero_point: str


@dataclass
class Tensor:
    """A wire between parts: its float value, its integer value, or both once both were asked for."""

    values: Range
    value: str | None = None
    quantized: Quantized | None = None


class GraphWriter:
    """Collects nodes and initializers.

    Every node is named ``layer/part`` with a suffix, its output the same with ``_out``, because
    runtimes name fused kernels after one or the other: a measured kernel can be given to its layer.
    Int8 layers become QDQ: each tensor one QuantizeLinear, each reading layer one DequantizeLinear,
    weights int8 and biases int32 behind a DequantizeLinear.
    """

    def __init__(self, weights: WeightSource, scheme: Int8Scheme | None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._weights = weights
        self._scheme = scheme

    def layer(self, layer: AnyLayer, source: Tensor) -> Tensor:
        """Writes all parts of ``layer``, which reads ``source``; returns its output."""
        return _LayerWriter(self, layer, source).write()

    def quantizes(self, layer: AnyLayer) -> bool:
        """Whether ``layer`` is written as QDQ."""
        return self._scheme is not None and layer.precision == "int8"

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Adds one node; returns the name of its output."""
        output = f"{name}_out"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> str:
        """Adds one initializer; returns its name."""
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, key: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """The float weights of ``key``."""
        return self._weights.weight(key, shape)

    def quantize(self, value: str, name: str, values: Range) -> Quantized:
        """Adds a QuantizeLinear named ``name_quantize`` for a tensor that holds ``values``."""
        parameters = self.scheme.activation(values)
        scale, zero_point = self._parameters(name, parameters)
        output = self.node("QuantizeLinear", [value, scale, zero_point], f"{name}_quantize")
        return Quantized(output, parameters, scale, zero_point)

    def requantize(self, value: str, name: str, like: Quantized) -> Quantized:
        """Adds a QuantizeLinear with the parameters of ``like``, for a tensor of the same values."""
        output = self.node("QuantizeLinear", [value, like.scale, like.zero_point], f"{name}_quantize")
        return Quantized(output, like.parameters, like.scale, like.zero_point)

    def dequantize(self, quantized: Quantized, name: str) -> str:
        """Adds a DequantizeLinear named ``name_dequantize``; returns the float value."""
        inputs = [quantized.value, quantized.scale, quantized.zero_point]
        return self.node("DequantizeLinear", inputs, f"{name}_dequantize")

    def quantized_constant(self, key: str, array: npt.NDArray[np.generic], parameters: Parameters) -> str:
        """Adds integers behind a DequantizeLinear; returns the float value."""
        name = key.replace(".", "/", 1)
        scale, zero_point = self._parameters(name, parameters)
        integers = self.constant(f"{key}_quantized", array)
        return self.dequantize(Quantized(integers, parameters, scale, zero_point), name)

    @property
    def scheme(self) -> Int8Scheme:
        """The int8 types; only asked for where a layer is quantized."""
        assert self._scheme is not None, "an int8 layer was written without a scheme"
        return self._scheme

    def _parameters(self, name: str, parameters: Parameters) -> tuple[str, str]:
        scale = self.constant(f"{name}_scale", np.array(parameters.scale, np.float32))
        return scale, self.constant(f"{name}_zero_point", parameters.zero_point)


class _LayerWriter:
    """Writes one layer: keeps its wires and reads each in the layer's own precision."""

    def __init__(self, graph: GraphWriter, layer: AnyLayer, source: Tensor) -> None:
        self._graph = graph
        self._layer = layer
        self._int8 = graph.quantizes(layer)
        self._wires: dict[str, Tensor] = {INPUT: source}
        self._dequantized: dict[str, str] = {}

    def write(self) -> Tensor:
        for part in parts_of(self._layer):
            self._wires[part.name] = self._part(part)
        return self._wires[output_wire(self._layer)]

    def _part(self, part: AnyPart) -> Tensor:
        match part:
            case Conv():
                return self._conv(part)
            case Linear():
                return self._linear(part)
            case Add():
                value = self._node("Add", self._read_all(part), part.name)
                return self._activated(value, part.name, part.activation)
            case Activate():
                return self._activate(self._read(part.inputs[0]), part.name, part.activation)
            case Scale():
                value = self._node("Mul", self._read_all(part), part.name)
                return self._output(value, part.name, self._values_of(part))
            case GlobalPool():
                value = self._node("GlobalAveragePool", self._read_all(part), part.name)
                return self._output(value, part.name, self._values_of(part))
            case AveragePool():
                return self._average_pool(part)
            case Zero():
                source = self._read(part.inputs[0])
                value = self._node("Sub", [source, source], part.name)
                return self._output(value, part.name, self._values_of(part))
            case Embed():
                return self._embed(part)
            case LayerNorm():
                return self._layer_norm(part)
            case Attention():
                return self._attention(part)

    def _conv(self, part: Conv) -> Tensor:
        value = self._node(
            "Conv",
            [self._read(part.inputs[0]), *self._weights(part)],
            part.name,
            kernel_shape=[part.kernel] * 2,
            strides=[part.stride] * 2,
            pads=[padding(part)] * 4,
            group=part.groups,
        )
        return self._activated(value, part.name, part.activation)

    def _linear(self, part: Linear) -> Tensor:
        source = self._wires[part.inputs[0]]
        flat = self._node("Flatten", [self._read(part.inputs[0])], f"{part.name}_flatten", axis=1)
        if self._int8:
            # The runtime fuses a quantized Gemm only where its input comes straight from Q/DQ.
            name = self._named(f"{part.name}_flatten")
            assert source.quantized is not None, "an int8 layer reads quantized tensors"
            flat = self._graph.dequantize(self._graph.requantize(flat, name, source.quantized), name)
        value = self._node("Gemm", [flat, *self._weights(part)], part.name, transB=1)
        return self._output(value, part.name, SIGNED)

    def _embed(self, part: Embed) -> Tensor:
        """(N, tokens) numbers to (N, channels, 1, tokens)."""
        weight, position = (
            self._graph.constant(key, self._graph.weight(key, shape)) for key, shape in self._keys(part)
        )
        vectors = self._node("Gather", [weight, self._read(part.inputs[0])], f"{part.name}_gather", axis=0)
        placed = self._node("Add", [vectors, position], f"{part.name}_position")
        rows = self._node("Transpose", [placed], f"{part.name}_transpose", perm=[0, 2, 1])
        shape = self._integers(f"{part.name}_shape", [0, part.out_channels, 1, part.tokens])
        return self._output(self._node("Reshape", [rows, shape], part.name), part.name, SIGNED)

    def _layer_norm(self, part: LayerNorm) -> Tensor:
        """Channels last and back: the operator normalizes the last axes alone."""
        weight, bias = (
            self._graph.constant(key, self._graph.weight(key, shape)) for key, shape in self._keys(part)
        )
        source = self._read(part.inputs[0])
        last = self._node("Transpose", [source], f"{part.name}_last", perm=[0, 2, 3, 1])
        normal = self._node(
            "LayerNormalization",
            [last, weight, bias],
            f"{part.name}_norm",
            axis=-1,
            epsilon=LAYER_NORM_EPSILON,
        )
        return self._output(
            self._node("Transpose", [normal], part.name, perm=[0, 3, 1, 2]), part.name, SIGNED
        )

    def _attention(self, part: Attention) -> Tensor:
        name, size = part.name, part.in_channels // part.heads
        split = self._integers(f"{name}_split", [0, part.heads, size, -1])
        query, key, value = (
            self._node("Reshape", [self._read(wire), split], f"{name}_{wire}") for wire in part.inputs
        )
        rows = self._node("Transpose", [query], f"{name}_rows", perm=[0, 1, 3, 2])
        scores = self._node("MatMul", [rows, key], f"{name}_scores")
        factor = self._floats(f"{name}_factor", size**-0.5)
        weights = self._node(
            "Softmax", [self._node("Mul", [scores, factor], f"{name}_scaled")], f"{name}_weights", axis=-1
        )
        columns = self._node("Transpose", [weights], f"{name}_columns", perm=[0, 1, 3, 2])
        mean = self._node("MatMul", [value, columns], f"{name}_mean")
        joined = self._integers(f"{name}_joined", [0, part.in_channels, 1, -1])
        return self._output(self._node("Reshape", [mean, joined], name), name, SIGNED)

    def _keys(self, part: Embed | LayerNorm) -> list[tuple[str, tuple[int, ...]]]:
        return [
            (f"{self._layer.name}.{part.name}.{kind}", shape) for kind, shape in part.weight_shapes().items()
        ]

    def _integers(self, name: str, values: list[int]) -> str:
        """Constants that are no weights stand in nodes, so that all initializers are weights."""
        return self._node("Constant", [], name, value=numpy_helper.from_array(np.array(values, np.int64)))

    def _floats(self, name: str, value: float) -> str:
        return self._node("Constant", [], name, value=numpy_helper.from_array(np.array(value, np.float32)))

    def _average_pool(self, part: AveragePool) -> Tensor:
        value = self._node(
            "AveragePool",
            self._read_all(part),
            part.name,
            kernel_shape=[part.kernel] * 2,
            strides=[part.stride] * 2,
            pads=[padding(part)] * 4,
        )
        return self._output(value, part.name, self._values_of(part))

    def _activated(self, value: str, name: str, activation: Activation) -> Tensor:
        """The activation of what a convolution or an addition has just computed.

        Only a Relu vanishes into an integer kernel. Before the others the value itself is
        quantized, as calibration would do it.
        """
        if self._int8 and activation in {"hardswish", "hardsigmoid"}:
            linear = f"{name}_linear"
            value = self._read_tensor(self._output(value, linear, SIGNED), linear)
        return self._activate(value, name, activation)

    def _activate(self, value: str, name: str, activation: Activation) -> Tensor:
        match activation:
            case "relu":
                value = self._node("Relu", [value], f"{name}_relu")
            case "hardsigmoid":
                value = self._node("HardSigmoid", [value], f"{name}_hardsigmoid", alpha=1 / 6, beta=0.5)
            case "hardswish":
                # As one op both runtimes fuse it into the convolution. Written as HardSigmoid and
                # Mul, OpenVINO runs a reference kernel between two reorders.
                value = self._node("HardSwish", [value], f"{name}_hardswish")
            case "none":
                pass
        return self._output(value, name, ACTIVATION_RANGES[activation])

    def _weights(self, part: Conv | Linear) -> list[str]:
        shapes = part.weight_shapes()
        keys = {kind: f"{self._layer.name}.{part.name}.{kind}" for kind in shapes}
        arrays = {kind: self._graph.weight(keys[kind], shape) for kind, shape in shapes.items()}
        if not self._int8:
            return [self._graph.constant(keys[kind], array) for kind, array in arrays.items()]
        integers, parameters = self._graph.scheme.weight(arrays["weight"])
        weight = self._graph.quantized_constant(keys["weight"], integers, parameters)
        return [weight, self._bias(keys["bias"], arrays["bias"], part, parameters)]

    def _bias(self, key: str, bias: npt.NDArray[np.float32], part: Conv | Linear, weight: Parameters) -> str:
        """Int32 with the scale of input times weight, which is what integer kernels accumulate in."""
        source = self._wires[part.inputs[0]].quantized
        assert source is not None, "an int8 layer reads quantized tensors"
        scale = source.parameters.scale * weight.scale
        integers = np.rint(bias / np.float32(scale)).astype(np.int32)
        return self._graph.quantized_constant(key, integers, Parameters(scale, np.array(0, np.int32)))

    def _output(self, value: str, name: str, values: Range) -> Tensor:
        if not self._int8:
            return Tensor(values, value=value)
        return Tensor(values, quantized=self._graph.quantize(value, self._named(name), values))

    def _read_all(self, part: AnyPart) -> list[str]:
        return [self._read(wire) for wire in part.inputs]

    def _read(self, wire: str) -> str:
        return self._read_tensor(self._wires[wire], wire)

    def _read_tensor(self, tensor: Tensor, wire: str) -> str:
        """The float value of ``tensor`` as this layer sees it: through Q/DQ where it is int8."""
        if not self._int8 and tensor.value is not None:
            return tensor.value
        if wire not in self._dequantized:
            if tensor.quantized is None:
                assert tensor.value is not None, "a tensor has a float or an integer value"
                tensor.quantized = self._graph.quantize(tensor.value, self._named(wire), tensor.values)
            self._dequantized[wire] = self._graph.dequantize(tensor.quantized, self._named(wire))
        return self._dequantized[wire]

    def _values_of(self, part: AnyPart) -> Range:
        return self._wires[part.inputs[0]].values

    def _node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        return self._graph.node(op, inputs, self._named(name), **attributes)

    def _named(self, name: str) -> str:
        return f"{self._layer.name}/{name}"
