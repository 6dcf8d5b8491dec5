"""NAS-Bench-201: one cell of six edges, repeated; 15,625 networks with known accuracies.

Genomes are all different networks of the benchmark, so every gene counts as active, even where
the graph of two cells computes the same.

Source: Dong and Yang, NAS-Bench-201: extending the scope of reproducible NAS (2020).
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from edgenas.search_spaces.cells import EDGES, Cell, CellOperation, PreActivationBlock
from edgenas.search_spaces.layers import AnyLayer, ConvLayer, Head
from edgenas.search_spaces.network import PlacedLayer
from edgenas.search_spaces.space import Choice, Genomes, SearchSpace, Slot

OPERATIONS: tuple[CellOperation, ...] = get_args(CellOperation)
WIDTHS = (16, 32, 64)
CELLS_PER_STAGE = 5
IMAGE_SIZE = 32


class NASBench201(SearchSpace):
    """Five cells in each of three stages of 16, 32 and 64 channels, on images of 32x32."""

    name = "nasbench201"
    choices = tuple(Choice(name=f"{source}-{target}", options=OPERATIONS) for source, target in EDGES)

    def __init__(self, *, classes: int, channels: int = 3) -> None:
        self.classes = classes
        self._fixed = _fixed_layers(classes, channels)
        self._places = {name: (stage, size) for name, stage, size in _skeleton()}
        genes = tuple(range(len(self.choices)))
        self.slots = tuple(
            Slot(name=name, genes=() if name in self._fixed else genes) for name in self._places
        )

    def layer_at(self, slot: Slot, values: tuple[int, ...]) -> PlacedLayer | None:
        stage, size = self._places[slot.name]
        layer = self._fixed.get(slot.name) or Cell(
            name=slot.name,
            in_channels=WIDTHS[stage],
            out_channels=WIDTHS[stage],
            operations=tuple(OPERATIONS[value] for value in values),
        )
        return PlacedLayer(layer=layer, input_shape=(layer.in_channels, size, size))

    def active(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        return np.ones(genomes.shape, np.bool_)


def _fixed_layers(classes: int, channels: int) -> dict[str, AnyLayer]:
    """Everything around the cells, by slot."""
    first, *_, last = WIDTHS
    layers: list[AnyLayer] = [
        ConvLayer(name="stem", in_channels=channels, out_channels=first, activation="none"),
        *(
            PreActivationBlock(
                name=f"s{stage + 1}r", in_channels=WIDTHS[stage - 1], out_channels=WIDTHS[stage]
            )
            for stage in range(1, len(WIDTHS))
        ),
        ConvLayer(name="norm", in_channels=last, out_channels=last, kernel=1, groups=last),
        Head(name="head", in_channels=last, out_channels=classes),
    ]
    return {layer.name: layer for layer in layers}


def _skeleton() -> list[tuple[str, int, int]]:
    """Slot, stage and size of its input, in execution order."""
    places = [("stem", 0, IMAGE_SIZE)]
    for stage in range(len(WIDTHS)):
        size = IMAGE_SIZE >> stage
        if stage:
            places.append((f"s{stage + 1}r", stage, 2 * size))
        places += [(f"s{stage + 1}c{cell}", stage, size) for cell in range(CELLS_PER_STAGE)]
    final = IMAGE_SIZE >> (len(WIDTHS) - 1)
    return [*places, ("norm", len(WIDTHS) - 1, final), ("head", len(WIDTHS) - 1, final)]
