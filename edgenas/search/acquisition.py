"""Which of many predicted candidates are worth a dear evaluation: a diverse batch of promising ones."""

from __future__ import annotations

import numpy as np

from edgenas.search.pareto import Indices, dominates, front
from edgenas.search.problem import Floats

MONTE_CARLO_POINTS = 4096


def improvement(points: Floats, known_front: Floats, rng: np.random.Generator) -> Floats:
    """Hypervolume (N,) that each point alone would add to a front inside the unit box.

    Exact for one and two objectives, by random points in the box for more.

    Args:
        points: (N, M), minimised, scaled so that the reference is at 1.
        known_front: (K, M), non-dominated, same scale.
        rng: for three objectives and more.
    """
    if points.shape[1] == 1:
        return np.asarray(np.maximum(min(known_front[:, 0].min(), 1.0) - points[:, 0], 0.0))
    if points.shape[1] == 2:
        return _strips(points, known_front)
    box = rng.random((MONTE_CARLO_POINTS, points.shape[1]))
    open_box = box[~dominates(known_front, box).any(axis=0)]
    return np.asarray(dominates(points, open_box).sum(axis=1) / MONTE_CARLO_POINTS)


def _strips(points: Floats, known_front: Floats) -> Floats:
    """Between neighbours of the front lies a strip of constant height: sum what a point cuts off."""
    ordered = known_front[np.argsort(known_front[:, 0])]
    left = np.append(-np.inf, ordered[:, 0])
    right = np.append(ordered[:, 0], 1.0)
    top = np.append(1.0, np.minimum(ordered[:, 1], 1.0))
    width = np.maximum(np.minimum(right, 1.0) - np.maximum(left, points[:, :1]), 0.0)
    height = np.maximum(top - points[:, 1:], 0.0)
    return np.asarray((width * height).sum(axis=1))


def choose_batch(
    means: Floats,
    deviations: Floats,
    known: Floats,
    worst: Floats,
    size: int,
    *,
    rng: np.random.Generator,
) -> Indices:
    """Picks ``size`` rows one after the other, each as if the earlier ones had come out as predicted.

    Every pick believes its own share of luck: a half-normal number of standard deviations. One
    batch therefore holds safe and daring candidates.

    Args:
        means: (N, M) predicted objectives, minimised.
        deviations: (N, M) standard deviations, 0 where the objective is known.
        known: (K, M) the front of what was evaluated.
        worst: (M,) what is just not worth having: the corner that improvements are counted to. The
            front's own ends would make every better end worthless.

    Source: Ginsbourger et al., Kriging is well-suited to parallelize optimization, 2010 (believer).
    """
    ideal = known.min(axis=0)
    span = np.maximum(1.1 * (worst - ideal), 1e-9)
    single = means.shape[1] == 1
    left = np.ones(len(means), bool)
    picked: list[int] = []
    for _ in range(min(size, len(means))):
        hopeful = means - abs(rng.normal()) * deviations
        scaled = (hopeful - ideal) / span
        gain = -hopeful[:, 0] if single else improvement(scaled, (known - ideal) / span, rng)
        gain = np.where(left, gain, -np.inf)
        best = int(np.argmax(gain))
        if not single and gain[best] <= 0:
            best = int(np.argmin(np.where(left, scaled.max(axis=1), np.inf)))
        left[best] = False
        picked.append(best)
        believed = np.concatenate([known, means[best : best + 1]])
        known = believed[front(believed)]
    return np.array(picked, np.intp)
