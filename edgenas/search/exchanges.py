"""Exchange moves: where a limit binds, one change pays for another.

The best networks lie on the limit, so that nearly every single change of one of them is too slow or
worse. Of all pairs of single changes these are the ones that keep the limits together, as far as changes
add up, and of which a linear model of the population expects most.

Source: Kernighan and Lin, An efficient heuristic procedure for partitioning graphs, 1970 (pairs of changes
that keep what must be kept).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgenas.search.problem import Floats, Genomes
from edgenas.search.variation import Variation

RIDGE = 1.0
PROBES = 64
ROUNDING = 1e-6


class Exchanges:
    """All single changes of a genome and all pairs of them, for one problem."""

    def __init__(self, variation: Variation) -> None:
        self._problem, self._counts = variation.problem, variation.counts
        changes = [(gene, shift) for gene, count in enumerate(self._counts) for shift in range(1, count)]
        # The last move changes nothing: a pair with it is a single change.
        self._genes, self._shifts = np.array([*changes, (0, 0)], np.int64).T
        first, second = np.triu_indices(len(self._genes), 1)
        kept = (self._genes[first] != self._genes[second]) | (second == len(changes))
        self._first, self._second = first[kept], second[kept]
        self._places = np.concatenate([[0], np.cumsum(self._counts)[:-1]])

    def linear_model(self, genomes: Genomes, values: Floats) -> npt.NDArray[np.float32]:
        """A weight for every option of every gene, by ridge regression of (N,) values on genomes."""
        options = np.zeros((len(genomes), int(self._counts.sum())), np.float32)
        options[np.arange(len(genomes))[:, None], genomes + self._places] = 1.0
        options -= options.mean(axis=0)
        spread = float(values.std()) or 1.0
        scaled = ((values - values.mean()) / spread).astype(np.float32)
        normal = options.T @ options + RIDGE * np.eye(options.shape[1], dtype=np.float32)
        return np.asarray(np.linalg.solve(normal, options.T @ scaled), np.float32)

    def children(self, parents: Genomes, weights: npt.NDArray[np.float32], count: int) -> Genomes:
        """Canonical genomes within the limits, at most ``count`` a parent, most promising first.

        Args:
            parents: (P, genes), within the limits.
            weights: what ``linear_model`` gave; less is better.
            count: of pairs to take from every parent.
        """
        moved = np.repeat(parents[:, None], len(self._genes), axis=1)
        move = np.arange(len(self._genes))
        moved[:, move, self._genes] += self._shifts
        moved[:, move, self._genes] %= self._counts[self._genes]
        hoped = weights[moved + self._places].sum(axis=2)
        hoped -= hoped[:, -1:]
        gain = hoped[:, self._first] + hoped[:, self._second]
        gain[~self._affordable(moved)] = np.inf
        count = min(count, gain.shape[1])
        pairs = np.argpartition(gain, count - 1, axis=1)[:, :count]
        best = np.take_along_axis(gain, pairs, axis=1).ravel()
        order = np.argsort(best, kind="stable")[: np.count_nonzero(np.isfinite(best))]
        return self._exchanged(parents[order // count], pairs.ravel()[order])

    def _affordable(self, moved: Genomes) -> npt.NDArray[np.bool_]:
        """(P, pairs) which pairs keep every limit if changes add up; ``moved`` are single changes."""
        affordable = np.ones((len(moved), len(self._first)), bool)
        canonical = self._problem.space.canonical(moved.reshape(-1, moved.shape[2]))
        for limit in self._problem.limits:
            load = self._problem.metrics[limit.metric](canonical).reshape(moved.shape[:2]) / limit.maximum
            more = (load - load[:, -1:]).astype(np.float32)
            affordable &= more[:, self._first] + more[:, self._second] <= 1.0 - load[:, -1:] + ROUNDING
        return affordable

    def _exchanged(self, genomes: Genomes, pairs: npt.NDArray[np.intp]) -> Genomes:
        """A pair of changes in every row, without the rows that are outside after all."""
        rows, changed = np.arange(len(genomes)), genomes.copy()
        for moves in (self._first[pairs], self._second[pairs]):
            changed[rows, self._genes[moves]] += self._shifts[moves]
        changed = self._problem.space.canonical(changed % self._counts)
        return changed[self._problem.violations(changed) <= 0]


def switching_genes(variation: Variation) -> npt.NDArray[np.intp]:
    """The genes that decide whether others mean anything, such as depths."""
    space = variation.problem.space
    genomes = space.sample(np.random.default_rng(0), PROBES)
    switching = []
    for gene in np.flatnonzero(variation.counts > 1):
        changed = genomes.copy()
        changed[:, gene] = (changed[:, gene] + 1) % variation.counts[gene]
        differs = space.canonical(changed) != genomes
        differs[:, gene] = False
        if differs.any():
            switching.append(gene)
    return np.array(switching, np.intp)
