"""Kernels from OpenVINO's performance counters, joined with the model that its plugin executes."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, Tuple

from .latencies import mean_of_fastest_half
from .layers import LayerAttribution

# ONNX's names of OpenVINO's element types, so that both runtimes' tensors read alike.
_DTYPES = {
    "f32": "float", "f64": "double", "f16": "float16", "bf16": "bfloat16", "u8": "uint8", "i8": "int8",
    "u16": "uint16", "i16": "int16", "u32": "uint32", "i32": "int32", "u64": "uint64", "i64": "int64",
    "boolean": "bool",
}  # fmt: skip
# What ONNX calls the attributes of OpenVINO's operations.
_ATTRIBUTES = {
    "strides": "strides", "dilations": "dilations", "pads_begin": "pads_begin", "pads_end": "pads_end",
    "kernel": "kernel_shape", "axis": "axis", "axes": "axes", "mode": "mode", "keep_dims": "keepdims",
    "transpose_a": "transpose_a", "transpose_b": "transpose_b", "rounding_type": "rounding_type",
    "exclude-pad": "exclude_pad", "group": "group",
}  # fmt: skip
_WITH_WEIGHTS = frozenset({"Convolution", "GroupConvolution", "MatMul"})
_CUT_US = 0.5
_WITHOUT_A_KERNEL = frozenset({"Input", "Output", "Const", "Parameter", "Result", "Constant"})


class RunningCounters:
    """Time per run of each node between two moments.

    A counter shows the mean over all runs since the model was compiled, cut to whole microseconds,
    of durations that were cut to whole microseconds themselves; half a microsecond is what each cut
    takes off on average.
    Source: openvino, src/plugins/intel_cpu/src/perf_count.h.
    """

    def __init__(self) -> None:
        self._runs = 0
        self._totals_us: Dict[str, float] = {}

    def start(self, counters: Iterable[Any], runs: int) -> None:
        """Forgets the first ``runs`` runs, which warmed up."""
        self._runs = runs
        self._totals_us = {name: mean_us * runs for name, mean_us in _means(counters)}

    def latencies_us(self, counters: Iterable[Any], runs: int) -> Dict[str, float]:
        """The mean time of each node from ``start`` until run ``runs``."""
        counted = runs - self._runs
        return {
            name: max(_CUT_US, (mean_us * runs - self._totals_us.get(name, 0.0)) / counted + _CUT_US)
            for name, mean_us in _means(counters)
        }


def _means(counters: Iterable[Any]) -> Iterator[Tuple[str, float]]:
    """The means of all nodes that are not folded into constants.

    A node is called NOT_RUN also where it takes less than a microsecond, so the status tells nothing.
    """
    for counter in counters:
        yield counter.node_name, counter.real_time.total_seconds() * 1e6 + _CUT_US


def traced_kernels(runtime: Any, network: Any, measured_us: List[Dict[str, float]]) -> List[Dict[str, Any]]:
    """The ``TracedKernel`` records of what is executed, in order of execution.

    Args:
        runtime: the plugin's own model (``get_runtime_model``).
        network: the model as it was read, whose operations hold the attributes.
        measured_us: one latency of each node by name, for each copy that was compiled.
    """
    operations = {op.get_friendly_name(): op for op in network.get_ordered_ops()}
    attribution, kernels = LayerAttribution(), []
    for op in runtime.get_ordered_ops():
        name, facts = op.get_friendly_name(), _facts(op)
        layer = attribution.layer(_named(name, facts), _sources(op), [name])
        durations_us = [latencies[name] for latencies in measured_us if name in latencies]
        if durations_us and facts.get("layerType") not in _WITHOUT_A_KERNEL:
            kernels.append(_kernel(op, facts, layer, operations, durations_us))
    return kernels


def _kernel(
    op: Any, facts: Dict[str, str], layer: str, operations: Dict[str, Any], durations: List[float]
) -> Dict[str, Any]:
    outputs = [_tensor(port, precision) for port, precision in _with_precisions(op, facts)]
    return {
        "name": op.get_friendly_name(),
        "layer": layer,
        "kind": facts.get("layerType", op.get_type_name()),
        "domain": facts.get("primitiveType", ""),
        "attributes": _attributes(op, facts, operations),
        "inputs": [_tensor(port, port.get_element_type().get_type_name()) for port in op.inputs()],
        "outputs": outputs,
        "latency_ms": mean_of_fastest_half(durations) / 1e3,
    }


def _attributes(op: Any, facts: Dict[str, str], operations: Dict[str, Any]) -> Dict[str, Any]:
    """Layouts, what was fused in, and the attributes of the operation that the kernel is about."""
    fused = [operations[name] for name in _original_names(facts) if name in operations]
    kinds = [op.get_type_name() for op in fused]
    found: Dict[str, Any] = {"layouts": facts.get("outputLayouts", "")}
    if len(kinds) > 1:
        found["fused"] = kinds
    main = next((op for op in fused if op.get_type_name() in _main_kinds(facts)), None)
    if main is not None:
        found.update(_own_attributes(main))
        if _shifted(main):
            found["input_zero_point"] = 1
    elif facts.get("layerType") == "Convolution":
        found.update(_attributes_from_shapes(op))
    return found


def _shifted(op: Any) -> bool:
    """Whether the first input is dequantized from integers whose zero is not 0, which costs kernels time."""
    if op.get_type_name() not in _WITH_WEIGHTS:
        return False
    node = op.input_value(0).get_node()
    while node.get_type_name() in ("Multiply", "Convert"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Subtract":
        return False
    zero_point = node.input_value(1).get_node()
    while zero_point.get_type_name() in ("Convert", "Reshape"):
        zero_point = zero_point.input_value(0).get_node()
    return zero_point.get_type_name() != "Constant" or bool(zero_point.get_data().any())


def _attributes_from_shapes(op: Any) -> Dict[str, Any]:
    """What shapes tell about a convolution whose operation got another name on the way."""
    data, weight = (_shape(port) for port in op.inputs()[:2])
    output = _shape(op.output(0))
    group = weight[0] if len(weight) > len(data) else 1
    strides = [-(-data[axis] // output[axis]) for axis in range(2, len(data))]
    return {"group": group, "kernel_shape": weight[len(weight) - len(data) + 2 :], "strides": strides}


def _main_kinds(facts: Dict[str, str]) -> List[str]:
    kind = facts.get("layerType", "")
    return {
        "Convolution": ["Convolution", "GroupConvolution"],
        "Deconvolution": ["ConvolutionBackpropData", "GroupConvolutionBackpropData"],
        "Pooling": ["MaxPool", "AvgPool"],
        "FullyConnected": ["MatMul"],
        "Reduce": ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"],
    }.get(kind, [kind])


def _own_attributes(op: Any) -> Dict[str, Any]:
    given = op.get_attributes()
    found = {_ATTRIBUTES[name]: _plain(value) for name, value in given.items() if name in _ATTRIBUTES}
    if op.get_type_name().endswith(("Convolution", "BackpropData")):
        grouped = op.get_type_name().startswith("Group")
        weight = _shape(op.input(1))
        found["group"] = weight[0] if grouped else 1
        found["kernel_shape"] = weight[3:] if grouped else weight[2:]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    return [int(item) for item in value]


def _facts(op: Any) -> Dict[str, str]:
    info = op.get_rt_info()
    return {key: _text(info[key]) for key in info}


def _text(value: Any) -> str:
    return str(value.astype(str) if hasattr(value, "astype") else value)


def _original_names(facts: Dict[str, str]) -> List[str]:
    return [name for name in facts.get("originalLayersNames", "").split(",") if name]


def _named(name: str, facts: Dict[str, str]) -> str:
    """The name that tells the layer; a reorder's own name only repeats those of its neighbours."""
    return "" if not _original_names(facts) else name


def _sources(op: Any) -> List[str]:
    return [port.get_source_output().get_node().get_friendly_name() for port in op.inputs()]


def _with_precisions(op: Any, facts: Dict[str, str]) -> List[Any]:
    precisions = facts.get("outputPrecisions", "").split(",")
    ports = op.outputs()
    return [
        (
            port,
            precisions[position] if position < len(precisions) else port.get_element_type().get_type_name(),
        )
        for position, port in enumerate(ports)
    ]


def _tensor(port: Any, precision: str) -> Dict[str, Any]:
    return {"dtype": _DTYPES.get(precision, precision), "shape": _shape(port)}


def _shape(port: Any) -> List[int]:
    shape = port.get_partial_shape()
    return [int(size) for size in shape.to_shape()] if shape.is_static else []
