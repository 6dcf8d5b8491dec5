"""Which networks of a space are worth training under a latency limit."""

from __future__ import annotations

import numpy as np

from edgenas.pipeline.latency import SpaceLatency
from edgenas.pipeline.search_reach import way_to_the_least
from edgenas.search.problem import Floats, Problem
from edgenas.search_spaces import Genomes, SearchSpace

_POOL, _FEWEST, _DRAWN = 4096, 64, 1 << 17
_FLOOR = 0.6  # of the slowest network within the limit: what is faster leaves too much of it unused


def networks_near(space: SearchSpace, latency: SpaceLatency, limit_ms: float, *, seed: int) -> Genomes:
    """Up to 4,096 different genomes (N, genes) that are predicted to take just less than the limit.

    They are drawn at random, the largest network beside them. Where the limit is so tight that hardly
    any of these keeps it, what evolution looks at on its way to the fastest network comes in addition.

    Args:
        space: where the genomes come from.
        latency: predicted ms of genomes of the space.
        limit_ms: the limit; some network must keep it.
        seed: of what is drawn.
    """
    sampled = space.sample(np.random.default_rng([seed, 2]), _DRAWN)
    drawn = np.concatenate([space.largest()[None], sampled])
    latencies_ms = latency(drawn)
    if np.count_nonzero(latencies_ms <= limit_ms) < _FEWEST:
        drawn, latencies_ms = _by_latency_alone(space, latency, seed)
    slowest_ms = latencies_ms[latencies_ms <= limit_ms].max()
    near = drawn[(latencies_ms >= _FLOOR * slowest_ms) & (latencies_ms <= limit_ms)]
    _, first = np.unique(near, axis=0, return_index=True)
    pool: Genomes = near[np.sort(first)[:_POOL]]
    return pool


def _by_latency_alone(space: SearchSpace, latency: SpaceLatency, seed: int) -> tuple[Genomes, Floats]:
    """What evolution looks at on its way to the fastest network: genomes (N, genes) and their ms (N,)."""
    only = Problem(space, objectives=("latency_ms",), metrics={"latency_ms": latency})
    seen = way_to_the_least(only, seed)
    return seen.genomes, seen.objectives[:, 0]
