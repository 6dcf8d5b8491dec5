"""A search space with fewer options: what a device or a user has ruled out is never proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.search_spaces.network import PlacedLayer
from edgenas.search_spaces.space import Choice, Genomes, Option, SearchSpace, Slot


class RestrictedSpace(SearchSpace):
    """``base`` with only the ``allowed`` options of some genes.

    Genes and slots stay those of the base, also where one option is left, so that a description of
    a genome here is one of the base too.

    Args:
        base: the space to restrict.
        allowed: options by gene, in any order; a gene left out keeps all of its options.

    Raises:
        UsageError: a gene or an option does not exist, or no option is left.
    """

    def __init__(self, base: SearchSpace, allowed: Mapping[str, Sequence[Option]]) -> None:
        unknown = sorted(set(allowed) - {choice.name for choice in base.choices})
        if unknown:
            known = ", ".join(choice.name for choice in base.choices)
            raise UsageError(f"space '{base.name}' has no gene {', '.join(unknown)}; it has: {known}")
        self.base = base
        self.name, self.classes, self.slots = base.name, base.classes, base.slots
        self._kept = tuple(_kept(choice, allowed.get(choice.name)) for choice in base.choices)
        self.choices = tuple(
            Choice(name=choice.name, options=tuple(choice.options[index] for index in kept))
            for choice, kept in zip(base.choices, self._kept, strict=True)
        )
        self._base_index = _lookup(self._kept)

    def to_base(self, genomes: Genomes) -> Genomes:
        """The same networks as genomes of the base, (N, genes), not canonical."""
        return self._base_index[np.arange(len(self.choices)), genomes]

    def layer_at(self, slot: Slot, values: tuple[int, ...]) -> PlacedLayer | None:
        indices = (self._kept[gene][value] for gene, value in zip(slot.genes, values, strict=True))
        return self.base.layer_at(slot, tuple(indices))

    def active(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        return self.base.active(self.to_base(genomes))


def _kept(choice: Choice, allowed: Sequence[Option] | None) -> tuple[int, ...]:
    """Indices of the options of ``choice`` that stay, ascending."""
    if allowed is None:
        return tuple(range(len(choice.options)))
    missing = [option for option in allowed if option not in choice.options]
    if missing or not allowed:
        raise UsageError(f"gene '{choice.name}' has the options {choice.options}, not {missing or 'none'}")
    return tuple(index for index, option in enumerate(choice.options) if option in allowed)


def _lookup(kept: Sequence[tuple[int, ...]]) -> Genomes:
    """(genes, most options left): index in the base by gene and index here."""
    table = np.zeros((len(kept), max(map(len, kept))), np.int64)
    for gene, indices in enumerate(kept):
        table[gene, : len(indices)] = indices
    return table
