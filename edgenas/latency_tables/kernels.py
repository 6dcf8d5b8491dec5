"""What a kernel is: the canonical key that every runtime's kernels are stored and priced under.

A kernel is what the runtime executes after its own fusion. Two kernels with equal keys cost the
same on one device, whatever network they stand in: names, weights and counters are not part of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from edgenas.records import Record, TensorType, TracedKernel

# What changes nothing in the work of an execution: names, hints and counters that runtimes attach to a node,
# constants of a formula, and what the shapes of the tensors tell already.
_WITHOUT_EFFECT = frozenset(
    {
        "auto_pad", "execOrder", "execTimeMcs", "execution_order", "originalLayersNames", "rawOutputs",
        "seed", "saturate", "activation_params", "ceil_mode", "epsilon", "momentum", "output_padding",
        "spatial", "storage_order", "training_mode",
    }
)  # fmt: skip
_FLOAT_DIGITS = 6
_PADS = ("pads", "pads_begin", "pads_end")
_BYTES = {
    "bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2, "double": 8,
    "int64": 8, "uint64": 8,
}  # fmt: skip
_FLOATING = frozenset({"float", "float16", "bfloat16", "double"})

# What ONNX Runtime and OpenVINO call a convolution after their fusion.
_ONNX_CONVOLUTIONS = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "NhwcConv", "QLinearConv", "ConvInteger", "ConvTranspose"}
)
_CONVOLUTIONS = _ONNX_CONVOLUTIONS | {
    "Convolution", "GroupConvolution", "BinaryConvolution", "Deconvolution", "GroupDeconvolution",
}  # fmt: skip
_ONNX_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "NhwcMaxPool", "QLinearAveragePool"})
# Their axis counts from the front or, where it is negative, from the back.
_ALONG_AN_AXIS = frozenset(
    {
        "Concat", "Hardmax", "LayerNormalization", "LogSoftmax", "QLinearConcat", "QLinearSoftmax", "Softmax",
        "Split",
    }
)  # fmt: skip
_RESIZES = frozenset({"Resize", "Upsample", "Interpolate"})
_TRANSPOSED = frozenset({"ConvTranspose", "Deconvolution", "GroupDeconvolution"})
_MATRIX_PRODUCTS = frozenset(
    {
        "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "QGemm", "QLinearMatMul", "MatMulInteger",
        "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "FullyConnected",
    }
)  # fmt: skip

# What OpenVINO lists among the operations of a kernel and what is no work of its own: the kernel itself, what
# was folded into its weights and bias, and the steps between integers. A sum has an input to show for it.
_FOLDED_IN = frozenset(
    {
        "Add", "BatchNormInference", "Convert", "Convolution", "ConvolutionBackpropData", "GroupConvolution",
        "GroupConvolutionBackpropData", "MatMul", "Subtract",
    }
)  # fmt: skip

_DEFAULTS: dict[str, dict[str, Any]] = {
    **{key: {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} for key in ("Gemm", "FusedGemm")},
    "LayerNormalization": {"axis": -1},
}


class KernelSpec(Record):
    """A kernel without its name: what its latency depends on.

    ``attributes`` are canonical where the spec is: sorted, without hints, floats to six digits, defaults
    written out. ``layout`` is the operator domain or primitive by which the runtime tells its memory
    layouts apart.
    """

    kind: str
    layout: str
    attributes: dict[str, Any]
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]

    def canonical(self) -> str:
        """The spec as one line of JSON, equal for equal kernels."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def key(self) -> str:
        """128 bits of hash over ``canonical()``, in hexadecimal."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:32]

    def label(self) -> str:
        """One short line for people: kind, subtype and shapes."""
        shapes = " ".join("x".join(map(str, tensor.shape)) or "scalar" for tensor in self.inputs[:2])
        out = "x".join(map(str, self.outputs[0].shape)) if self.outputs else "?"
        return f"{self.kind}({shapes} -> {out})"


def spec_of(kernel: TracedKernel) -> KernelSpec:
    """The canonical spec of a kernel that a device traced."""
    return canonical_spec(
        KernelSpec(
            kind=kernel.kind,
            layout=kernel.domain,
            attributes=dict(kernel.attributes),
            inputs=kernel.inputs,
            outputs=kernel.outputs,
        )
    )


def canonical_spec(spec: KernelSpec) -> KernelSpec:
    """The spec under which all kernels that do the same work are stored, however their models say it."""
    said = canonical_attributes(spec.attributes)
    attributes = _without_folded(spec, _left_out(spec.kind, said, spec.inputs) | said)
    if _has_window(spec.kind) and _is_balanced(_pads(attributes)):
        for name in _PADS:
            attributes.pop(name, None)  # the shapes of the tensors tell it
    if spec.kind in _ALONG_AN_AXIS and spec.outputs and attributes.get("axis", 0) < 0:
        attributes["axis"] += len(spec.outputs[0].shape)
    attributes = {name: attributes[name] for name in sorted(attributes)}
    if attributes == spec.attributes:
        return spec
    return msgspec.structs.replace(spec, attributes=attributes)


def _without_folded(spec: KernelSpec, attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes that list no more than what a convolution or matrix product does besides."""
    if "fused" not in attributes or not (is_convolution(spec) or is_matrix_product(spec)):
        return attributes
    others = {name: value for name, value in attributes.items() if name != "fused"}
    fused = [name for name in attributes["fused"] if name not in _FOLDED_IN]
    return {**others, "fused": fused} if fused else others


