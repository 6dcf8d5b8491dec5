"""Evolution on a surrogate: thousands of candidates compete by prediction, a batch gets evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from edgenas.search.acquisition import choose_batch
from edgenas.search.history import History
from edgenas.search.pareto import Indices, front
from edgenas.search.problem import Floats, Genomes, Problem
from edgenas.search.surrogate import GaussianProcess
from edgenas.search.variation import Seen, Variation

POOL = 512
WORTH_HAVING = 0.9
"""Quantile of what was evaluated beyond which an objective is worth nothing."""
MOST_FITTED = 500
"""Candidates that a surrogate is fitted to: the best and the latest ones."""
ROUNDS = {1: 3}
"""Rounds of breeding by prediction, by the number of objectives (others: 1).

The front of several objectives already offers many kinds of parents.
"""


Breed: TypeAlias = Callable[[int], Genomes]


class Adviser:
    """Chooses what to evaluate next from everything evaluated so far.

    Objectives that a metric knows are taken as they are, each other one has its own Gaussian
    process. Bad outliers are clipped before the fit: the surrogate is for telling good ones apart.
    """

    def __init__(self, variation: Variation) -> None:
        self._variation = variation
        self._problem: Problem = variation.problem
        self._models = {i: GaussianProcess(variation.counts) for i in self._problem.learnt}

    def advise(self, history: History, seen: Seen, breed: Breed, n: int) -> Genomes:
        """Up to ``n`` unseen genomes within the limits, diverse and promising.

        Args:
            history: what the models are fitted to.
            seen: what must not be proposed again.
            breed: makes about so many children of what was evaluated.
            n: how many are wanted.
        """
        rows = np.flatnonzero(history.violations <= 0)
        if len(rows) < 4:
            return breed(n)
        if len(rows) > MOST_FITTED:
            rows = rows[_best_and_latest(history.objectives[rows], MOST_FITTED)]
        objectives = history.objectives[rows]
        for column, model in self._models.items():
            model.fit(history.genomes[rows], clip_bad(objectives[:, column]))
        pool = self._pool(seen, breed)
        if not len(pool):
            return pool
        known = objectives[front(objectives)]
        worst = np.maximum(known.max(axis=0), np.quantile(objectives, WORTH_HAVING, axis=0))
        means, deviations = self._means(pool), self._deviations(pool)
        picked = choose_batch(means, deviations, known, worst, n, rng=self._variation.rng)
        return pool[picked]

    def state(self) -> list[Any]:
        """What the next fit depends on, as JSON values."""
        return [model.state() for model in self._models.values()]

    def restore(self, state: list[Any]) -> None:
        """Takes back what ``state`` gave."""
        for model, saved in zip(self._models.values(), state, strict=True):
            model.restore(saved)

    def _pool(self, seen: Seen, breed: Breed) -> Genomes:
        """Children of what was evaluated, and of the best of these by prediction."""
        pool = self._unseen(breed(POOL), seen)
        for _ in range(ROUNDS.get(len(self._problem.objectives), 1) - 1):
            if not len(pool):
                break  # a small space has been seen in full
            parents = pool[peel(self._means(pool), POOL // 4)]
            rng = self._variation.rng
            first, second = (parents[rng.integers(0, len(parents), POOL)] for _ in range(2))
            children = self._unseen(self._variation.offspring(first, second), seen)
            pool = np.unique(np.concatenate([pool, children]), axis=0)
            pool = pool[peel(self._means(pool), POOL)]
        return pool

    @staticmethod
    def _unseen(genomes: Genomes, seen: Seen) -> Genomes:
        unique = np.unique(genomes, axis=0)
        return np.asarray(unique[~np.array(seen.contains(unique), bool)])

    def _means(self, genomes: Genomes) -> Floats:
        columns = [
            self._models[column].mean(genomes)
            if column in self._models
            else self._problem.metrics[name](genomes)
            for column, name in enumerate(self._problem.objectives)
        ]
        return np.stack(columns, axis=1)

    def _deviations(self, genomes: Genomes) -> Floats:
        result = np.zeros((len(genomes), len(self._problem.objectives)))
        for column, model in self._models.items():
            result[:, column] = model.deviation(genomes)
        return result


def _best_and_latest(objectives: Floats, count: int) -> Indices:
    """Sorted row numbers of the ``count / 2`` best fronts' rows, and of the latest others."""
    best = np.zeros(len(objectives), bool)
    best[peel(objectives, count // 2)] = True
    others = np.flatnonzero(~best)[-(count - int(best.sum())) :]
    return np.union1d(np.flatnonzero(best), others)


def clip_bad(values: Floats) -> Floats:
    """Values with those cut off that are further above the median than the best is below it."""
    middle = float(np.median(values))
    return np.minimum(values, 2.0 * middle - float(values.min()))


def peel(objectives: Floats, count: int) -> Indices:
    """Row numbers of front after front until there are ``count``; cheaper than ranking all rows."""
    if objectives.shape[1] == 1:
        return np.argsort(objectives[:, 0], kind="stable")[:count]
    left = np.arange(len(objectives))
    taken: list[Indices] = []
    total = 0
    while total < count and len(left):
        best = front(objectives[left])
        taken.append(left[best])
        total += len(best)
        left = np.delete(left, best)
    return np.concatenate([np.zeros(0, np.intp), *taken])[:count]
