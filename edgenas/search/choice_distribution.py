"""One categorical distribution a gene, as logits: what a controller or architecture weights are."""

from __future__ import annotations

import numpy as np

from edgenas.search.problem import Floats, Genomes


class ChoiceDistribution:
    """Logits (options of all genes in a row) and what can be done with them.

    Args:
        counts: options of every gene, (genes,).
    """

    def __init__(self, counts: Genomes) -> None:
        self.counts = counts
        self.starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self.logits = np.zeros(int(counts.sum()))

    def probabilities(self, logits: Floats | None = None) -> Floats:
        """(options,) the softmax of every gene's logits."""
        values = self.logits if logits is None else logits
        peak = np.maximum.reduceat(values, self.starts)
        grown = np.exp(values - np.repeat(peak, self.counts))
        return np.asarray(grown / np.repeat(np.add.reduceat(grown, self.starts), self.counts))

    def sample(self, rng: np.random.Generator, n: int, probabilities: Floats) -> Genomes:
        """(n, genes) drawn gene by gene."""
        genes = np.split(probabilities, self.starts[1:])
        drawn = [np.minimum((rng.random((n, 1)) > np.cumsum(p)).sum(axis=1), len(p) - 1) for p in genes]
        return np.stack(drawn, axis=1).astype(np.int64)

    def one_hot(self, genomes: Genomes) -> Floats:
        """(N, options) of genomes (N, genes)."""
        result = np.zeros((len(genomes), len(self.logits)))
        result[np.arange(len(genomes))[:, None], self.starts + genomes] = 1.0
        return result

    def through_softmax(self, probabilities: Floats, gradient: Floats) -> Floats:
        """The gradient by the logits of what has ``gradient`` by the probabilities."""
        weighted = probabilities * gradient
        inner = np.repeat(np.add.reduceat(weighted, self.starts), self.counts)
        return np.asarray(weighted - probabilities * inner)

    def entropy_gradient(self, probabilities: Floats) -> Floats:
        """The gradient by the logits of the sum of the genes' entropies."""
        return self.through_softmax(probabilities, -np.log(np.maximum(probabilities, 1e-12)))
