"""Writes a quantized model as plain QDQ: standard operators that every runtime reads.

Runtimes fuse ``DequantizeLinear -> op -> QuantizeLinear`` into an integer kernel. So every tensor
that exists as integers has one QuantizeLinear, every integer node reads through a DequantizeLinear
of its own, weights are int8 and biases int32 behind a DequantizeLinear, and clamps that the
saturation of the integers replaces stay where the runtime expects to find and drop them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgenas.quantization.graph import Array, Graph, copy_model, replace_nodes
from edgenas.quantization.parameters import Parameters, activation_parameters, bias_integers, to_integers
from edgenas.quantization.placement import (
    GATES,
    WEIGHTED,
    Placement,
    activation_inputs,
    gate_line,
    keeps_integer_output,
)
from edgenas.quantization.schemes import QuantizationScheme


@dataclass
class Plan:
    """Everything that decides the numbers of a quantized model.

    Attributes:
        activations: tensor -> parameters, for every quantized tensor.
        weights: node name -> integers (in the layout of the float weight) and their parameters.
        biases: node name -> float bias; absent where a node has none.
    """

    scheme: QuantizationScheme
    placement: Placement
    activations: dict[str, Parameters] = field(default_factory=dict)
    weights: dict[str, tuple[npt.NDArray[np.generic], Parameters]] = field(default_factory=dict)
    biases: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)


def emit(graph: Graph, plan: Plan) -> onnx.ModelProto:
    """The prepared float model of ``graph`` as QDQ; ``graph`` stays as it is."""
    return _Emitter(graph, plan).write()


class _Emitter:
    def __init__(self, graph: Graph, plan: Plan) -> None:
        self._graph = graph
        self._plan = plan
        self._placement = plan.placement
        self._quantized = set(plan.placement.quantized)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._integers: dict[str, str] = {}  # tensor -> its integer value
        self._floats: dict[str, str] = {}  # tensor -> name under which its float value now stands
        self._reads: dict[str, int] = {}

    def write(self) -> onnx.ModelProto:
        for node in self._graph.nodes:
            if node.name in self._placement.integer:
                self._integer_node(node)
            else:
                self._float_node(node)
        return self._model()

    def _model(self) -> onnx.ModelProto:
        model = copy_model(self._graph.model)
        for name, tensor in self._constants.items():
            assert name not in self._graph.constants, f"'{name}' exists already"
            model.graph.initializer.append(tensor)
        replace_nodes(model, self._nodes)
        return model

    def _float_node(self, node: onnx.NodeProto) -> None:
        inputs = [self._float_value(name) if name else "" for name in node.input]
        self._copy(node, inputs, list(node.output))

    def _integer_node(self, node: onnx.NodeProto) -> None:
        if any(clamp.name == node.name for clamp in self._placement.clamps.values()):
            self._copy(node, [self._floats.get(node.input[0], node.input[0]), *node.input[1:]], None)
            self._quantize_outputs(node)
            return
        if node.op_type in GATES:
            self._gate(node)
            return
        reading = set(activation_inputs(node))
        inputs = [self._dequantized(name) if name in reading else name for name in node.input]
        if node.op_type in WEIGHTED:
            inputs = [inputs[0], *self._weights(node)]
        self._copy(node, inputs, None)
        clamped = node.output[0] in self._placement.clamps
        if not clamped and keeps_integer_output(self._graph, node, self._placement):
            self._quantize_outputs(node)

    def _copy(self, node: onnx.NodeProto, inputs: list[str], outputs: list[str] | None) -> None:
        """Writes ``node`` with other inputs; an output of the model that becomes integer is renamed."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:]
        copied.input.extend(inputs)
        if outputs is None:
            for position, name in enumerate(node.output):
                if name in self._graph.outputs and name in self._quantized:
                    copied.output[position] = self._floats[name] = f"{name}_unquantized"
        self._nodes.append(copied)

    def _quantize_outputs(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            if name in self._quantized:
                self._quantize(name, self._floats.get(name, name))
                self._finish_output(name)

    def _finish_output(self, tensor: str) -> None:
        """Gives an output of the model its float value under its own name."""
        if tensor in self._graph.outputs:
            self._add("DequantizeLinear", [self._integers[tensor], *self._names(tensor)], tensor, tensor)

    def _quantize(self, tensor: str, value: str) -> None:
        output = f"{tensor}_quantized"
        scale, zero_point = self._names(tensor)
        self._add("QuantizeLinear", [value, scale, zero_point], output, f"{tensor}_quantize")
        self._integers[tensor] = output

    def _dequantized(self, tensor: str) -> str:
        """The float value that an integer node reads: behind a DequantizeLinear of its own."""
        if tensor not in self._integers:
            self._make_integers(tensor)
        number = self._reads[tensor] = self._reads.get(tensor, -1) + 1
        output = f"{tensor}_dequantized" + (f"_{number}" if number else "")
        scale, zero_point = self._names(tensor)
        self._add("DequantizeLinear", [self._integers[tensor], scale, zero_point], output, output)
        return output

    def _make_integers(self, tensor: str) -> None:
        if tensor in self._graph.constants:
            parameters = self._plan.activations[tensor]
            name = f"{tensor}_quantized"
            self._constant(name, to_integers(self._graph.constants[tensor], parameters))
            self._integers[tensor] = name
        else:
            self._quantize(tensor, tensor)

    def _float_value(self, tensor: str) -> str:
        """Where a float node reads ``tensor``: through its integers where an integer kernel made it."""
        producer = self._graph.producer.get(tensor)
        integer = producer is not None and producer.name in self._placement.integer
        if not integer or tensor not in self._quantized or tensor in self._graph.outputs:
            return tensor
        name = f"{tensor}_float"
        if self._floats.get(tensor) != name:
            scale, zero_point = self._names(tensor)
            self._add("DequantizeLinear", [self._integers[tensor], scale, zero_point], name, name)
            self._floats[tensor] = name
        return name

    def _gate(self, node: onnx.NodeProto) -> None:
        """``clip(slope * x + offset, 0, 1)``, and its product with x for HardSwish, on integers alone.

        An addition whose integers saturate at 0 and ``1 / slope`` is the clipped line but for the
        factor ``slope``, which costs nothing: the integers are read back with another scale.
        """
        output = node.output[0]
        slope, offset = gate_line(node)
        wide = activation_parameters(0.0, 1.0 / slope, self._plan.scheme)
        level = np.array(wide.limits[1], wide.zero_point.dtype)
        shift = Parameters(np.array(offset / slope / 255.0, np.float32), wide.zero_point)
        addend = self._stored(f"{output}_offset", level, shift)
        total = f"{output}_sum"
        self._add("Add", [self._dequantized(node.input[0]), addend], total, f"{node.name}_sum")
        self._constant(f"{output}_sum_scale", wide.scale)
        self._constant(f"{output}_sum_zero_point", wide.zero_point)
        inputs = [total, f"{output}_sum_scale", f"{output}_sum_zero_point"]
        if node.op_type == "HardSigmoid":
            self._add("QuantizeLinear", inputs, f"{output}_quantized", f"{output}_quantize")
            self._integers[output] = f"{output}_quantized"
            self._finish_output(output)
            return
        self._add("QuantizeLinear", inputs, f"{output}_gate_quantized", f"{output}_gate_quantize")
        self._constant(f"{output}_gate_scale", np.array(wide.scale * np.float32(slope), np.float32))
        inputs = [f"{output}_gate_quantized", f"{output}_gate_scale", f"{output}_sum_zero_point"]
        self._add("DequantizeLinear", inputs, f"{output}_gate", f"{output}_gate_dequantize")
        product = onnx.NodeProto(op_type="Mul", name=node.name, output=[output])
        self._copy(product, [self._dequantized(node.input[0]), f"{output}_gate"], None)
        self._quantize_outputs(product)

    def _weights(self, node: onnx.NodeProto) -> list[str]:
        integers, parameters = self._plan.weights[node.name]
        weight = self._stored(f"{node.name}_weight", integers, parameters)
        bias = self._plan.biases.get(node.name)
        if bias is None:
            return [weight]
        source = self._plan.activations[self._placement.scale_owner(node.input[0])]
        rounded, scale = bias_integers(bias, float(source.scale), parameters)
        axis = None if parameters.axis is None else 0
        zero = np.zeros(scale.shape, np.int32)
        return [weight, self._stored(f"{node.name}_bias", rounded, Parameters(scale, zero, axis))]

    def _stored(self, name: str, integers: npt.NDArray[np.generic], parameters: Parameters) -> str:
        self._constant(f"{name}_quantized", integers)
        self._constant(f"{name}_scale", parameters.scale)
        self._constant(f"{name}_zero_point", parameters.zero_point)
        inputs = [f"{name}_{part}" for part in ("quantized", "scale", "zero_point")]
        axis = {} if parameters.axis is None else {"axis": parameters.axis}
        self._add("DequantizeLinear", inputs, f"{name}_dequantized", f"{name}_dequantize", **axis)
        return f"{name}_dequantized"

    def _names(self, tensor: str) -> tuple[str, str]:
        """The initializers that hold a tensor's scale and zero point."""
        owner = self._placement.scale_owner(tensor)
        if f"{owner}_scale" not in self._constants:
            parameters = self._plan.activations[owner]
            self._constant(f"{owner}_scale", parameters.scale)
            self._constant(f"{owner}_zero_point", parameters.zero_point)
        return f"{owner}_scale", f"{owner}_zero_point"

    def _constant(self, name: str, array: Array | np.float32) -> None:
        self._constants[name] = numpy_helper.from_array(np.asarray(array), name)

    def _add(self, op: str, inputs: list[str], output: str, name: str, **attributes: int) -> None:
        self._nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
