"""How much of what a search found was there after how many evaluations."""

from __future__ import annotations

import numpy as np

from edgenas.records import HypervolumePoint
from edgenas.search.pareto import front, hypervolume
from edgenas.search.problem import Floats

POINTS = 40
MOST_OBJECTIVES = 4
"""Exact hypervolume slices along every further objective; more would take minutes."""


def hypervolume_over_evaluations(objectives: Floats, violations: Floats) -> tuple[HypervolumePoint, ...]:
    """The dominated share of the box that everything within the limits spans, at up to ``POINTS`` moments.

    Args:
        objectives: (N, M) in the order of evaluation, minimised; the first ``MOST_OBJECTIVES`` count.
        violations: (N,), 0 within the limits.
    """
    kept = violations <= 0
    if not kept.any():
        return ()
    values = objectives[:, :MOST_OBJECTIVES]
    low, high = values[kept].min(axis=0), values[kept].max(axis=0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    reference = np.full(values.shape[1], 1.0 + 1e-9)
    moments = np.unique(np.linspace(1, len(values), POINTS).astype(int))
    best = np.empty((0, values.shape[1]))
    found, before = [], 0
    for moment in moments:
        fresh = scaled[before:moment][kept[before:moment]]
        best = np.concatenate([best, fresh])
        best = best[front(best)]
        found.append(HypervolumePoint(evaluations=int(moment), hypervolume=hypervolume(best, reference)))
        before = moment
    return tuple(found)
