"""Regularized evolution: tournaments among the young, the oldest dies.

Source: Real et al., Regularized Evolution for Image Classifier Architecture Search, 2019; population
100 and sample 25 as in NNI.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from edgenas.search.pareto import best_first
from edgenas.search.problem import Genomes
from edgenas.search.strategy import Strategy

POPULATION = 100
TOURNAMENT = 25


class RegularizedEvolution(Strategy):
    """Mutates the winner of a random tournament among the last ``POPULATION`` candidates."""

    name: ClassVar[str] = "regularized-evolution"

    @property
    def generation_size(self) -> int:
        return 8

    @property
    def population_size(self) -> int:
        """A tenth of the budget where that is less than ``POPULATION``."""
        return int(np.clip(self.evaluations // 10, 10, POPULATION))

    def _propose(self, n: int) -> Genomes:
        if len(self.history) < self.population_size:
            return self.variation.sample_by_rejection(n + n // 8)
        alive = np.arange(len(self.history) - self.population_size, len(self.history))
        order = best_first(self.history.objectives[alive], self.history.violations[alive])
        place = np.empty(len(alive), np.intp)
        place[order] = np.arange(len(alive))
        size = min(TOURNAMENT, len(alive) // 4 + 1)
        entrants = self.rng.integers(0, len(alive), (n + 1, size))
        winners = entrants[np.arange(n + 1), np.argmin(place[entrants], axis=1)]
        parents = self.history.genomes[alive[winners]]
        return self.variation.repair(self.variation.mutate(parents, extra=0.0))
