"""Which kernels of a traced network belong to which of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from edgenas.latency_tables.kernels import KernelSpec
from edgenas.latency_tables.layers import INPUT, LayerDescription, part_of
from edgenas.latency_tables.observations import Observations
from edgenas.latency_tables.rows import KernelSample, NetworkRow
from edgenas.latency_tables.table import LatencyTable
from edgenas.latency_tables.templates import LayerTemplates, PartKernel


def kernels_by_layer(samples: Sequence[KernelSample], layers: Sequence[str]) -> dict[str, list[KernelSample]]:
    """Kernels of every layer in execution order.

    A kernel without a known layer belongs to the one before it, the first ones to the first layer.
    """
    found: dict[str, list[KernelSample]] = {layer: [] for layer in layers}
    current = layers[0]
    for sample in samples:
        current = sample.layer if sample.layer in found else current
        found[current].append(sample)
    return found


def learn_templates(table: LatencyTable, observations: Observations) -> LayerTemplates:
    """Templates from every traced network whose layers are known; held-out ones are not looked at."""
    templates = LayerTemplates()
    for sha, network in sorted(table.networks().items()):
        trace = observations.structures.get(sha)
        if trace is not None and network.layers and network.role != "held-out":
            _learn_network(templates, network, trace.kernels, observations.specs)
    return templates


def _learn_network(
    templates: LayerTemplates,
    network: NetworkRow,
    samples: Sequence[KernelSample],
    specs: Mapping[str, KernelSpec],
) -> None:
    by_layer = kernels_by_layer(samples, [name for name, _ in network.layers])
    for name, described in network.layers:
        layer = msgspec.json.decode(described, type=LayerDescription)
        templates.learn(layer, list(_with_parts(by_layer[name], layer, specs)))


def _with_parts(
    samples: Sequence[KernelSample], layer: LayerDescription, specs: Mapping[str, KernelSpec]
) -> Iterator[PartKernel]:
    """Kernels with the parts they belong to; one without a name of its own to that of the one before."""
    part = INPUT
    for sample in samples:
        part = part_of(sample.name, layer.parts) or part
        yield part, specs[sample.kernel]