def _pads(attributes: Mapping[str, Any]) -> list[int]:
    """Padding before and after every axis, as ONNX or as OpenVINO says it."""
    return [*attributes.get("pads", []), *attributes.get("pads_begin", []), *attributes.get("pads_end", [])]


def canonical_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those that have no effect on the execution."""
    return {
        name: _canonical_value(value)
        for name, value in attributes.items()
        if name not in _WITHOUT_EFFECT and value not in (None, "", [], ())
    }


def _left_out(kind: str, said: Mapping[str, Any], inputs: tuple[TensorType, ...]) -> dict[str, Any]:
    """What attributes are where a model leaves them out, of those whose default was never another one.

    Source: ONNX's Operators.md and Changelog.md.
    """
    if not _has_window(kind):
        return _DEFAULTS.get(kind, {})
    weights = [tensor.shape for tensor in inputs[1:] if len(tensor.shape) > 2]
    convolution = kind in _CONVOLUTIONS
    window = said.get("kernel_shape") or (list(weights[0][2:]) if convolution and weights else [])
    if not window:
        return {}
    ones = [1] * len(window)
    defaults: dict[str, Any] = {"kernel_shape": window, "strides": ones}
    if convolution:
        return {**defaults, "dilations": ones, "group": 1}
    return {**defaults, "dilations": ones} if kind == "MaxPool" else defaults


def _has_window(kind: str) -> bool:
    return kind in _CONVOLUTIONS or kind in _ONNX_POOLS


def _is_balanced(pads: list[int]) -> bool:
    """Whether the padding of every axis is alike on both sides, or by one longer on one of them.

    Work that is all on one side is other work: a 5x5 depthwise convolution saved a quarter.
    """
    half = len(pads) // 2
    return all(abs(front - back) <= 1 for front, back in zip(pads[:half], pads[half:], strict=True))


def _canonical_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return round(value, _FLOAT_DIGITS)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return [_canonical_value(item) for item in value]
    return value


def is_convolution(spec: KernelSpec) -> bool:
    """Whether the kernel is a convolution under any of the runtimes' names."""
    return spec.kind in _CONVOLUTIONS


def is_matrix_product(spec: KernelSpec) -> bool:
    """Whether the kernel is a matrix product or a fully connected layer."""
    return spec.kind in _MATRIX_PRODUCTS


def family_of(spec: KernelSpec) -> str:
    """The family that shares one regressor and one correction: kind, subtype, layout and dtypes."""
    dtypes = "-".join(dict.fromkeys(t.dtype for t in (*spec.inputs[:1], *spec.outputs[:1])))
    return "/".join(filter(None, (spec.kind, _subtype(spec), spec.layout, dtypes)))


def _subtype(spec: KernelSpec) -> str:
    if spec.kind in _RESIZES:
        return str(spec.attributes.get("mode", "nearest"))
    if spec.kind == "Transpose" and spec.inputs:
        return _moved_axes(spec.inputs[0].shape, spec.attributes.get("perm"))
    if not is_convolution(spec):
        return ""
    groups, area = convolution_groups(spec), window_area(spec)
    if spec.kind in _TRANSPOSED:
        return "transposed"
    if groups > 1:
        return "depthwise" if groups >= channels(spec.inputs[0], spec) else "grouped"
    return "pointwise" if area == 1 else "dense"


def _moved_axes(shape: tuple[int, ...], perm: Any) -> str:
    """An order of axes without those of length 1 and with neighbours that stay such as one: ``021``."""
    order = perm if isinstance(perm, list) else list(reversed(range(len(shape))))
    kept = [axis for axis in order if shape[axis] > 1]
    runs = [
        axis for position, axis in enumerate(kept) if position == 0 or not _follows(kept, position, shape)
    ]
    return "".join(str(sorted(runs).index(axis)) for axis in runs)


