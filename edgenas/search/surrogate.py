"""A Gaussian process over genomes: what few dear evaluations say about the ones not made."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy.linalg import cho_solve, solve_triangular
from scipy.special import ndtri

from edgenas.search.genome_codes import GenomeCodes
from edgenas.search.problem import Floats, Genomes
from edgenas.search.warping import STRENGTHS, Warping

FEATURE_KIND, KINDS = 2, 3
START = (1.0, 0.3, 1.0)
"""Weight that a difference has at first, by kind of column, shared by the genes.

Features share it once more, so that many of them say no more at first than one.
"""
START_NOISE = 1e-2
LEVEL_SPREAD, NOISE_SPREAD, COLUMN_SPREAD = 1.5, 2.0, 0.7
"""Deviations of the normal priors: of a kind's level, of the noise, of a column about its kind."""
NOISE_RANGE = (1e-6, 1.0)
GROWTH = 1.2
"""Hyper-parameters are fitted again when the data have grown by so much."""
ITERATIONS = 60
CHUNK = 4096
ALIKE = 1e-9
"""A feature's deviation, as a share of its mean, up to which all data have the same one."""
QUANTILES = ndtri((np.arange(12) + 0.5) / 12)
"""Standard normal quantiles that stand for a whole prediction."""


class GaussianProcess:
    """Gaussian process with the kernel s^2 exp(-sum over columns of weight x squared difference) + noise.

    Every option, every step between options and every feature has a weight of its own. Weights are
    drawn towards their kind's common level, so that few data speak of few things. They and the noise
    maximise the posterior, s^2 has a closed form, and targets are warped as is likeliest.

    Args:
        option_counts: options of every gene, (genes,).
        features: how many numbers stand beside a genome.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, 2.2 and 5.4.1;
    Snelson et al., Warped Gaussian processes, 2003.
    """

    def __init__(self, option_counts: Genomes, features: int = 0) -> None:
        self._codes = GenomeCodes(option_counts)
        self._kinds = np.concatenate([self._codes.kinds, np.full(features, FEATURE_KIND)])
        self._prior = _Prior(self._kinds, self._codes.genes)
        self._theta = self._prior.mode.copy()
        self._strength = 1.0
        self._fitted_to = 0

    def fit(self, genomes: Genomes, targets: Floats, features: Floats | None = None) -> None:
        """Takes in what was evaluated, replacing what was there.

        Args:
            genomes: (N, genes).
            targets: (N,), the less the better.
            features: (N, features) numbers that are known of any genome.
        """
        self._centre, self._scale = _standard(features)
        columns = self._columns(genomes, features)
        if len(targets) >= GROWTH * self._fitted_to:
            self._learn(columns, targets)
            self._fitted_to = len(targets)
        self._warping = Warping.of(targets, self._strength)
        warped = self._warping.forward(targets)
        self._roots = np.sqrt(self._prior.weights(self._theta))
        self._data, self._noise = columns * self._roots, self._prior.noise(self._theta)
        kernel = _kernel(self._data, self._data)
        kernel[np.diag_indices_from(kernel)] += self._noise
        self._cholesky = np.linalg.cholesky(kernel)
        self._pulls = cho_solve((self._cholesky, True), warped)
        self._variance = float(warped @ self._pulls) / len(targets)

    def state(self) -> dict[str, Any]:
        """What the next ``fit`` depends on beside its data."""
        return {"fitted_to": self._fitted_to, "strength": self._strength, "theta": self._theta.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what ``state`` gave."""
        self._fitted_to, self._strength = int(state["fitted_to"]), float(state["strength"])
        self._theta = np.array(state["theta"])

    def median(self, genomes: Genomes, features: Floats | None = None) -> Floats:
        """Predicted targets (N,)."""
        chunks = range(0, len(genomes), CHUNK)
        parts = [self._warped_mean(self._scaled(genomes, features, at)) for at in chunks]
        return self._warping.backward(np.concatenate([np.zeros(0), *parts]))

    def quantiles(self, genomes: Genomes, features: Floats | None = None) -> Floats:
        """(N, len(QUANTILES)) of what an evaluation would show, its noise included, rising."""
        parts = [
            self._warped_quantiles(self._scaled(genomes, features, at))
            for at in range(0, len(genomes), CHUNK)
        ]
        return self._warping.backward(np.concatenate([np.zeros((0, len(QUANTILES))), *parts]))

    def relaxed_gradient(self, probabilities: Floats) -> Floats:
        """The gradient of the median by the probabilities (options,) with which options are drawn.

        A squared difference of zeros and ones is linear in either, so its mean over draws is exact.
        """
        weights = self._roots**2
        codes = self._data / self._roots
        slopes = weights * (1.0 - 2.0 * codes)
        code = self._codes.relaxed(probabilities)
        similarity = np.exp(-(slopes @ code + codes @ weights))
        mean = float(similarity @ self._pulls)
        steepness = float(self._warping.slope(np.array(mean)))
        return self._codes.to_options(-steepness * ((self._pulls * similarity) @ slopes))

    def _learn(self, columns: Floats, targets: Floats) -> None:
        """Fits the hyper-parameters, then the warping to them, and them to the warping."""
        if self._fitted_to == 0:
            self._maximise(columns, targets)
        self._strength = min(STRENGTHS, key=lambda one: self._cost(columns, targets, one))
        self._maximise(columns, targets)

    def _maximise(self, columns: Floats, targets: Floats) -> None:
        """Always from the prior: what the first few data made likely must not keep its maximum for good."""
        warped = Warping.of(targets, self._strength).forward(targets)
        found = optimize.minimize(
            _loss, self._prior.mode, args=(columns, warped, self._prior), jac=True, method="L-BFGS-B",
            bounds=self._prior.bounds, options={"maxiter": ITERATIONS},
        )  # fmt: skip
        self._theta = found.x

    def _cost(self, columns: Floats, targets: Floats, strength: float) -> float:
        warping = Warping.of(targets, strength)
        return _loss(self._theta, columns, warping.forward(targets), self._prior)[0] + warping.cost(targets)

    def _columns(self, genomes: Genomes, features: Floats | None) -> Floats:
        codes = self._codes.encode(genomes)
        return codes if features is None else np.hstack([codes, (features - self._centre) / self._scale])

    def _scaled(self, genomes: Genomes, features: Floats | None, start: int) -> Floats:
        rows = slice(start, start + CHUNK)
        return self._columns(genomes[rows], None if features is None else features[rows]) * self._roots

    def _warped_mean(self, scaled: Floats) -> Floats:
        return np.asarray(_kernel(scaled, self._data) @ self._pulls)

    def _warped_quantiles(self, scaled: Floats) -> Floats:
        cross = _kernel(scaled, self._data)
        explained = (solve_triangular(self._cholesky, cross.T, lower=True) ** 2).sum(axis=0)
        variance = self._variance * np.maximum(1.0 + self._noise - explained, 1e-9)
        return np.asarray((cross @ self._pulls)[:, None] + np.sqrt(variance)[:, None] * QUANTILES)


class _Prior:
    """What hyper-parameters are expected to be: levels by kind, noise, columns; all logarithms."""

    def __init__(self, kinds: npt.NDArray[np.intp], genes: int) -> None:
        self.kinds = kinds
        levels = np.array(START) / genes
        levels[FEATURE_KIND] /= max(int((kinds == FEATURE_KIND).sum()), 1)
        self.mode = np.concatenate([np.log(levels), [np.log(START_NOISE)], np.zeros(len(kinds))])
        spreads = [*[LEVEL_SPREAD] * KINDS, NOISE_SPREAD, *[COLUMN_SPREAD] * len(kinds)]
        self._precision = 1.0 / np.square(spreads)
        low, high = np.log(NOISE_RANGE)
        self.bounds = [(-9.0, 5.0)] * KINDS + [(low, high)] + [(-4.0, 4.0)] * len(kinds)

    def weights(self, theta: Floats) -> Floats:
        return np.exp(theta[self.kinds] + theta[KINDS + 1 :])

    def noise(self, theta: Floats) -> float:
        return float(np.exp(theta[KINDS]))

    def loss(self, theta: Floats) -> tuple[float, Floats]:
        away = theta - self.mode
        return float(0.5 * self._precision @ away**2), self._precision * away


def _loss(theta: Floats, columns: Floats, warped: Floats, prior: _Prior) -> tuple[float, Floats]:
    """Negative log posterior up to a constant, s^2 at its maximum, and its gradient."""
    n, weights, noise = len(warped), prior.weights(theta), prior.noise(theta)
    scaled = columns * np.sqrt(weights)
    similarity = _kernel(scaled, scaled)
    loss, gradient = prior.loss(theta)
    try:
        root = np.linalg.cholesky(similarity + noise * np.eye(n))
    except np.linalg.LinAlgError:  # the line search steps back
        return 1e10, gradient
    inverse = cho_solve((root, True), np.eye(n))
    pulls = inverse @ warped
    variance = float(warped @ pulls) / n
    loss += 0.5 * n * float(np.log(variance + 1e-300)) + float(np.log(np.diag(root)).sum())
    slope = inverse - np.outer(pulls, pulls) / (variance + 1e-300)
    pressed = slope * similarity
    by_weight = (columns**2).T @ pressed.sum(axis=1) - np.einsum("nf,nf->f", columns, pressed @ columns)
    by_column = -weights * by_weight
    gradient[:KINDS] += np.bincount(prior.kinds, by_column, KINDS)
    gradient[KINDS] += 0.5 * noise * float(np.trace(slope))
    gradient[KINDS + 1 :] += by_column
    return loss, gradient


def _kernel(first: Floats, second: Floats) -> Floats:
    """exp(-squared distance), (N, K), of columns that are weighted already."""
    distance = first @ (2.0 * second.T)
    distance -= (first**2).sum(axis=1)[:, None]
    distance -= (second**2).sum(axis=1)
    return np.asarray(np.exp(np.minimum(distance, 0.0, out=distance), out=distance))


def _standard(features: Floats | None) -> tuple[Floats, Floats]:
    if features is None:
        return np.zeros(0), np.ones(0)
    centre, scale = features.mean(axis=0), features.std(axis=0)
    told = scale > ALIKE * (1.0 + np.abs(centre))
    return centre, np.where(told, scale, np.inf)  # of one value nothing can be learnt about others
