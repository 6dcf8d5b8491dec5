"""The first candidates of a search that can afford few: spread over what is known, and over the options."""

from __future__ import annotations

import numpy as np

from edgenas.search.problem import Floats, Genomes
from edgenas.search.variation import Variation

DRAWN_FOR_EACH = 40


def spread_sample(variation: Variation, n: int) -> Genomes:
    """About ``n`` genomes within the limits, from the fastest to the slowest, their options balanced.

    A larger random sample is cut into ``n`` layers along the first objective that a metric knows (one
    layer where none does). Each layer gives the genome whose options were taken least so far; the
    first and the last one give their ends, which bound every front.

    Args:
        variation: draws the sample.
        n: how many are wanted.
    """
    drawn = np.unique(variation.sample_by_rejection(DRAWN_FOR_EACH * n), axis=0)
    drawn = variation.rng.permutation(drawn, axis=0)
    along = _known_objective(variation, drawn)
    ordered = drawn if along is None else drawn[np.argsort(along, kind="stable")]
    layers = np.array_split(np.arange(len(ordered)), min(n, len(ordered)))
    if along is not None and len(layers) > 1:
        layers[0], layers[-1] = layers[0][:1], layers[-1][-1:]
    taken = np.zeros((len(variation.counts), int(variation.counts.max(initial=1))))
    genes = np.arange(len(variation.counts))
    picked = []
    for layer in variation.rng.permutation(len(layers)):
        rows = layers[layer]
        familiar = taken[genes, ordered[rows]].sum(axis=1)
        picked.append(int(rows[np.argmin(familiar)]))
        taken[genes, ordered[picked[-1]]] += 1
    return ordered[picked]


def _known_objective(variation: Variation, genomes: Genomes) -> Floats | None:
    problem = variation.problem
    known = [name for name in problem.objectives if name in problem.metrics]
    return problem.metrics[known[0]](genomes) if known else None
