"""Evolution with hard limits that keeps the best holder of every option alive.

The population is the best of everything told, in the order of constraint domination, and for each
option of each gene the best candidates that carry it. A gene that decides much (a resolution, a
depth) therefore cannot freeze early: each of its options goes on being improved by its own line.
Late in a large budget, when breeding has found where the good networks are, exchange moves take the best
of each of several structures to the limit: the one that leads by then is not always the one that wins.

Sources: Deb et al. 2002 (order under constraints); Mouret and Clune, Illuminating search spaces by
mapping elites, 2015 (elites by niche; here the niches are the options themselves).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgenas.search.adviser import Adviser
from edgenas.search.exchanges import Exchanges, switching_genes
from edgenas.search.initial_design import spread_sample
from edgenas.search.pareto import best_first
from edgenas.search.problem import Genomes, Problem
from edgenas.search.strategy import Strategy

ELITES_AN_OPTION = 2
NICHE_SHARE = 0.5
DEAR = 2000
FIRST, BATCH = 12, 8
"""Candidates of the first and of every later generation that a surrogate chooses, at most."""
BRED_SHARE = 0.125
"""Share of the later candidates that no surrogate chooses: one that is wrong and sure of it never learns."""
EXCHANGING_FROM = 0.6
STRUCTURES, PAIRS = 8, 100
"""Of how many structures the best is improved at once, and by how many exchanges."""


def option_elites(genomes: Genomes, options: int, depth: int) -> np.ndarray:
    """Sorted row numbers of the first ``depth`` rows that carry each option of each gene.

    Args:
        genomes: (N, genes), best first.
        options: the most options that a gene has.
        depth: how many passes; rows taken in one pass leave the next ones to others.
    """
    genes = np.arange(genomes.shape[1])
    left = np.arange(len(genomes))
    taken = np.zeros(len(genomes), bool)
    for _ in range(depth):
        first = np.full((genomes.shape[1], options), -1)
        backwards = left[::-1]  # of equal indices the last assignment stays: the best row
        first[genes, genomes[backwards]] = backwards[:, None]
        taken[first[first >= 0]] = True
        left = np.flatnonzero(~taken)
    return np.flatnonzero(taken)


class Evolution(Strategy):
    """Evolution; with a budget of at most ``DEAR`` evaluations each is chosen with a surrogate."""

    name: ClassVar[str] = "evolution"

    def __init__(self, problem: Problem, *, seed: int = 0, evaluations: int = 1000) -> None:
        super().__init__(problem, seed=seed, evaluations=evaluations)
        self.population_size = int(np.clip(evaluations // 250, 32, 200))
        self._population = np.empty(0, np.intp)
        self._elites = np.empty(0, np.intp)
        self._adviser = Adviser(self.variation) if evaluations <= DEAR and problem.learnt else None
        self._expanded: set[int] = set()

    @property
    def generation_size(self) -> int:
        if self._adviser is None:
            return 2 * self.population_size
        return int(np.clip(self.evaluations // 16, 2, BATCH)) if len(self.history) else FIRST

    def _propose(self, n: int) -> Genomes:
        if len(self._population) < 2:
            return (
                self.variation.sample(n + n // 4)
                if self._adviser is None
                else spread_sample(self.variation, n)
            )
        if self._adviser is not None and len(self.history) >= 8:
            bred = int(n * BRED_SHARE + self.rng.random())
            advised = self._adviser.advise(self.history, self._seen, self._breed, n - bred)
            return np.concatenate([advised, self._breed(BATCH)]) if bred else advised
        if len(self.history) >= EXCHANGING_FROM * self.evaluations and len(self.problem.objectives) == 1:
            exchanged = self._exchange()
            if 2 * len(exchanged) >= n:
                return exchanged
        return self._breed(n + n // 8)  # some children will be repeats

    def _exchange(self) -> Genomes:
        """Exchanges in the best candidate of each of the best structures that had none yet."""
        fresh = self._population[~np.isin(self._population, list(self._expanded))]
        if not len(fresh):
            return self.history.genomes[fresh]
        structures = self.history.genomes[fresh][:, self._switching]
        _, first = np.unique(structures, axis=0, return_index=True)
        rows = fresh[np.sort(first)[:STRUCTURES]]
        self._expanded.update(rows.tolist())
        model = self._exchanges.linear_model(
            self.history.genomes[self._population], self.history.objectives[self._population, 0]
        )
        return self._exchanges.children(self.history.genomes[rows], model, PAIRS)

    @cached_property
    def _exchanges(self) -> Exchanges:
        return Exchanges(self.variation)

    @cached_property
    def _switching(self) -> npt.NDArray[np.intp]:
        return switching_genes(self.variation)

    def _breed(self, n: int) -> Genomes:
        return self.variation.offspring(self._parents(n), self._parents(n))

    def _parents(self, n: int) -> Genomes:
        best = self._population[: self.population_size]
        rows = best[(self.rng.random(n) * len(best)).astype(np.intp)]
        niche = self.rng.random(n) < NICHE_SHARE
        rows[niche] = self._elites[(self.rng.random(int(niche.sum())) * len(self._elites)).astype(np.intp)]
        return self.history.genomes[rows]

    def _learn(self, start: int) -> None:
        rows = np.concatenate([self._population, np.arange(start, len(self.history))])
        rows = rows[best_first(self.history.objectives[rows], self.history.violations[rows])]
        elites = option_elites(self.history.genomes[rows], int(self.variation.counts.max()), ELITES_AN_OPTION)
        kept = np.union1d(np.arange(min(self.population_size, len(rows))), elites)
        self._population, self._elites = rows[kept], rows[elites]

    def _state(self) -> dict[str, Any]:
        own = {
            "population": self._population.tolist(),
            "elites": self._elites.tolist(),
            "expanded": sorted(self._expanded),
        }
        return own if self._adviser is None else {**own, "adviser": self._adviser.state()}

    def _restore(self, state: dict[str, Any]) -> None:
        self._population = np.array(state["population"], np.intp)
        self._elites = np.array(state["elites"], np.intp)
        self._expanded = set(state.get("expanded", []))  # older states had no exchanges
        if self._adviser is not None:
            self._adviser.restore(state["adviser"])
