"""Which networks of a search space to measure, so that every layer is seen in context several times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.compiled import SpaceLike
from edgenas.latency_tables.layers import INPUT, Placed, describe_layer

Ints = NDArray[np.int64]
Sampler = Callable[[np.random.Generator, int], Ints]

_POOL = 1500
_WORTH_OF_AGAIN = 0.2  # of seeing an item once more, against seeing it for the first time
_ENOUGH = 0.015  # share of a random network's items that may be left unseen


@dataclass(frozen=True)
class Cover:
    """Genomes (N, genes) to measure, best first, and the share of a random network's items they show.

    The first ``picked`` were picked for what is new in them, the others are random.
    """

    genomes: Ints
    coverage: float
    picked: int


def cover(space: SpaceLike, sample: Sampler, *, least: int, most: int, rng: np.random.Generator) -> Cover:
    """Picks networks greedily from a random pool until hardly anything in a random one is new.

    What ``least`` leaves room for is filled with the pool's others as they come: networks that were
    picked for what is rare in them are no sample of the space, and their errors not those of its networks.

    Args:
        space: the search space.
        sample: draws canonical genomes of it.
        least: networks in any case.
        most: networks at most that are picked for what is new in them.
        rng: the source of the pool.
    """
    pool = np.unique(sample(rng, _POOL), axis=0)
    contains = _incidence(space, pool)
    seen = np.zeros(contains.shape[1])
    left = np.ones(len(pool), np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(most, len(pool)) and _unseen(contains, seen) >= _ENOUGH:
        gains = contains @ (_WORTH_OF_AGAIN**seen).astype(np.float32)
        best = int(np.argmax(np.where(left, gains, -1.0)))
        chosen.append(best)
        left[best] = False
        seen += contains[best]
    others = rng.permutation(np.flatnonzero(left))[: max(0, least - len(chosen))]
    unseen = _unseen(contains, seen + contains[others].sum(axis=0))
    return Cover(pool[[*chosen, *others]], 1.0 - unseen, len(chosen))


def _unseen(contains: NDArray[np.float32], seen: NDArray[np.float64]) -> float:
    """Mean share of a pool network's items that nothing chosen has shown."""
    new = contains @ (seen == 0).astype(np.float32)
    return float(np.mean(new / contains.sum(axis=1)))


def _incidence(space: SpaceLike, genomes: Ints) -> NDArray[np.float32]:
    """Which items (columns) every genome (rows) contains."""
    numbers: dict[str, int] = {}
    cache: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    rows = [
        sorted({item for slot in space.slots for item in _slot_items(space, slot, genome, numbers, cache)})
        for genome in genomes.tolist()
    ]
    contains = np.zeros((len(rows), len(numbers)), np.float32)
    for index, items in enumerate(rows):
        contains[index, items] = 1.0
    return contains


def _slot_items(
    space: SpaceLike,
    slot: Any,
    genome: list[int],
    numbers: dict[str, int],
    cache: dict[tuple[str, tuple[int, ...]], list[int]],
) -> list[int]:
    values = tuple(genome[gene] for gene in slot.genes)
    if (slot.name, values) not in cache:
        placed = space.layer_at(slot, values)
        items = [] if placed is None else _items(placed)
        cache[slot.name, values] = [numbers.setdefault(item, len(numbers)) for item in items]
    return cache[slot.name, values]


def _items(placed: Placed) -> Iterator[str]:
    """What there is to learn from a layer: its make-up, and every part with its sizes."""
    yield describe_layer(placed).context
    shapes: dict[str, tuple[int, ...]] = {INPUT: tuple(placed.input_shape)}
    parts = placed.layer.parts()
    for part in parts:
        shape = shapes[part.inputs[0]]
        shapes[part.name] = tuple(part.output_shape(shape))
        before = placed.input_precision if part.inputs[0] == INPUT else placed.layer.precision
        fields = [getattr(part, name) for name in part.__struct_fields__ if name not in {"name", "inputs"}]
        readers = [type(other).__name__ for other in parts if part.name in other.inputs]
        yield repr((type(part).__name__, placed.layer.precision, before, shape, fields, readers))
