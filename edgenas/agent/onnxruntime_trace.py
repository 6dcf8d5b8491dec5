"""Kernels from ONNX Runtime's profile, joined with the graph that it optimized."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple

from .failures import AgentError
from .latencies import mean_of_fastest_half
from .layers import LayerAttribution
from .onnx_wire import Graph, Node

_NODE_SUFFIX = "_kernel_time"
# Durations are cut to whole microseconds, which takes off half of one on average.
_CUT_US = 0.5


class ProfiledRun(NamedTuple):
    """One run of the model: its whole duration and its node events in order of execution."""

    duration_us: float
    events: List[Dict[str, Any]]


def runs_of(events: List[Dict[str, Any]]) -> List[ProfiledRun]:
    """Splits a profile into its runs; events of nodes lie within the ``model_run`` they belong to."""
    whole = [event for event in events if event.get("cat") == "Session" and event["name"] == "model_run"]
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_NODE_SUFFIX)]
    whole.sort(key=_start)
    nodes.sort(key=_start)
    runs, position = [], 0
    for event in whole:
        end, inside = event["ts"] + event["dur"], []
        while position < len(nodes) and nodes[position]["ts"] <= end:
            inside.append(nodes[position])
            position += 1
        runs.append(ProfiledRun(float(event["dur"]), inside))
    if not runs:
        raise AgentError("runtime", "ONNX Runtime's profile holds no run of the model")
    return runs


def traced_kernels(runs: List[ProfiledRun], graph: Graph) -> List[Dict[str, Any]]:
    """The ``TracedKernel`` records of the nodes of the optimized main graph, in order of execution.

    Nodes of the bodies of loops and conditions are left out: the node that holds them has their time.
    """
    join = _GraphJoin(graph)
    matched = [join.matched(run.events) for run in runs]
    attribution, kernels = LayerAttribution(), []
    for identity, event in matched[-1].items():
        durations = [run[identity]["dur"] + _CUT_US for run in matched if identity in run]
        kernels.append(_kernel(event, join.nodes[identity], graph, attribution, durations))
    return kernels


class _GraphJoin:
    """Finds the node of the optimized graph that an event of the profile is about.

    The runtime calls a node that has no name by its type and an index; such nodes are taken in order.
    """

    def __init__(self, graph: Graph) -> None:
        self.nodes: Dict[Tuple[str, int], Node] = {}
        self._named = set()
        for node in graph.nodes:
            self._add(node.name or "\0" + node.op_type, node)
            self._named.add(node.name)

    def matched(self, events: List[Dict[str, Any]]) -> Dict[Tuple[str, int], Dict[str, Any]]:
        """The events of one run by node."""
        seen: Dict[str, int] = {}
        found: Dict[Tuple[str, int], Dict[str, Any]] = {}
        for event in events:
            name = event["name"][: -len(_NODE_SUFFIX)]
            if name not in self._named:
                name = "\0" + event["args"]["op_name"]
            identity = name, seen.get(name, 0)
            seen[name] = identity[1] + 1
            if identity in self.nodes:
                found[identity] = event
        return found

    def _add(self, name: str, node: Node) -> None:
        occurrence = 0
        while (name, occurrence) in self.nodes:
            occurrence += 1
        self.nodes[name, occurrence] = node


def _kernel(
    event: Dict[str, Any], node: Node, graph: Graph, attribution: LayerAttribution, durations: List[float]
) -> Dict[str, Any]:
    arguments = event["args"]
    name = event["name"][: -len(_NODE_SUFFIX)]
    inputs = [_tensor(entry) for entry in arguments.get("input_type_shape", [])]
    _restore_packed_weights(inputs, node, graph)
    return {
        "name": name,
        "layer": attribution.layer(name, node.inputs, node.outputs),
        "kind": arguments["op_name"],
        "domain": node.domain,
        "attributes": _with_requantized(node.attributes, inputs, node, graph),
        "inputs": inputs,
        "outputs": [_tensor(entry) for entry in arguments.get("output_type_shape", [])],
        "latency_ms": mean_of_fastest_half(durations) / 1e3,
    }


def _tensor(entry: Dict[str, List[int]]) -> Dict[str, Any]:
    dtype, shape = next(iter(entry.items()), ("unknown", []))  # a sequence has neither
    return {"dtype": dtype, "shape": shape}


def _restore_packed_weights(inputs: List[Dict[str, Any]], node: Node, graph: Graph) -> None:
    """Gives weights their type and shape back: the profile shows one that was packed as a scalar."""
    present = [name for name in node.inputs if name]
    for position, name in enumerate(present[: len(inputs)]):
        if not inputs[position]["shape"] and name in graph.initializers:
            weight = graph.initializers[name]
            inputs[position] = {"dtype": weight.dtype, "shape": weight.shape}


def _with_requantized(
    attributes: Dict[str, Any], inputs: List[Dict[str, Any]], node: Node, graph: Graph
) -> Dict[str, Any]:
    """The attributes of a node, and of a concatenation of integers the share of what it looks up.

    Integers whose scale and zero point are those of the output are copied, all others replaced one by one.
    """
    if node.op_type != "QLinearConcat" or len(inputs) != len(node.inputs):
        return attributes
    numbers = [
        graph.initializers[name].content if name in graph.initializers else b"" for name in node.inputs
    ]
    sizes = {position: _elements(inputs[position]["shape"]) for position in range(2, len(inputs), 3)}
    changed = sum(
        size for position, size in sizes.items() if numbers[position + 1 : position + 3] != numbers[:2]
    )
    return {**attributes, "requantized": round(changed / max(sum(sizes.values()), 1), 2)}


def _elements(shape: List[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _start(event: Dict[str, Any]) -> float:
    return float(event["ts"])
