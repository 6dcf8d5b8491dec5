"""Evolution on a surrogate: thousands of candidates compete by prediction, a batch gets evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True)
class Known:
    """Genomes beside all that is known of them before they are evaluated.

    Attributes:
        genomes: (N, genes).
        features: (N, features) what surrogates see beside the genes.
        objectives: (N, M), the predicted one first; NaN where they are learnt.
    """

    genomes: Genomes
    features: Floats
    objectives: Floats

    def __len__(self) -> int:
        return len(self.genomes)

    def __getitem__(self, rows: npt.NDArray[Any]) -> Known:
        return Known(self.genomes[rows], self.features[rows], self.objectives[rows])


class Adviser:
    """Chooses what to evaluate next from everything evaluated so far.

    Objectives that a metric knows are taken as they are. They, the limited metrics and the problem's
    traits stand beside the genome as features of the Gaussian process that each other objective has.
    """

    def __init__(self, variation: Variation) -> None:
        self._variation = variation
        self._problem: Problem = variation.problem
        self._named = _named_metrics(self._problem)
        first = self._problem.learnt[0]
        others = [column for column in range(len(self._problem.objectives)) if column != first]
        self._order = [first, *others]
        everything = variation.everything(WALKED, within_limits=False)
        self._everything = None if everything is None else self._known(everything)
        self._survey = self._known(self._problem.space.sample(np.random.default_rng(0), SURVEYED))
        features = self._survey.features.shape[1]
        self._models = {i: GaussianProcess(variation.counts, features) for i in self._problem.learnt}

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
        features = self._known(genomes).features
        for column, model in self._models.items():
            model.fit(genomes, objectives[:, column], features)
        pool = self._pool(seen, breed)
        if not len(pool):
            return pool.genomes
        evaluated = objectives[:, self._order]
        best = evaluated[front(evaluated)]
        medians = self._medians(pool)
        chosen = shortlist(medians[:, 0], medians[:, 1:], best, PREDICTED_IN_FULL)
        pool, medians = pool[chosen], medians[chosen]
        predictions = Predictions(
            self._models[self._order[0]].quantiles(pool.genomes, pool.features),
            medians[:, 0],
            self._hoped_for(pool, medians)[:, 1:],
        )
        corner = corner_of(evaluated, self._offered(evaluated))
        return pool.genomes[choose_batch(predictions, best, corner, n, rng=self._variation.rng)]

    def state(self) -> list[Any]:
        """What the next fit depends on, as JSON values."""
        return [model.state() for model in self._models.values()]

    def restore(self, state: list[Any]) -> None:
        """Takes back what ``state`` gave."""
        for model, saved in zip(self._models.values(), state, strict=True):
            model.restore(saved)

    def _known(self, genomes: Genomes) -> Known:
        problem = self._problem
        logarithms = [np.log(np.clip(problem.metrics[name](genomes), *FINITE)) for name in self._named]
        features = np.hstack([problem.traits(genomes), *(column[:, None] for column in logarithms)])
        names = (problem.objectives[column] for column in self._order)
        learnt = np.full(len(genomes), np.nan)
        columns = [problem.metrics[name](genomes) if name in problem.metrics else learnt for name in names]
        return Known(genomes, features, np.stack(columns, axis=1))

    def _pool(self, seen: Seen, breed: Breed) -> Known:
        """Everything that is left of a small space; else children of what was evaluated, and of the
        best of these by prediction."""
        if self._everything is not None:
            left = self._everything[_unseen(self._everything.genomes, seen)]
            return left[self._problem.violations(left.genomes) <= 0]
        pool = self._bred(breed(POOL), seen)
        for _ in range(ROUNDS - 1):
            if not len(pool):
                break
            parents = pool.genomes[peel(self._medians(pool), POOL // 4)]
            rng = self._variation.rng
            first, second = (parents[rng.integers(0, len(parents), POOL)] for _ in range(2))
            children = self._variation.offspring(first, second)
            pool = self._bred(np.concatenate([pool.genomes, children]), seen)
            pool = pool[peel(self._medians(pool), 2 * POOL)]
        return pool

    def _bred(self, genomes: Genomes, seen: Seen) -> Known:
        genomes = np.unique(genomes, axis=0)
        return self._known(genomes[_unseen(genomes, seen)])

    def _medians(self, pool: Known) -> Floats:
        """(N, M) objectives, the predicted one first, the learnt ones as predicted."""
        result = pool.objectives.copy()
        for column, model in self._models.items():
            result[:, self._order.index(column)] = model.median(pool.genomes, pool.features)
        return result

    def _hoped_for(self, pool: Known, medians: Floats) -> Floats:
        """(N, M) with the learnt objectives beyond the first as good as luck may have them."""
        result = medians.copy()
        for column, model in self._models.items():
            if column != self._order[0]:
                quantiles = model.quantiles(pool.genomes, pool.features)
                luck = self._variation.rng.integers(0, quantiles.shape[1] // 2)
                result[:, self._order.index(column)] = quantiles[:, luck]
        return result

    def _offered(self, evaluated: Floats) -> Floats:
        """(S, M - 1) other objectives all over the space; of what was evaluated where they are learnt."""
        within = self._problem.violations(self._survey.genomes) <= 0
        offered = self._survey.objectives[within, 1:]
        offered = offered[np.isfinite(offered).all(axis=1)]
        return evaluated[:, 1:] if len(offered) < FEWEST else offered


def _unseen(genomes: Genomes, seen: Seen) -> npt.NDArray[np.bool_]:
    return ~np.array(seen.contains(genomes), bool)


def _named_metrics(problem: Problem) -> tuple[str, ...]:
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
