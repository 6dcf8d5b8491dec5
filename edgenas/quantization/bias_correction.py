"""Biases that make up for the mean error that rounding leaves in each layer's output.

Each integer layer gets, beside its float self, a branch that reads the same float input through
Q/DQ and multiplies it by the rounded weights; the mean difference per channel goes into the bias.
All layers are measured in one pass, and padding and saturation are in the measurement.

Source: M. Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction,
ICCV 2019, section 4.2 (the empirical form), measured layer by layer on float inputs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edgenas.progress import track
from edgenas.quantization.emitter import Plan
from edgenas.quantization.graph import Graph, copy_model, set_constant
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.parameters import Parameters, to_floats
from edgenas.quantization.placement import WEIGHTED
from edgenas.quantization.reference_run import run_batches
from edgenas.quantization.statistics import ChannelMeans

SAMPLES = 128
Floats = npt.NDArray[np.float32]


def corrected_biases(graph: Graph, plan: Plan, inputs: Inputs) -> dict[str, Floats]:
    """Node name -> bias, for every integer Conv and Gemm; at most ``SAMPLES`` samples are run."""
    layers = [
        node for node in graph.nodes if node.name in plan.weights and node.op_type in WEIGHTED - {"MatMul"}
    ]
    if not layers:
        return {}
    model = copy_model(graph.model)
    outputs = {node.name: _add_branch(model, node, plan) for node in layers}
    few = inputs.subset(np.arange(min(SAMPLES, len(inputs))))
    means: dict[str, ChannelMeans] = {}
    with track("Correcting biases", total=len(few)) as task:
        for values in run_batches(model, list(outputs.values()), few):
            for name, output in outputs.items():
                error = values[output].astype(np.float64)
                means.setdefault(name, ChannelMeans(np.zeros(error.shape[1]))).add(error.sum(0), len(error))
            task.advance(len(error))
    return {name: _corrected(plan.biases.get(name), mean.mean) for name, mean in means.items()}


def _corrected(bias: Floats | None, error: npt.NDArray[np.float64]) -> Floats:
    start = np.zeros(error.shape) if bias is None else bias.astype(np.float64)
    return (start + error).astype(np.float32)


def _add_branch(model: onnx.ModelProto, node: onnx.NodeProto, plan: Plan) -> str:
    """Adds the quantized twin of ``node``; returns the per-sample, per-channel mean of float minus twin."""
    name = f"{node.name}_twin"
    source = _through_integers(model, node.input[0], plan.activations[node.input[0]], name)
    integers, parameters = plan.weights[node.name]
    set_constant(model, f"{name}_weight", to_floats(integers, parameters))
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.name, twin.input[0], twin.input[1], twin.output[0] = name, source, f"{name}_weight", f"{name}_output"
    difference = helper.make_node("Sub", [node.output[0], twin.output[0]], [f"{name}_error"])
    model.graph.node.extend([twin, difference])
    if node.op_type == "Gemm":
        return f"{name}_error"
    axes = list(range(2, plan.weights[node.name][0].ndim))
    opset = next(o.version for o in model.opset_import if o.domain in {"", "ai.onnx"})
    if opset >= 18:
        set_constant(model, f"{name}_axes", np.array(axes, np.int64))
        mean = helper.make_node("ReduceMean", [f"{name}_error", f"{name}_axes"], [f"{name}_mean"], keepdims=0)
    else:
        mean = helper.make_node("ReduceMean", [f"{name}_error"], [f"{name}_mean"], axes=axes, keepdims=0)
    model.graph.node.append(mean)
    return f"{name}_mean"


def _through_integers(model: onnx.ModelProto, tensor: str, parameters: Parameters, name: str) -> str:
    set_constant(model, f"{name}_scale", parameters.scale)
    set_constant(model, f"{name}_zero_point", parameters.zero_point)
    inner = [f"{name}_scale", f"{name}_zero_point"]
    model.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", [tensor, *inner], [f"{name}_integers"]),
            helper.make_node("DequantizeLinear", [f"{name}_integers", *inner], [f"{name}_input"]),
        ]
    )
    return f"{name}_input"
