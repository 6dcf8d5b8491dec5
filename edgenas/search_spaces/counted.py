"""Size, multiply-accumulates, memory and wiring of a space's candidates as dense arrays.

What a layer weighs depends on its slot's genes alone, so every slot is counted once and a population
is a gather: the twin of a compiled latency table, for what needs no device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from edgenas.search_spaces.layer import parts_of, wire_shapes
from edgenas.search_spaces.layers import AnyLayer
from edgenas.search_spaces.network import PlacedLayer, part_bytes
from edgenas.search_spaces.parts import Shape
from edgenas.search_spaces.space import Genomes, SearchSpace
from edgenas.search_spaces.wiring import ways_through

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerCount:
    """One layer: multiply-accumulates, weights, bytes of weights, bytes alive while its worst op runs.

    The others are of its wiring: the logarithm of how many ways lead through it, and what ``Ways`` knows
    of them. An empty place counts nothing.
    """

    macs: int = 0
    parameters: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    log_ways: float = 0.0
    plain_ways: int = 0
    unchanged_ways: int = 0
    longest_way: int = 0
    shortest_way: int = 0
    mean_way: float = 0.0
    fewest_pools: int = 0


_WIRING = tuple(LayerCount.__dataclass_fields__)[4:]


def count_layer(placed: PlacedLayer) -> LayerCount:
    """Counts a layer where it stands; an int8 layer has one byte a weight and a value."""
    layer = placed.layer
    shapes = wire_shapes(layer, placed.input_shape)
    width = 1 if layer.precision == "int8" else 4
    macs = parameters = weight_bytes = alive = 0
    for part in parts_of(layer):
        macs += part.macs(shapes[part.inputs[0]])
        parameters += sum(math.prod(shape) for shape in part.weight_shapes().values())
        weight_bytes += part_bytes(layer, part)
        values = sum(math.prod(shapes[wire]) for wire in (*part.inputs, part.name))
        alive = max(alive, values * width)
    ways = ways_through(layer)
    return LayerCount(
        macs, parameters, weight_bytes, alive,
        log_ways=math.log1p(ways.count), plain_ways=ways.plain, unchanged_ways=ways.unchanged,
        longest_way=ways.longest, shortest_way=ways.shortest,
        mean_way=ways.weighted / max(ways.count, 1), fewest_pools=ways.pools,
    )  # fmt: skip


class CountedSpace:
    """Counts of a space's candidates; each is a function of genomes (N, genes) -> (N,).

    Args:
        space: it is walked once, at the first question.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._known: dict[tuple[AnyLayer, Shape], LayerCount] = {}

    def macs(self, genomes: Genomes) -> Floats:
        """Multiply-accumulates of one image."""
        return np.asarray(self._of("macs", genomes).sum(axis=1))

    def parameters(self, genomes: Genomes) -> Floats:
        """Weights and biases, batch norm folded."""
        return np.asarray(self._of("parameters", genomes).sum(axis=1))

    def size_mb(self, genomes: Genomes) -> Floats:
        """Weights of the shipped network in MB (10^6 bytes)."""
        return np.asarray(self._of("weight_bytes", genomes).sum(axis=1) / 1e6)

    def memory_mb(self, genomes: Genomes) -> Floats:
        """Weights and what the op with the most inputs and outputs holds, in MB.

        An arithmetic floor: what the runtime itself takes is not in it; ``validate`` measures that.
        """
        alive = self._of("activation_bytes", genomes).max(axis=1)
        return np.asarray(self.size_mb(genomes) + alive / 1e6)

    def traits(self, genomes: Genomes) -> Floats:
        """(N, traits) what tells of a network's accuracy beside its genes.

        Logarithms of multiply-accumulates and weights, and the wiring of its layers, summed over them.
        """
        kinds = ("macs", "parameters", *_WIRING)
        macs, parameters, *wired = (column.sum(axis=1) for column in self._all_of(kinds, genomes))
        weighed = np.log1p(np.stack([macs, parameters], axis=1))
        return np.hstack([weighed, np.stack(wired, axis=1)])

    def _of(self, kind: str, genomes: Genomes) -> Floats:
        """(N, slots)."""
        (found,) = self._all_of((kind,), genomes)
        return found

    def _all_of(self, kinds: Sequence[str], genomes: Genomes) -> Iterator[Floats]:
        """(N, slots) of every kind."""
        slots = list(zip(self._slots, self._entries(genomes), strict=True))
        for kind in kinds:
            yield np.stack([counts[kind][entry] for counts, entry in slots], axis=1)

    def _entries(self, genomes: Genomes) -> Iterator[Genomes]:
        """For every slot the row (N,) of its counts."""
        population = np.atleast_2d(np.asarray(genomes, np.int64))
        for slot in self._space.slots:
            index = np.zeros(len(population), np.int64)
            for gene in slot.genes:
                index = index * int(self._space.option_counts[gene]) + population[:, gene]
            yield index

    @cached_property
    def _slots(self) -> list[dict[str, Floats]]:
        return [self._counted(index) for index in range(len(self._space.slots))]

    def _counted(self, index: int) -> dict[str, Floats]:
        slot = self._space.slots[index]
        options = [range(int(self._space.option_counts[gene])) for gene in slot.genes]
        found = [self._count(self._space.layer_at(slot, values)) for values in itertools.product(*options)]
        names = LayerCount.__dataclass_fields__
        return {name: np.array([getattr(one, name) for one in found], np.float64) for name in names}

    def _count(self, placed: PlacedLayer | None) -> LayerCount:
        if placed is None:
            return LayerCount()
        # Spaces repeat their layers under other names: each is counted once.
        key = msgspec.structs.replace(placed.layer, name=""), placed.input_shape
        if key not in self._known:
            self._known[key] = count_layer(placed)
        return self._known[key]