def _follows(kept: list[int], position: int, shape: tuple[int, ...]) -> bool:
    """Whether nothing but axes of length 1 stands between an axis and the one before it."""
    before, axis = kept[position - 1], kept[position]
    return before < axis and all(shape[between] == 1 for between in range(before + 1, axis))


# Coarse classes of kernels that every runtime has in some form, in floats and in integers.
KERNEL_CLASSES = tuple(
    f"{work}/{numbers}"
    for work in ("pointwise", "dense", "depthwise", "grouped", "transposed", "product", "other")
    for numbers in ("float", "integer")
)


def kernel_class(spec: KernelSpec) -> str:
    """The member of ``KERNEL_CLASSES`` that a kernel is of, whatever the runtime calls it."""
    work = _subtype(spec) or ("product" if is_matrix_product(spec) else "other")
    floating = not spec.inputs or spec.inputs[0].dtype in _FLOATING
    return f"{work}/{'float' if floating else 'integer'}"


def computes_in_integers(spec: KernelSpec) -> bool:
    """Whether the kernel is a convolution or a matrix product of integers."""
    return (is_convolution(spec) or is_matrix_product(spec)) and kernel_class(spec).endswith("/integer")


def convolution_groups(spec: KernelSpec) -> int:
    """Groups of a convolution; 1 where the runtime does not say."""
    groups = spec.attributes.get("group", spec.attributes.get("groups", 1))
    return int(groups) if isinstance(groups, (int, float, str)) and str(groups).isdigit() else 1


def window_area(spec: KernelSpec) -> int:
    """Area of the convolution or pooling window, from its attributes or its weight's shape."""
    shape = spec.attributes.get("kernel_shape") or spec.attributes.get("kernel")
    if isinstance(shape, list) and shape:
        return math.prod(int(side) for side in shape)
    weight = weight_of(spec)
    return math.prod(weight.shape[2:]) if weight is not None and len(weight.shape) > 2 else 1


def weight_of(spec: KernelSpec) -> TensorType | None:
    """The weight tensor among the inputs of a convolution or matrix product, where it is shown."""
    candidates = [tensor for tensor in spec.inputs[1:] if len(tensor.shape) >= 2]
    if not candidates or not (is_convolution(spec) or is_matrix_product(spec)):
        return None
    return candidates[0]


def channels(tensor: TensorType, spec: KernelSpec) -> int:
    """Channels of an activation: the last axis where the kernel says so, else the second."""
    if len(tensor.shape) < 2:
        return tensor.shape[0] if tensor.shape else 1
    return tensor.shape[-1] if _channels_last(spec) else tensor.shape[1]


def sides(tensor: TensorType, spec: KernelSpec) -> tuple[int, int]:
    """Height and width of a feature map; 1 and 1 of everything else."""
    if len(tensor.shape) != 4:
        return 1, 1
    first = 1 if _channels_last(spec) else 2
    return tensor.shape[first], tensor.shape[first + 1]


def _channels_last(spec: KernelSpec) -> bool:
    return bool(spec.attributes.get("channels_last")) or "nhwc" in spec.layout.lower() or "Nhwc" in spec.kind


def elements(tensor: TensorType) -> int:
    """Number of elements of a tensor; 1 for a scalar."""
    return math.prod(tensor.shape)


def bytes_of(tensor: TensorType) -> int:
    """Memory of a tensor."""
    return elements(tensor) * _BYTES.get(tensor.dtype, 4)


def footprint_bytes(spec: KernelSpec) -> int:
    """Memory that a kernel alone brings into the caches: its weights and what it writes."""
    weights = spec.inputs[1:] if is_convolution(spec) or is_matrix_product(spec) else ()
    return sum(map(bytes_of, (*weights, *spec.outputs)))


def macs_of(spec: KernelSpec) -> float:
    """Multiply-accumulates of a convolution or matrix product; 0 for everything else."""
    if not spec.outputs or not spec.inputs:
        return 0.0
    output = elements(spec.outputs[0])
    if is_convolution(spec):
        per_group = channels(spec.inputs[0], spec) / convolution_groups(spec)
        outputs = output if spec.kind not in _TRANSPOSED else elements(spec.inputs[0])
        width = per_group if spec.kind not in _TRANSPOSED else channels(spec.outputs[0], spec)
        return float(outputs * max(width, 1.0) * window_area(spec))
    if is_matrix_product(spec):
        return float(output * (spec.inputs[0].shape[-1] if spec.inputs[0].shape else 1))
    return 0.0
