"""How hard the limits press while a search goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgenas.errors import UnknownNameError
from edgenas.search.problem import Limit, Problem

CONSTANT, RELAXING = "constant", "relaxing"
SCHEDULES = (CONSTANT, RELAXING)
STRICTEST = 0.6
RELAXED_AT = 0.7
"""Share of the evaluations after which the limits are as they were asked."""


class PressureSchedule:
    """The limits at every moment of a search.

    ``constant`` is the limits as they are. ``relaxing`` starts with ``STRICTEST`` of the way from
    the least that the space can do to the limit and reaches the limit at ``RELAXED_AT`` of the budget.

    Args:
        name: one of ``SCHEDULES``.
        problem: its limits, whatever they are on.

    Raises:
        UnknownNameError: no such schedule.
    """

    def __init__(self, name: str, problem: Problem) -> None:
        if name not in SCHEDULES:
            raise UnknownNameError("pressure schedule", name, SCHEDULES)
        self.name = name
        self._limits = problem.limits
        self._least = _least(problem) if name == RELAXING else ()

    def at(self, progress: float) -> tuple[Limit, ...]:
        """The limits after ``progress`` (0..1) of the evaluations."""
        if self.name == CONSTANT or progress >= RELAXED_AT:
            return self._limits
        share = STRICTEST + (1.0 - STRICTEST) * progress / RELAXED_AT
        return tuple(
            Limit(metric=limit.metric, maximum=least + share * (limit.maximum - least))
            for limit, least in zip(self._limits, self._least, strict=True)
        )


def _least(problem: Problem) -> Sequence[float]:
    """About the least value of every limited metric among candidates that keep all limits."""
    sample = problem.space.sample(np.random.default_rng(0), 4096)
    kept = sample[problem.violations(sample) <= 0]
    if not len(kept):  # the limits are tight already
        return [limit.maximum for limit in problem.limits]
    return [float(problem.metrics[limit.metric](kept).min()) for limit in problem.limits]
