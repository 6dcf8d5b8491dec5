"""Local search: from one candidate to a better neighbour, greedily or with simulated annealing.

Source: White et al., Exploring the Loss Landscape in Neural Architecture Search, 2021 (greedy);
Kirkpatrick et al., Optimization by Simulated Annealing, 1983.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from edgenas.search.pareto import constraint_dominates
from edgenas.search.problem import Genomes
from edgenas.search.strategy import Strategy

PATIENCE = 6
"""Generations without a step before the search restarts at a random candidate."""


class LocalSearch(Strategy):
    """Greedy: moves to a neighbour (one gene changed) that dominates; restarts when stuck.

    With several objectives a neighbour that is neither better nor worse is taken too, so that the
    walk follows the front.
    """

    name: ClassVar[str] = "local-search"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._current = -1
        self._stuck = 0

    @property
    def generation_size(self) -> int:
        return 8

    def _propose(self, n: int) -> Genomes:
        if self._current < 0:
            return self.variation.sample_by_rejection(n)
        start = np.repeat(self.history.genomes[self._current][None], 2 * n, axis=0)
        return self.variation.repair(self.variation.mutate(start, extra=0.0))

    def _learn(self, start: int) -> None:
        moved = False
        for row in range(start, len(self.history)):
            if self._current < 0 or self._accepts(row):
                self._current, moved = row, True
        self._stuck = 0 if moved else self._stuck + 1
        if self._stuck > PATIENCE:
            self._current, self._stuck = -1, 0

    def _accepts(self, row: int) -> bool:
        return not self._dominated(row) and self._differs(row)

    def _dominated(self, row: int) -> bool:
        """Whether the current candidate dominates ``row``."""
        here = [self._current]
        objectives, violations = self.history.objectives, self.history.violations
        return bool(
            constraint_dominates(objectives[here], violations[here], objectives[[row]], violations[[row]])[
                0, 0
            ]
        )

    def _differs(self, row: int) -> bool:
        return bool((self.history.objectives[row] != self.history.objectives[self._current]).any())

    def _state(self) -> dict[str, Any]:
        return {"current": int(self._current), "stuck": self._stuck}

    def _restore(self, state: dict[str, Any]) -> None:
        self._current, self._stuck = state["current"], state["stuck"]


class SimulatedAnnealing(LocalSearch):
    """Takes a worse neighbour with a chance that falls as the budget is used up."""

    name: ClassVar[str] = "simulated-annealing"

    def _accepts(self, row: int) -> bool:
        if super()._accepts(row):
            return True
        objectives = self.history.objectives
        spread = objectives.std(axis=0) + 1e-12
        loss = float(((objectives[row] - objectives[self._current]) / spread).max())
        left = max(1.0 - len(self.history) / max(self.evaluations, 1), 1e-3)
        return bool(
            self.history.violations[row] <= self.history.violations[self._current]
            and self.rng.random() < np.exp(-max(loss, 0.0) / (0.5 * left))
        )
