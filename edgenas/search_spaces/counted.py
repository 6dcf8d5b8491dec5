"""Size, multiply-accumulates and memory of a space's candidates as dense arrays.

What a layer weighs depends on its slot's genes alone, so every slot is counted once and a population
is a gather: the twin of a compiled latency table, for what needs no device.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgenas.search_spaces.layer import parts_of, wire_shapes
from edgenas.search_spaces.network import PlacedLayer, part_bytes
from edgenas.search_spaces.space import Genomes, SearchSpace

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerCount:
    """One layer: multiply-accumulates, weights, bytes of weights, bytes alive while its worst op runs."""

    macs: int = 0
    parameters: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0


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
    return LayerCount(macs, parameters, weight_bytes, alive)


class CountedSpace:
    """Counts of a space's candidates; each is a function of genomes (N, genes) -> (N,).

    Args:
        space: it is walked once, at the first question.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._known: dict[PlacedLayer, LayerCount] = {}

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

    def _of(self, kind: str, genomes: Genomes) -> Floats:
        """(N, slots)."""
        population = np.atleast_2d(np.asarray(genomes, np.int64))
        columns = []
        for slot, counts in zip(self._space.slots, self._slots, strict=True):
            index = np.zeros(len(population), np.int64)
            for gene in slot.genes:
                index = index * int(self._space.option_counts[gene]) + population[:, gene]
            columns.append(counts[kind][index])
        return np.asarray(np.stack(columns, axis=1))

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
        if placed not in self._known:
            self._known[placed] = count_layer(placed)
        return self._known[placed]
