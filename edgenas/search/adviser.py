"""Evolution on a surrogate: thousands of candidates compete by prediction, a batch gets evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from edgenas.search.acquisition import Predictions, choose_batch, corner_of, shortlist
from edgenas.search.history import History
from edgenas.search.pareto import Indices, front
from edgenas.search.problem import Floats, Genomes, Problem
from edgenas.search.surrogate import GaussianProcess
from edgenas.search.variation import Seen, Variation

POOL = 512
WALKED = 1 << 15
"""Spaces of at most this many genomes are predicted in full."""
PREDICTED_IN_FULL = 1000
"""Candidates whose uncertainty is computed, too."""
MOST_FITTED = 400
"""Candidates that a surrogate is fitted to: the best and the latest ones."""
ROUNDS = 3
"""Rounds of breeding by prediction in spaces that are too large to walk."""
SURVEYED = 2048
FEWEST = 20
FINITE = (1e-9, 1e12)
"""Metrics as features; what a table cannot price is infinite."""

Breed: TypeAlias = Callable[[int], Genomes]


class Adviser:
    """Chooses what to evaluate next from everything evaluated so far.

    Objectives that a metric knows are taken as they are, and stand beside the genome as features of
    the Gaussian process that each other one has.
    """

    def __init__(self, variation: Variation) -> None:
        self._variation = variation
        self._problem: Problem = variation.problem
        self._features = _features(self._problem)
        self._models = {
            i: GaussianProcess(variation.counts, len(self._features)) for i in self._problem.learnt
        }
        self._predicted = self._problem.learnt[0]
        self._everything = variation.everything(WALKED, within_limits=False)
        self._survey = self._problem.space.sample(np.random.default_rng(0), SURVEYED)

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
        genomes, objectives = history.genomes[rows], history.objectives[rows]
        for column, model in self._models.items():
            model.fit(genomes, objectives[:, column], self._known_numbers(genomes))
        pool = self._pool(seen, breed)
        if not len(pool):
            return pool
        known = self._predicted_first(objectives[front(objectives)])
        medians = self._predicted_first(self._medians(pool))
        chosen = shortlist(medians[:, 0], medians[:, 1:], known, PREDICTED_IN_FULL)
        pool, medians = pool[chosen], medians[chosen]
        predictions = Predictions(
            self._models[self._predicted].quantiles(pool, self._known_numbers(pool)),
            medians[:, 0],
            self._hoped_for(pool, medians)[:, 1:],
        )
        corner = corner_of(self._predicted_first(objectives), self._offered(objectives))
        return pool[choose_batch(predictions, known, corner, n, rng=self._variation.rng)]

    def state(self) -> list[Any]:
        """What the next fit depends on, as JSON values."""
        return [model.state() for model in self._models.values()]

    def restore(self, state: list[Any]) -> None:
        """Takes back what ``state`` gave."""
        for model, saved in zip(self._models.values(), state, strict=True):
            model.restore(saved)

    def _pool(self, seen: Seen, breed: Breed) -> Genomes:
        """Everything that is left of a small space; else children of what was evaluated, and of the
        best of these by prediction."""
        if self._everything is not None:
            left = self._unseen(self._everything, seen)
            return left[self._problem.violations(left) <= 0]
        pool = self._unseen(np.unique(breed(POOL), axis=0), seen)
        for _ in range(ROUNDS - 1):
            if not len(pool):
                break
            parents = pool[peel(self._medians(pool), POOL // 4)]
            rng = self._variation.rng
            first, second = (parents[rng.integers(0, len(parents), POOL)] for _ in range(2))
            children = self._unseen(self._variation.offspring(first, second), seen)
            pool = np.unique(np.concatenate([pool, children]), axis=0)
            pool = pool[peel(self._medians(pool), 2 * POOL)]
        return pool

    @staticmethod
    def _unseen(genomes: Genomes, seen: Seen) -> Genomes:
        return np.asarray(genomes[~np.array(seen.contains(genomes), bool)])

    def _known_numbers(self, genomes: Genomes) -> Floats:
        """(N, features) logarithms of the metrics that the problem speaks of."""
        columns = [np.log(np.clip(self._problem.metrics[name](genomes), *FINITE)) for name in self._features]
        return np.stack(columns, axis=1) if columns else np.zeros((len(genomes), 0))

    def _medians(self, genomes: Genomes) -> Floats:
        """(N, M) objectives, the learnt ones as predicted."""
        numbers = self._known_numbers(genomes)
        columns = [
            self._models[column].median(genomes, numbers)
            if column in self._models
            else self._problem.metrics[name](genomes)
            for column, name in enumerate(self._problem.objectives)
        ]
        return np.stack(columns, axis=1)

    def _hoped_for(self, genomes: Genomes, medians: Floats) -> Floats:
        """(N, M) with the learnt objectives beyond the first as good as luck may have them."""
        result = medians.copy()
        for column, model in self._models.items():
            if column != self._predicted:
                quantiles = model.quantiles(genomes, self._known_numbers(genomes))
                luck = self._variation.rng.integers(0, quantiles.shape[1] // 2)
                place = self._order.index(column)
                result[:, place] = quantiles[:, luck]
        return result

    def _offered(self, objectives: Floats) -> Floats:
        """(S, M - 1) other objectives all over the space; of what was evaluated where they are learnt."""
        known = [name in self._problem.metrics for name in self._problem.objectives]
        if not all(known[column] for column in self._order[1:]):
            return self._predicted_first(objectives)[:, 1:]
        within = self._survey[self._problem.violations(self._survey) <= 0]
        names = [self._problem.objectives[column] for column in self._order[1:]]
        offered = np.stack(
            [np.zeros(len(within)), *(self._problem.metrics[one](within) for one in names)], axis=1
        )
        offered = offered[np.isfinite(offered).all(axis=1)]
        return self._predicted_first(objectives)[:, 1:] if len(offered) < FEWEST else offered[:, 1:]

    @property
    def _order(self) -> list[int]:
        """Columns of the objectives, the predicted one first."""
        others = [column for column in range(len(self._problem.objectives)) if column != self._predicted]
        return [self._predicted, *others]

    def _predicted_first(self, objectives: Floats) -> Floats:
        return objectives[:, self._order]


def _features(problem: Problem) -> tuple[str, ...]:
    """Metrics that are objectives or limited: they are cheap, or nobody would search with them."""
    named = [*problem.objectives, *(limit.metric for limit in problem.limits), *problem.weights]
    return tuple(dict.fromkeys(name for name in named if name in problem.metrics))


def _best_and_latest(objectives: Floats, count: int) -> Indices:
    """Sorted row numbers of the ``count / 2`` best fronts' rows, and of the latest others."""
    best = np.zeros(len(objectives), bool)
    best[peel(objectives, count // 2)] = True
    others = np.flatnonzero(~best)[-(count - int(best.sum())) :]
    return np.union1d(np.flatnonzero(best), others)


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
