"""One number for several objectives: what strategies of a single reward climb."""

from __future__ import annotations

import numpy as np

from edgenas.search.problem import Floats


def random_weights(rng: np.random.Generator, objectives: int, n: int) -> Floats:
    """(n, objectives) weights that sum to 1, spread evenly; all 1 for one objective."""
    return np.asarray(rng.dirichlet(np.ones(objectives), n))


def losses(objectives: Floats, weights: Floats) -> Floats:
    """(N,) the largest weighted objective and a little of their sum, each scaled to 0..1 over the rows.

    Any point of the front, also in its dents, is the best under some weights.

    Args:
        objectives: (N, M), minimised.
        weights: (M,), their sum is 1.

    Source: Knowles, ParEGO: a hybrid algorithm with on-line landscape approximation, 2006.
    """
    low = objectives.min(axis=0)
    high = np.quantile(objectives, 0.9, axis=0)  # a few hopeless rows do not set the scale
    scaled = np.minimum((objectives - low) / np.maximum(high - low, 1e-12), 2.0) * weights
    return np.asarray(scaled.max(axis=1) + 0.05 * scaled.sum(axis=1))
