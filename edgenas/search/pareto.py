"""Pareto order under hard limits, crowding, fronts and hypervolume. All objectives are minimised."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgenas.search.problem import Floats

Indices = npt.NDArray[np.intp]


def dominates(first: Floats, second: Floats) -> npt.NDArray[np.bool_]:
    """(N, M) against (K, M): whether row i of ``first`` dominates row j of ``second``, (N, K)."""
    no_worse = np.ones((len(first), len(second)), bool)
    better = np.zeros_like(no_worse)
    for a, b in zip(first.T, second.T, strict=True):
        no_worse &= a[:, None] <= b
        better |= a[:, None] < b
    return no_worse & better


def constraint_dominates(
    first: Floats, first_violations: Floats, second: Floats, second_violations: Floats
) -> npt.NDArray[np.bool_]:
    """Domination where a limit stands above every objective.

    A feasible row dominates every infeasible one, of two infeasible ones the lesser violation
    dominates, and objectives decide among feasible ones. Returns (N, K).

    Source: Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002, VI.A.
    """
    ours, theirs = first_violations[:, None], second_violations[None, :]
    both_feasible = (ours <= 0) & (theirs <= 0)
    return np.where(both_feasible, dominates(first, second), ours < theirs)


def front(objectives: Floats) -> Indices:
    """Row numbers of the Pareto front of (N, M), by the first objective; one of equal rows."""
    if not len(objectives):
        return np.zeros(0, np.intp)
    if objectives.shape[1] == 1:
        return np.asarray(np.argmin(objectives[:, 0], keepdims=True))
    if objectives.shape[1] == 2:
        order = np.lexsort((objectives[:, 1], objectives[:, 0]))
        second = objectives[order, 1]
        return np.asarray(order[second < np.append(np.inf, np.minimum.accumulate(second)[:-1])])
    _, first = np.unique(objectives, axis=0, return_index=True)
    kept: list[int] = []
    found = np.empty((0, objectives.shape[1]))
    for start in range(0, len(first), 512):  # blocks bound the memory of the comparison
        block = first[start : start + 512]
        values = objectives[block]
        alive = ~dominates(found, values).any(axis=0) & ~dominates(values, values).any(axis=0)
        kept += block[alive].tolist()
        found = objectives[kept]
    return np.array(kept, np.intp)  # rows are sorted, so no later row dominates an earlier one


def ranks(objectives: Floats) -> npt.NDArray[np.int64]:
    """Number of the front that each row belongs to, 0 the best, (N,)."""
    result = np.zeros(len(objectives), np.int64)
    if objectives.shape[1] == 1:
        result[:] = np.unique(objectives[:, 0], return_inverse=True)[1]
        return result
    beaten_by = dominates(objectives, objectives)
    left = beaten_by.sum(axis=0)
    waiting = np.ones(len(objectives), bool)
    rank = 0
    while waiting.any():
        current = waiting & (left == 0)
        result[current] = rank
        waiting &= ~current
        left = left - beaten_by[current].sum(axis=0)
        rank += 1
    return result


def crowding(objectives: Floats, rank: npt.NDArray[np.int64]) -> Floats:
    """Perimeter of the box that the neighbours on the same front span; the ends are infinite.

    Source: Deb et al. 2002, III.B.
    """
    result = np.zeros(len(objectives))
    if not len(objectives):
        return result
    span = np.maximum(np.ptp(objectives, axis=0), 1e-12)
    for column in range(objectives.shape[1]):
        order = np.lexsort((objectives[:, column], rank))
        values, group = objectives[order, column] / span[column], rank[order]
        edge = np.ones(len(order) + 1, bool)
        edge[1:-1] = group[1:] != group[:-1]
        gap = np.full(len(order), np.inf)
        inner = ~(edge[:-1] | edge[1:])
        where = np.flatnonzero(inner)
        gap[where] = values[where + 1] - values[where - 1]
        result[order] += gap
    return result


def best_first(objectives: Floats, violations: Floats) -> Indices:
    """Row numbers from the best to the worst: violation, then front, then crowding."""
    if objectives.shape[1] == 1:
        return np.lexsort((objectives[:, 0], violations))
    rank = np.zeros(len(objectives), np.int64)
    spread = np.zeros(len(objectives))
    feasible = violations <= 0
    rank[feasible] = ranks(objectives[feasible])
    spread[feasible] = crowding(objectives[feasible], rank[feasible])
    return np.lexsort((-spread, rank, violations))


def hypervolume(objectives: Floats, reference: Floats) -> float:
    """Volume that the rows (N, M) dominate below ``reference`` (M,)."""
    inside = objectives[(objectives < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    return _slices(inside[front(inside)], np.asarray(reference, np.float64))


def _slices(points: Floats, reference: Floats) -> float:
    """Hypervolume by slicing along the last objective: exact, for fronts of some hundred points."""
    if points.shape[1] == 1:
        return float(reference[0] - points[:, 0].min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    depth = np.diff(np.append(points[:, -1], reference[-1]))
    if points.shape[1] == 2:
        width = reference[0] - np.minimum.accumulate(points[:, 0])
        return float(width @ depth)
    volume = 0.0
    for count in range(1, len(points) + 1):
        if depth[count - 1] > 0:
            below = points[:count, :-1]
            volume += float(depth[count - 1]) * _slices(below[front(below)], reference[:-1])
    return volume
