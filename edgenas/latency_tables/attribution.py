"""Which kernels of a traced network belong to which of its layers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from edgenas.latency_tables.kernels import KernelSpec
from edgenas.latency_tables.layers import INPUT, LayerDescription, part_of
from edgenas.latency_tables.observations import Observations
from edgenas.latency_tables.rows import KernelSample
from edgenas.latency_tables.table import LatencyTable
from edgenas.latency_tables.templates import LayerTemplates, PartKernel


@dataclass(frozen=True)
class LayeredTrace:
    """A trace beside the layers, by name, of the network that was traced."""

    samples: tuple[KernelSample, ...]
    layers: dict[str, LayerDescription]


def learn_templates(table: LatencyTable, observations: Observations) -> LayerTemplates:
    """Templates from every traced network whose layers are known; held-out ones are not looked at."""
    traces = [
        LayeredTrace(
            observations.structures[sha].kernels,
            {name: msgspec.json.decode(text, type=LayerDescription) for name, text in network.layers},
        )
        for sha, network in sorted(table.networks().items())
        if sha in observations.structures and network.layers and network.role != "held-out"
    ]
    kinds = {key: spec.kind for key, spec in observations.specs.items()}
    to_producer = _kinds_of_producers(traces, kinds)
    templates = LayerTemplates()
    for trace in traces:
        for name, samples in kernels_by_layer(trace, kinds, to_producer).items():
            layer = trace.layers[name]
            templates.learn(layer, list(_with_parts(samples, layer, observations.specs)))
    return templates


def kernels_by_layer(
    trace: LayeredTrace, kinds: Mapping[str, str], to_producer: frozenset[str]
) -> dict[str, list[KernelSample]]:
    """Kernels of every layer in execution order.

    A kernel between two layers that has neither's name (a reorder, a transpose) belongs to the layer
    that it reads from where its kind is one of ``to_producer``, else to the layer that reads it.
    """
    found: dict[str, list[KernelSample]] = {layer: [] for layer in trace.layers}
    waiting: list[KernelSample] = []
    current = next(iter(found))
    for sample in trace.samples:
        name = sample.name.partition("/")[0]
        if name not in found:
            waiting.append(sample)
            continue
        for kernel in waiting:
            found[current if kinds[kernel.kernel] in to_producer else name].append(kernel)
        found[name].append(sample)
        current, waiting = name, []
    found[current] += waiting
    return found


def _kinds_of_producers(traces: Sequence[LayeredTrace], kinds: Mapping[str, str]) -> frozenset[str]:
    """The kinds of nameless kernels that follow from what stands before them, told by the traces.

    Kernels belong where they can be foretold: layers of one context should always become the same
    sequence. A kind is given to the producer where that leaves fewer exceptions.
    """
    nameless = {
        kinds[sample.kernel]
        for trace in traces
        for sample in trace.samples
        if sample.name.partition("/")[0] not in trace.layers
    }
    chosen: frozenset[str] = frozenset()
    least = _exceptions(traces, kinds, chosen)
    for kind in sorted(nameless):
        tried = chosen | {kind}
        count = _exceptions(traces, kinds, tried)
        if count < least:
            chosen, least = tried, count
    return chosen


def _exceptions(traces: Sequence[LayeredTrace], kinds: Mapping[str, str], to_producer: frozenset[str]) -> int:
    """How many layers became another sequence of kinds than most layers of their context."""
    found: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for trace in traces:
        for name, samples in kernels_by_layer(trace, kinds, to_producer).items():
            found[trace.layers[name].context][tuple(kinds[sample.kernel] for sample in samples)] += 1
    return sum(counts.total() - max(counts.values()) for counts in found.values())


def _with_parts(
    samples: Sequence[KernelSample], layer: LayerDescription, specs: Mapping[str, KernelSpec]
) -> Iterator[PartKernel]:
    """Kernels with the parts they belong to; one without a name of its own to that of the one before."""
    part = INPUT
    for sample in samples:
        part = part_of(sample.name, layer.parts) or part
        yield part, specs[sample.kernel]
