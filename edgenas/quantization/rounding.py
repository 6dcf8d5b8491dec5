"""Rounds each weight so that the layer's output, not the weight itself, comes out nearest.

The columns of a weight are rounded one after the other; the error that a column leaves is taken
over by those still to come, as far as the layer's inputs allow (their second moments H tell).

Source: E. Frantar et al., GPTQ, ICLR 2023, algorithm 1 (OBQ with a fixed order and a Cholesky factor).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from edgenas.progress import track
from edgenas.quantization.emitter import Plan
from edgenas.quantization.graph import Graph, attribute
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.parameters import Parameters, to_floats, to_integers
from edgenas.quantization.reference_run import run_batches

SAMPLES = 128
POSITIONS = 64  # of each feature map and sample
DAMPING = 0.01  # of the mean diagonal of H, added to it: what makes the factor stable
LARGEST_COLUMNS = 4608
BLOCK = 64  # columns whose effect on the later ones is applied in one product
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def refined_weights(
    graph: Graph, plan: Plan, inputs: Inputs
) -> dict[str, tuple[npt.NDArray[np.generic], Parameters]]:
    """Node name -> integers and parameters for every integer layer; at most ``SAMPLES`` samples are run."""
    layers = {node.name: node for node in graph.nodes if _refinable(graph, node, plan)}
    if not layers:
        return {}
    # Threads of a linear-algebra library that waits busily make small products slower on a shared machine.
    few, refined = inputs.subset(np.arange(min(SAMPLES, len(inputs)))), {}
    with threadpool_limits(1), track("Rounding", total=len(layers)) as task:
        moments = _second_moments(graph, plan, layers, few)
        for name, node in layers.items():
            weight = graph.constants[node.input[1]]
            refined[name] = _refine(node, weight, plan.weights[name][1], moments.pop(name))
            task.advance()
    return refined


def _refinable(graph: Graph, node: onnx.NodeProto, plan: Plan) -> bool:
    if node.name not in plan.weights:
        return False
    weight = graph.constants[node.input[1]]
    if node.op_type == "Conv":
        return bool(weight.ndim == 4 and weight[0].size <= LARGEST_COLUMNS and _explicit_padding(node))
    return bool(node.op_type == "Gemm" and max(weight.shape) <= LARGEST_COLUMNS)


def _explicit_padding(node: onnx.NodeProto) -> bool:
    return bool(attribute(node, "auto_pad", b"NOTSET") == b"NOTSET")


def _second_moments(
    graph: Graph, plan: Plan, layers: Mapping[str, onnx.NodeProto], inputs: Inputs
) -> dict[str, Doubles]:
    """``H = sum x x^T`` over sampled patches of each layer's quantized input: ``(groups, K, K)``."""
    tensors = list(dict.fromkeys(node.input[0] for node in layers.values()))
    moments: dict[str, Doubles] = {}
    generator = np.random.default_rng(0)
    with track("Collecting second moments", total=len(inputs)) as task:
        for values in run_batches(graph.model, tensors, inputs):
            for name, node in layers.items():
                parameters = plan.activations[node.input[0]]
                patches = _patches(node, values[node.input[0]], graph.constants[node.input[1]], generator)
                seen = to_floats(to_integers(patches, parameters), parameters)
                moment = (seen.transpose(0, 2, 1) @ seen).astype(np.float64)
                moments[name] = moments[name] + moment if name in moments else moment
            task.advance(len(next(iter(values.values()))))
    return moments


def _patches(node: onnx.NodeProto, values: Floats, weight: Floats, generator: np.random.Generator) -> Floats:
    """Inputs of single output positions, ``(groups, positions, K)``, K in the order of a weight's row."""
    if node.op_type == "Gemm":
        return values.reshape(1, len(values), -1)
    groups, kernel = attribute(node, "group", 1), weight.shape[2:]
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    pads = attribute(node, "pads", [0, 0, 0, 0])
    padded = np.pad(values, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    rows, columns = (
        (padded.shape[2 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)
    )
    count = min(POSITIONS, rows * columns)
    chosen = generator.choice(rows * columns, count, replace=False)
    y = (chosen // columns * strides[0])[:, None, None] + (np.arange(kernel[0]) * dilations[0])[None, :, None]
    x = (chosen % columns * strides[1])[:, None, None] + (np.arange(kernel[1]) * dilations[1])[None, None, :]
    taken = padded[:, :, y, x]  # (N, C, positions, kh, kw)
    samples, channels = taken.shape[:2]
    grouped = taken.reshape(samples, groups, channels // groups, count, *kernel)
    ordered = grouped.transpose(1, 0, 3, 2, 4, 5)
    return np.ascontiguousarray(ordered.reshape(groups, samples * count, -1))


def _refine(
    node: onnx.NodeProto, weight: Floats, parameters: Parameters, moment: Doubles
) -> tuple[npt.NDArray[np.generic], Parameters]:
    transposed = node.op_type == "Gemm" and not attribute(node, "transB", 0)
    rows = (weight.T if transposed else weight).reshape(weight.shape[1] if transposed else len(weight), -1)
    scale = np.broadcast_to(parameters.scale.reshape(-1), (len(rows),)).astype(np.float64)
    low, high = _limits(weight, parameters)
    groups, per_group = len(moment), len(rows) // len(moment)
    grouped = rows.astype(np.float64).reshape(groups, per_group, -1)
    steps = _rounded(grouped, scale.reshape(groups, per_group), moment, low, high).reshape(rows.shape)
    steps = steps.T if transposed else steps
    zero = parameters.zero_point.reshape(-1)[0].astype(np.int64)
    return (steps.reshape(weight.shape).astype(np.int64) + zero).astype(
        parameters.zero_point.dtype
    ), parameters


def _limits(weight: Floats, parameters: Parameters) -> tuple[int, int]:
    """The integers in use, so that a reduced range stays reduced."""
    plain = to_integers(weight, parameters).astype(np.int64) - int(parameters.zero_point.reshape(-1)[0])
    largest = int(np.abs(plain).max(initial=1))
    return -largest, largest


def _rounded(weight: Doubles, scale: Doubles, moment: Doubles, low: int, high: int) -> Doubles:
    """Integer steps of ``weight`` ``(G, R, K)`` with scales ``(G, R)`` and moments ``(G, K, K)``."""
    size = weight.shape[2]
    diagonal = np.einsum("gkk->gk", moment)
    damping = DAMPING * diagonal.mean(axis=1) + 1e-12
    damped = moment + damping[:, None, None] * np.eye(size)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left, steps = weight.copy(), np.empty_like(weight)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        block, errors = left[:, :, start:stop].copy(), np.empty_like(left[:, :, start:stop])
        for column in range(stop - start):
            row = factor[:, None, start + column, start + column : stop]
            current = block[:, :, column]
            steps[:, :, start + column] = np.clip(np.rint(current / scale), low, high)
            errors[:, :, column] = (current - steps[:, :, start + column] * scale) / row[:, :, 0]
            block[:, :, column + 1 :] -= errors[:, :, column, None] * row[:, :, 1:]
        left[:, :, stop:] -= errors @ np.ascontiguousarray(factor[:, start:stop, stop:])
    return steps
