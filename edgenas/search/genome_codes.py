"""Genomes as rows of zeros and ones, in which a kernel can weigh every option by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgenas.search.problem import Floats, Genomes


class GenomeCodes:
    """One column an option (one-hot), then one a step between neighbouring options of a gene.

    The steps let options that stand close to each other in a gene's order be alike.

    Args:
        option_counts: options of every gene, (genes,).
    """

    def __init__(self, option_counts: Genomes) -> None:
        self.genes = len(option_counts)
        self.options = int(option_counts.sum())
        self._starts = np.cumsum(option_counts) - option_counts
        self._steps = _steps(option_counts, self._starts)
        self.kinds: npt.NDArray[np.intp] = np.repeat([0, 1], [self.options, len(self._steps)])
        """Of every column: 0 for an option, 1 for a step."""

    def encode(self, genomes: Genomes) -> Floats:
        """(N, columns) zeros and ones of genomes (N, genes)."""
        one_hot = np.zeros((len(genomes), self.options))
        one_hot[np.arange(len(genomes))[:, None], self._starts + genomes] = 1.0
        return np.hstack([one_hot, one_hot @ self._steps.T])

    def relaxed(self, probabilities: Floats) -> Floats:
        """(columns,) the mean code where options are drawn with ``probabilities`` (options,)."""
        return np.concatenate([probabilities, self._steps @ probabilities])

    def to_options(self, gradient: Floats) -> Floats:
        """(options,) the gradient by probabilities of what has ``gradient`` (columns,) by codes."""
        return np.asarray(gradient[: self.options] + gradient[self.options :] @ self._steps)


def _steps(option_counts: Genomes, starts: Genomes) -> Floats:
    """(steps, options): which options of a gene lie beyond each step of its order."""
    gene = np.repeat(np.arange(len(option_counts)), option_counts)
    place = np.arange(len(gene)) - starts[gene]
    beyond = (gene[:, None] == gene) & (place >= place[:, None])
    return np.asarray(beyond[place > 0], np.float64)
