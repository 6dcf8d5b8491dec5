"""Evolution on a surrogate: thousands of candidates compete by prediction, a batch gets evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgenas.search.acquisition import choose_batch
from edgenas.search.history import History
from edgenas.search.pareto import Indices, best_first, front
from edgenas.search.problem import Floats, Genomes, Problem
from edgenas.search.surrogate import GaussianProcess
from edgenas.search.variation import Seen, Variation

POOL = 1024
ROUNDS = 6
WALKED = 20_000
"""Spaces of at most this many genomes are predicted in full."""


class Adviser:
    """Chooses what to evaluate next from everything evaluated so far.

    Objectives that a metric knows are taken as they are, each other one has its own Gaussian
    process. Bad outliers are clipped before the fit: the surrogate is for telling good ones apart.
    """

    def __init__(self, variation: Variation) -> None:
        self._variation = variation
        self._problem: Problem = variation.problem
        self._models = {i: GaussianProcess(variation.counts) for i in self._problem.learnt}
        self._space = variation.everything(at_most=WALKED)

    def advise(self, history: History, seen: Seen, n: int) -> Genomes:
        """Up to ``n`` unseen genomes within the limits, diverse and promising."""
        rows = np.flatnonzero(history.violations <= 0)
        if len(rows) < 4:
            return self._variation.sample(n)
        genomes, objectives = history.genomes[rows], history.objectives[rows]
        for column, model in self._models.items():
            model.fit(genomes, clip_bad(objectives[:, column]))
        pool = self._pool(genomes, objectives, seen)
        if not len(pool):
            return pool
        means, deviations = self._means(pool), self._deviations(pool)
        known = objectives[front(objectives)]
        return pool[choose_batch(means, deviations, known, n, self._variation.rng)]

    def state(self) -> list[Any]:
        """What the next fit depends on, as JSON values."""
        return [model.state() for model in self._models.values()]

    def restore(self, state: list[Any]) -> None:
        """Takes back what ``state`` gave."""
        for model, saved in zip(self._models.values(), state, strict=True):
            model.restore(saved)

    def _pool(self, genomes: Genomes, objectives: Floats, seen: Seen) -> Genomes:
        if self._space is not None:
            unseen = self._space[~np.array(seen.contains(self._space), bool)]
            return self._best(unseen, POOL)
        parents = genomes[best_first(objectives, np.zeros(len(genomes)))[:64]]
        candidates = np.empty((0, genomes.shape[1]), np.int64)
        for _ in range(ROUNDS):
            children = np.concatenate([self._breed(parents), self._variation.sample(POOL // 8)])
            children = children[~np.array(seen.contains(children), bool)]
            candidates = np.unique(np.concatenate([candidates, children]), axis=0)
            candidates = self._best(candidates, POOL)
            parents = candidates[: POOL // 4]
        return candidates

    def _breed(self, parents: Genomes) -> Genomes:
        rng = self._variation.rng
        first, second = (parents[rng.integers(0, len(parents), POOL)] for _ in range(2))
        return self._variation.offspring(first, second)

    def _best(self, genomes: Genomes, count: int) -> Genomes:
        """The ``count`` best by predicted means, best first; deviations cost far more and come later."""
        return genomes[peel(self._means(genomes), count)]

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
