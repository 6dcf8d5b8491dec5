"""How new genomes are made from old ones: mutation, crossover, repair, and never the same twice."""

from __future__ import annotations

import numpy as np

from edgenas.search.problem import Floats, Genomes, Problem

CROSSOVER_SHARE = 0.5
OFFSPRING_ROUNDS, OFFSPRING_SPARE = 10, 0.08
"""Children are cheap: a round for the last of them costs more than breeding others."""
ENUMERABLE = 1 << 17
"""Spaces of at most this many genomes are walked in full once random proposals run dry."""


class Seen:
    """Remembers genomes by a 64-bit sum of one random word for every option (Zobrist hashing).

    Two different genomes collide with probability 2^-64, in which case one of them is never
    proposed; memory is one integer a genome.

    Source: Zobrist, A new hashing method with application for game playing, 1970.
    """

    def __init__(self, option_counts: Genomes) -> None:
        shape = (len(option_counts), int(option_counts.max(initial=1)))
        self._words = np.random.default_rng(0x5EED).integers(0, 1 << 63, shape, np.uint64)
        self._genes = np.arange(len(option_counts))
        self._known: set[int] = set()

    def __len__(self) -> int:
        return len(self._known)

    def add_new(self, genomes: Genomes, at_most: int | None = None) -> Genomes:
        """The rows that were never seen before, in order and each once; they count as seen now."""
        kept: list[int] = []
        known = self._known
        for row, key in enumerate(self._keys(genomes)):
            if key not in known:
                if at_most is not None and len(kept) == at_most:
                    break
                known.add(key)
                kept.append(row)
        return genomes[kept]

    def contains(self, genomes: Genomes) -> list[bool]:
        """Which rows were seen."""
        return [key in self._known for key in self._keys(genomes)]

    def _keys(self, genomes: Genomes) -> list[int]:
        keys: list[int] = self._words[self._genes, genomes].sum(axis=1, dtype=np.uint64).tolist()
        return keys


class Variation:
    """Makes genomes of one problem from a generator's random numbers."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self.problem = problem
        self.rng = rng
        self.counts = np.asarray(problem.space.option_counts, np.int64)
        self._free = np.flatnonzero(self.counts > 1)

    def sample(self, n: int) -> Genomes:
        """Random genomes within the limits; those that are not are repaired. May be fewer than n."""
        return self.repair(self.problem.space.sample(self.rng, n), rounds=300)

    def sample_by_rejection(self, n: int, *, rounds: int = 30) -> Genomes:
        """Up to ``n`` genomes spread evenly over those within the limits; repaired if that finds none."""
        found = np.empty((0, len(self.counts)), np.int64)
        for _ in range(rounds):
            drawn = self.problem.space.sample(self.rng, n)
            found = np.concatenate([found, drawn[self.problem.violations(drawn) <= 0]])[:n]
            if len(found) == n:
                return found
        return found if len(found) else self.sample(n)

    def mutate(self, genomes: Genomes, *, extra: float = 1.0) -> Genomes:
        """Changes one random gene of every row, and each other with probability ``extra`` / genes."""
        n, genes = genomes.shape
        chosen = self.rng.random((n, genes), np.float32) < extra / genes
        chosen[np.arange(n), self.rng.choice(self._free, n)] = True
        rows, columns = np.nonzero(chosen)
        result = genomes.copy()
        # A shift by 1 .. options - 1 around the circle always changes the gene, every option alike.
        options = self.counts[columns]
        shift = 1 + (self.rng.random(len(rows)) * (options - 1)).astype(np.int64)
        result[rows, columns] = (result[rows, columns] + np.where(options > 1, shift, 0)) % options
        return result

    def crossover(self, first: Genomes, second: Genomes) -> Genomes:
        """Half of the rows take every gene from either parent, the others a run of neighbouring genes.

        Neighbouring genes mostly belong to one stage; taken whole, what works together stays together.
        """
        taken = self.rng.random(first.shape, np.float32) < 0.5
        genes = first.shape[1]
        start, length = (self.rng.random((2, len(first) // 2, 1), np.float32) * genes).astype(np.int64)
        taken[: len(first) // 2] = (np.arange(genes) - start) % genes <= length
        return np.where(taken, first, second)

    def repair(self, genomes: Genomes, *, rounds: int = 30, spare: float = 0.02) -> Genomes:
        """Brings rows within the limits by random single-gene changes that lessen the violation.

        Returns canonical genomes; rows that are still outside after ``rounds``, or when no more than
        the share ``spare`` is, are left out.
        """
        result = self.problem.space.canonical(genomes)
        if not self.problem.limits:
            return result
        violations = self.problem.violations(result)
        for _ in range(rounds):
            bad = np.flatnonzero(violations > 0)
            if len(bad) <= spare * len(result):  # the last few are not worth a round of their own
                break
            self._improve(result, violations, bad)
        return result[violations <= 0]

    def _improve(self, genomes: Genomes, violations: Floats, rows: np.ndarray) -> None:
        trial = genomes[rows]
        gene = self._free[(self.rng.random(len(rows)) * len(self._free)).astype(np.intp)]
        trial[np.arange(len(rows)), gene] = (self.rng.random(len(rows)) * self.counts[gene]).astype(np.int64)
        trial = self.problem.space.canonical(trial)
        value = self.problem.violations(trial)
        better = value < violations[rows]
        genomes[rows[better]] = trial[better]
        violations[rows[better]] = value[better]

    def offspring(self, first: Genomes, second: Genomes) -> Genomes:
        """Children of two rows of parents, within the limits: crossed, mutated, or both."""
        crossed = self.rng.random(len(first)) < CROSSOVER_SHARE
        children = first.copy()
        children[crossed] = self.crossover(first[crossed], second[crossed])
        mutated = ~crossed | (self.rng.random(len(first)) < 0.5)
        children[mutated] = self.mutate(children[mutated])
        return self.repair(children, rounds=OFFSPRING_ROUNDS, spare=OFFSPRING_SPARE)

    def everything(self, at_most: int = ENUMERABLE, *, within_limits: bool = True) -> Genomes | None:
        """All canonical genomes (within the limits); None where the space has more than ``at_most``."""
        if float(np.prod(self.counts.astype(np.float64))) > at_most:
            return None
        grid = np.indices(self.counts.tolist()).reshape(len(self.counts), -1).T.astype(np.int64)
        genomes = np.unique(self.problem.space.canonical(grid), axis=0)
        return genomes[self.problem.violations(genomes) <= 0] if within_limits else genomes
