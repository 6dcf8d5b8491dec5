"""What a search space is: genes with options, and slots whose layers depend on a few genes each.

A genome is a vector of option indices, int64 (genes,); a population is (N, genes). A network is
the sequence of the layers in the slots, and the layer in a slot depends on that slot's genes alone,
so that a latency table can be compiled into one dense array a slot.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias, final

import msgspec
import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.records import Record
from edgenas.search_spaces.network import Network, PlacedLayer

Genomes: TypeAlias = npt.NDArray[np.int64]
Option: TypeAlias = int | float | str | bool


class Choice(Record, kw_only=True):
    """One gene: its name and options, ordered from the least to the most capable."""

    name: str
    options: tuple[Option, ...]


class Slot(Record, kw_only=True):
    """A place for a layer, and the indices of the genes that decide what stands there."""

    name: str
    genes: tuple[int, ...]


class SearchSpace(ABC):
    """Base of all spaces. A subclass sets these attributes and says what stands in a slot.

    Attributes:
        name: what ``get_space`` finds it by.
        choices: the genes.
        slots: the places in execution order; the first one is never empty.
        classes: outputs of every network.
    """

    name: str
    choices: tuple[Choice, ...]
    slots: tuple[Slot, ...]
    classes: int

    @abstractmethod
    def layer_at(self, slot: Slot, values: tuple[int, ...]) -> PlacedLayer | None:
        """The layer in ``slot`` for option indices of the slot's genes, in their order.

        None where the slot is empty (a stage less deep).
        """

    @abstractmethod
    def active(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Which genes (N, genes) have any effect on the network; the others are free to be 0."""

    @final
    def canonical(self, genomes: Genomes) -> Genomes:
        """A copy with inactive genes at 0, so that equal networks have equal genomes.

        Takes (genes,) or (N, genes) and returns the same shape.
        """
        population = np.atleast_2d(np.asarray(genomes, np.int64))
        cleared: Genomes = np.where(self.active(population), population, 0)
        return cleared.reshape(np.shape(genomes))

    @final
    def sample(self, rng: np.random.Generator, n: int) -> Genomes:
        """``n`` canonical genomes (n, genes), every option of every gene equally likely."""
        return self.canonical(rng.integers(0, self.option_counts, size=(n, len(self.choices))))

    @final
    def network(self, genome: Genomes) -> Network:
        """The network of one genome (genes,)."""
        placed = self.placed(genome)
        layers = tuple(item.layer for item in placed)
        return Network(name=self.name, input_shape=placed[0].input_shape, layers=layers, classes=self.classes)

    @final
    def placed(self, genome: Genomes) -> tuple[PlacedLayer, ...]:
        """The layers of one genome where they stand, empty slots left out."""
        values = [int(value) for value in genome]
        found = (self.layer_at(slot, tuple(values[gene] for gene in slot.genes)) for slot in self.slots)
        return tuple(placed for placed in found if placed is not None)

    @final
    def describe(self, genome: Genomes) -> dict[str, Option]:
        """The options of the active genes by name."""
        active = self.active(np.atleast_2d(np.asarray(genome, np.int64)))[0]
        return {
            choice.name: choice.options[int(value)]
            for choice, value, used in zip(self.choices, genome, active, strict=True)
            if used
        }

    @final
    def genome_of(self, description: Mapping[str, Any]) -> Genomes:
        """The canonical genome of what ``describe`` gave; a gene left out is its first option.

        Raises:
            UsageError: a gene or an option does not exist.
        """
        unknown = sorted(set(description) - {choice.name for choice in self.choices})
        if unknown:
            known = ", ".join(choice.name for choice in self.choices)
            raise UsageError(f"space '{self.name}' has no gene {', '.join(unknown)}; it has: {known}")
        genome = [_index(choice, description) for choice in self.choices]
        return self.canonical(np.array(genome, np.int64))

    @final
    def smallest(self) -> Genomes:
        """The genome of all first options: the least capable network."""
        return self.canonical(np.zeros(len(self.choices), np.int64))

    @final
    def largest(self) -> Genomes:
        """The genome of all last options: the most capable network, in float."""
        return self.canonical(self.option_counts - 1)

    @property
    def option_counts(self) -> Genomes:
        """Number of options of every gene, (genes,)."""
        return np.array([len(choice.options) for choice in self.choices], np.int64)

    @property
    def identity(self) -> str:
        """Name, choices and both ends as JSON: it changes when a space of the same name does."""
        ends = (self.network(self.smallest()), self.network(self.largest()))
        return msgspec.json.encode((self.name, self.choices, ends)).decode()

    @property
    def log10_size(self) -> float:
        """Decimal logarithm of the number of genomes, inactive genes counted."""
        return math.fsum(math.log10(len(choice.options)) for choice in self.choices)


def _index(choice: Choice, description: Mapping[str, Any]) -> int:
    if choice.name not in description:
        return 0
    option = description[choice.name]
    for index, known in enumerate(choice.options):
        if known == option and isinstance(known, bool) == isinstance(option, bool):
            return index
    raise UsageError(f"gene '{choice.name}' has no option {option!r}; it has: {choice.options}")
