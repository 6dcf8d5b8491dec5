"""What a search says of itself while it runs, in one line beside its bar."""

from __future__ import annotations

import time

import numpy as np

from edgenas.search.history import History
from edgenas.search.pareto import front
from edgenas.search.problem import Floats

EVERY_S = 0.2
"""The front is counted no more often than this; cheap searches have hundreds of generations a second."""


class LiveView:
    """Generation, size of the front, best within the limits, evaluations a second."""

    def __init__(self) -> None:
        self._generation = 0
        self._scored = 0
        self._started = time.monotonic()
        self._shown_at = -EVERY_S
        self._line = ""

    def line(self, history: History, scores: Floats, fresh: int) -> str:
        """The line after a generation of ``fresh`` candidates.

        Args:
            history: everything scored.
            scores: accuracies (N,) of it.
            fresh: how many the last generation had.
        """
        self._generation += 1
        self._scored += fresh
        now = time.monotonic()
        if now - self._shown_at >= EVERY_S:
            self._shown_at, self._line = now, self._written(history, scores, now)
        return self._line

    def _written(self, history: History, scores: Floats, now: float) -> str:
        kept = np.flatnonzero(history.violations <= 0)
        best = f"best {100 * scores[kept].max():.2f} %" if len(kept) else "none within the limits"
        rate = self._scored / max(now - self._started, 1e-9)
        size = len(front(history.objectives[kept]))
        return f"generation {self._generation}, front {size}, {best}, {rate:,.0f}/s"
