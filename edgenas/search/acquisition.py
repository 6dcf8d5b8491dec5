"""Which of many predicted candidates are worth a dear evaluation: expected hypervolume improvement.

One objective is predicted with its uncertainty, the others are known (or hoped for). For every place
in the box of the others there is a best value of the predicted one so far; a candidate that is at
least as good as the place in the others is expected to lower it by so much. The improvement is the
mean over the places. With no other objective that is expected improvement.

Source: Emmerich et al., Hypervolume-based expected improvement, 2011 (the criterion); Ginsbourger et
al., Kriging is well-suited to parallelize optimization, 2010 (a batch that believes its own predictions).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgenas.search.pareto import Indices
from edgenas.search.problem import Floats

PLACES = 256
REACH = 4.0
"""How far the corner lies: near ones leave the fast end of a front out, far ones see little else."""


@dataclass(frozen=True)
class Predictions:
    """What is expected of N candidates.

    Attributes:
        quantiles: (N, Q) of the predicted objective, rising.
        median: (N,) of it.
        others: (N, M - 1) the other objectives.
    """

    quantiles: Floats
    median: Floats
    others: Floats


def choose_batch(
    predictions: Predictions, known: Floats, corner: Floats, size: int, *, rng: np.random.Generator
) -> Indices:
    """Picks ``size`` rows one after the other, each as if the earlier ones had come out as predicted.

    Args:
        predictions: of the candidates.
        known: (K, M) the front of what was evaluated, the predicted objective first.
        corner: (M,) what is just not worth having: improvements are counted to there.
        size: how many are wanted.
        rng: places the measuring points.
    """
    places = _places(known[:, 1:].min(axis=0), corner[1:], rng)
    inside = np.asarray((predictions.others[:, None, :] <= places).all(axis=2), np.float64)
    left = np.ones(len(predictions.median), bool)
    ceiling = float(corner[0]) if len(corner) > 1 else np.inf
    picked: list[int] = []
    for _ in range(min(size, len(left))):
        best_so_far = np.asarray(np.minimum(_best_at(places, known), ceiling))
        gain = improvement(predictions.quantiles, inside, best_so_far)
        if not (gain[left] > 0).any():  # nothing is hoped for any more: what falls short by least
            gain = -(predictions.quantiles[:, 0] - np.where(inside > 0, best_so_far, -np.inf).max(axis=1))
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        left[best] = False
        picked.append(best)
        believed = np.append(predictions.median[best], predictions.others[best])
        known = np.concatenate([known, believed[None]])
    return np.array(picked, np.intp)


def improvement(quantiles: Floats, inside: Floats, best_so_far: Floats) -> Floats:
    """(N,) expected improvements, as sums over the places.

    Args:
        quantiles: (N, Q) of the predicted objective.
        inside: (N, P) 1 where a candidate is at least as good as the place in the other objectives.
        best_so_far: (P,) the predicted objective's best value at every place.
    """
    levels, level = np.unique(best_so_far, return_inverse=True)
    by_level = inside @ (level[:, None] == np.arange(len(levels)))
    lowered = np.stack([np.maximum(one - quantiles, 0.0).mean(axis=1) for one in levels], axis=1)
    return np.asarray((by_level * lowered).sum(axis=1))


def _places(ideal: Floats, corner: Floats, rng: np.random.Generator) -> Floats:
    """(P, M - 1) points of the box, evenly spread along the first objective; one where M is 1."""
    if not len(ideal):
        return np.zeros((1, 0))
    drawn = rng.random((PLACES, len(ideal)))
    drawn[:, 0] = (np.arange(PLACES) + drawn[:, 0]) / PLACES
    return np.asarray(ideal + drawn * (corner - ideal))


def _best_at(places: Floats, known: Floats) -> Floats:
    """(P,) the least first objective among rows that are no worse than a place in the others."""
    reached = (known[:, None, 1:] <= places).all(axis=2)
    return np.asarray(np.where(reached, known[:, :1], np.inf).min(axis=0))


def corner_of(objectives: Floats, others: Floats) -> Floats:
    """(M,) what is just not worth having: the whole front counts, from its fastest network to its best.

    Where nothing accurate is fast enough, far less is still the most that can be had. The predicted
    objective's worst is therefore ``REACH`` times as far above the best as the median is, or as most
    candidates are: networks that do not learn at all move neither. The others' is the worst that the
    space offers.

    Args:
        objectives: (N, M) of what was evaluated, the predicted one first.
        others: (S, M - 1) the other objectives of candidates from all over the space.
    """
    best, median, ninth = np.quantile(objectives[:, 0], (0.0, 0.5, 0.9))
    worst = best + REACH * min(ninth - best, 2.0 * (median - best))
    return np.append(worst, others.max(axis=0))


def shortlist(medians: Floats, others: Floats, known: Floats, count: int) -> Indices:
    """Rows (at most ``count``) whose medians lie furthest below what is known for the same other objectives.

    Args:
        medians: (N,) of the predicted objective.
        others: (N, M - 1) other objectives.
        known: (K, M) the front of what was evaluated.
        count: how many rows the dear prediction is made for.
    """
    if len(medians) <= count:
        return np.arange(len(medians))
    excess = medians - np.minimum(_best_at(others, known), known[:, 0].max())
    return np.argpartition(excess, count)[:count]
