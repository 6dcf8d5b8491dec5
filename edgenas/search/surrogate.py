"""A Gaussian process over genomes: what few dear evaluations say about the ones not made."""

from __future__ import annotations

import itertools

import numpy as np

from edgenas.search.problem import Floats, Genomes

CATEGORICAL = (0.5, 1.0, 2.0, 4.0, 8.0)
ORDINAL = (0.0, 1.0, 4.0)
NOISE = (1e-4, 1e-3, 1e-2, 0.05, 0.15)


class GenomeDistances:
    """Distances between genomes, by gene, in one matrix product each.

    Two genomes differ by the share of genes that differ, and by the mean distance of their options
    along the gene's order; both are 0..1.
    """

    def __init__(self, option_counts: Genomes) -> None:
        self._counts = option_counts
        self._starts = np.concatenate([[0], np.cumsum(option_counts)[:-1]])
        self.genes = len(option_counts)
        self.steps = _steps(option_counts)

    def encode(self, genomes: Genomes) -> tuple[Floats, Floats]:
        """One-hot (N, options) and weighted thermometer (N, steps) codes of genomes."""
        n = len(genomes)
        one_hot = np.zeros((n, int(self._counts.sum())))
        one_hot[np.arange(n)[:, None], self._starts + genomes] = 1.0
        return one_hot, one_hot @ self.steps.T

    def between(self, first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        """(N, K) shares of differing genes and mean ordinal distances."""
        genes = len(self._counts)
        differing = 1.0 - first[0] @ second[0].T / genes
        a, b = first[1], second[1]
        ordinal = ((a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * (a @ b.T)) / genes
        return differing, np.maximum(ordinal, 0.0)

    def similarity(
        self, first: tuple[Floats, Floats], second: tuple[Floats, Floats], a: float, b: float
    ) -> Floats:
        """exp(-a differing - b ordinal), (N, K), in one matrix product and one array."""
        share = 1.0 / len(self._counts)
        left = np.hstack([first[0] * (a * share), first[1] * (2.0 * b * share)])
        result = left @ np.hstack(second).T
        result -= a + b * share * (first[1] ** 2).sum(axis=1)[:, None]
        result -= b * share * (second[1] ** 2).sum(axis=1)
        return np.asarray(np.exp(result, out=result))


class GaussianProcess:
    """Gaussian process with the kernel s^2 exp(-a differing - b ordinal) plus noise.

    a, b and the noise maximise the likelihood over a small grid, s^2 has a closed form. The grid is
    walked again only when the data have grown by half: O(75 n^3) then, O(n^3) otherwise.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, 2.2 and 5.4.1.
    """

    def __init__(self, option_counts: Genomes) -> None:
        self._distances = GenomeDistances(option_counts)
        self._fitted_to = 0
        self._parameters = (2.0, 0.0, 1e-2)

    def fit(self, genomes: Genomes, targets: Floats) -> None:
        """Takes in genomes (N, genes) and targets (N,), replacing what was there."""
        self._codes = self._distances.encode(genomes)
        self._centre, self._scale = float(targets.mean()), float(targets.std()) + 1e-12
        normal = (targets - self._centre) / self._scale
        differing, ordinal = self._distances.between(self._codes, self._codes)
        if len(targets) >= 1.5 * self._fitted_to:
            self._fitted_to = len(targets)
            grid = itertools.product(CATEGORICAL, ORDINAL, NOISE)
            self._parameters = max(
                grid, key=lambda p: _log_likelihood(_kernel(differing, ordinal, p), normal)
            )
        kernel = _kernel(differing, ordinal, self._parameters)
        self._inverse = np.linalg.inv(kernel)
        self._weights = self._inverse @ normal
        self._variance = float(normal @ self._weights) / len(targets)

    def state(self) -> list[float]:
        """What the next ``fit`` depends on beside its data."""
        return [float(self._fitted_to), *self._parameters]

    def restore(self, state: list[float]) -> None:
        """Takes back what ``state`` gave."""
        self._fitted_to = int(state[0])
        self._parameters = (state[1], state[2], state[3])

    def mean(self, genomes: Genomes) -> Floats:
        """Predicted targets (N,)."""
        return self._centre + self._scale * (self._cross(genomes) @ self._weights)

    def relaxed_gradient(self, probabilities: Floats) -> Floats:
        """The gradient of the mean by the one-hot codes, at codes between 0 and 1.

        Args:
            probabilities: (options,) of all genes in a row, each gene's sum is 1.
        """
        a, b, _ = self._parameters
        one_hot, steps = self._codes
        thermometer = self._distances.steps @ probabilities
        genes = self._distances.genes
        away = thermometer - steps
        similarity = np.exp(-a * (1.0 - one_hot @ probabilities / genes) - b * (away**2).sum(axis=1) / genes)
        pull = (self._scale * self._weights * similarity) / genes
        return np.asarray(a * (pull @ one_hot) - 2.0 * b * (pull @ away) @ self._distances.steps)

    def deviation(self, genomes: Genomes) -> Floats:
        """Standard deviation (N,) of what an evaluation would show, its noise included."""
        cross = self._cross(genomes)
        explained = np.einsum("ij,ij->i", cross @ self._inverse, cross)
        variance = self._variance * np.maximum(1.0 + self._parameters[2] - explained, 1e-9)
        return np.asarray(self._scale * np.sqrt(variance))

    def _cross(self, genomes: Genomes) -> Floats:
        a, b, _ = self._parameters
        return self._distances.similarity(self._distances.encode(genomes), self._codes, a, b)


def _steps(option_counts: Genomes) -> Floats:
    """(steps, options): which options of a gene lie beyond each step of its order, weighted."""
    blocks = [np.tri(max(count - 1, 1), count, k=0).astype(np.float64) for count in option_counts.tolist()]
    return block_diag([(1.0 - block) / np.sqrt(len(block)) for block in blocks])


def block_diag(blocks: list[Floats]) -> Floats:
    """The blocks along the diagonal of one matrix."""
    result = np.zeros((sum(len(block) for block in blocks), sum(block.shape[1] for block in blocks)))
    row = column = 0
    for block in blocks:
        result[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return result


def _kernel(differing: Floats, ordinal: Floats, parameters: tuple[float, float, float]) -> Floats:
    a, b, noise = parameters
    kernel = np.exp(-a * differing - b * ordinal)
    kernel[np.diag_indices_from(kernel)] += noise
    return kernel


def _log_likelihood(kernel: Floats, normal: Floats) -> float:
    """Marginal log likelihood up to a constant, the scale at its maximum."""
    root = np.linalg.cholesky(kernel)
    white = np.linalg.solve(root, normal)
    scale = float(white @ white) / len(normal)
    return -0.5 * len(normal) * float(np.log(scale + 1e-300)) - float(np.log(np.diag(root)).sum())
