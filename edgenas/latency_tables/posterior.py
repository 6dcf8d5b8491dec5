"""The Bayesian linear regression that reconciles kernel times with the times of whole networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from edgenas.latency_tables.design import GROUPS, OVERHEAD, PRIOR_DEVIATIONS

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_NOISE_DEVIATION, _CONSTANT_DEVIATION = 0.01, 0.1
_NAMES = (*GROUPS, "noise", "constant")
_HYPERPRIOR_SD = 1.0  # of the logarithm of a deviation around its default
_JITTER = 1e-9
_ENOUGH_TO_CHOOSE = 300


@dataclass(frozen=True)
class Posterior:
    """Coefficients after seeing the networks.

    ``mean`` (D,) and ``prior_variance`` (D,) are of the coefficients, ``rows`` (N, D) the networks seen,
    ``factor`` (N, N) the lower Cholesky factor of their covariance and ``weights`` (N,) how much each
    pulls. Unexplained are a share ``noise`` of each latency and ``constant`` as much of each network,
    in units of the shortest kernel: where a session's memory lies costs a short network as much as a long
    one.
    """

    mean: Array
    prior_variance: Array
    rows: csr_array
    factor: Array
    noise: float
    constant: float
    deviations: dict[str, float]
    weights: Array

    def left_out(self) -> tuple[Array, Array]:
        """Residuals (N,) of the networks predicted from all others, and their standard deviations (N,).

        Source: Rasmussen and Williams (2006), eq. 5.12.
        """
        from scipy.linalg import cho_solve

        precision = np.diag(cho_solve((self.factor, True), np.eye(len(self.factor))))
        return self.weights / precision, 1.0 / np.sqrt(precision)

    def variance(self, rows: Array) -> Array:
        """Posterior variance of ``rows @ w`` for rows (M, D): (M,).

        Source: Rasmussen and Williams (2006), eq. 2.26.
        """
        from scipy.linalg import solve_triangular

        weighted = rows * self.prior_variance
        explained = solve_triangular(self.factor, self.rows @ weighted.T, lower=True)
        return np.asarray(np.maximum(np.sum(weighted * rows, axis=1) - np.sum(explained**2, axis=0), 0.0))


def solve(
    rows: csr_array,
    residual: Array,
    known_variance: Array,
    groups: Ints,
    *,
    deviations: dict[str, float] | None = None,
) -> Posterior:
    """Fits deviations by marginal likelihood, then the coefficients by Bayes' rule.

    Args:
        rows: networks' coefficients divided by their sums of guesses, (N, D).
        residual: measured latency over the sum of guesses, less 1, (N,).
        known_variance: relative variance of every network that is no coefficient's, (N,).
        groups: index of the prior deviation of every coefficient, (D,).
        deviations: taken as they are instead of fitted.

    Source: Rasmussen and Williams (2006), eq. 2.8, 5.4, 5.8 and 5.9.
    """
    from scipy.linalg import cho_solve

    log_deviations = (
        np.log(list(deviations.values()))
        if deviations
        else _most_likely_of_some(rows, residual, known_variance, groups)
    )
    variances = np.exp(2.0 * log_deviations)
    prior_variance = variances[groups]
    covariance = _gram(rows * np.sqrt(prior_variance))
    unexplained = variances[-2] + variances[-1] * _constants(rows)
    covariance[np.diag_indices_from(covariance)] += unexplained + known_variance + _JITTER
    factor = np.asarray(np.linalg.cholesky(covariance), np.float64)
    weights = np.asarray(cho_solve((factor, True), residual))
    return Posterior(
        mean=prior_variance * (rows.T @ weights),
        prior_variance=prior_variance,
        rows=rows,
        factor=factor,
        noise=float(np.sqrt(variances[-2])),
        constant=float(np.sqrt(variances[-1])),
        deviations=dict(zip(_NAMES, np.exp(log_deviations).tolist(), strict=True)),
        weights=weights,
    )


def _constants(rows: csr_array) -> Array:
    """Of each network the variance (N,) that one unit of time is, relative; 0 of a row without overhead."""
    return np.asarray(rows[:, [OVERHEAD]].toarray()[:, 0] ** 2)


def _gram(rows: csr_array) -> Array:
    return np.asarray((rows @ rows.T).toarray(), np.float64)


def _most_likely_of_some(rows: csr_array, residual: Array, known_variance: Array, groups: Ints) -> Array:
    """``_most_likely`` on as many networks as the deviations need; the time grows with their cube."""
    count = len(residual)
    some = np.linspace(0, count - 1, min(count, _ENOUGH_TO_CHOOSE)).astype(int)
    chosen = rows[some].tocsc()
    grams = np.stack([_gram(chosen[:, groups == index].tocsr()) for index in range(len(GROUPS))])
    diagonals = np.stack([np.ones(len(some)), _constants(rows)[some]])
    return _most_likely(grams, diagonals, residual[some], known_variance[some])


def _covariance(grams: Array, diagonals: Array, known_variance: Array, variances: Array) -> Array:
    covariance = np.tensordot(variances[: len(grams)], grams, axes=1)
    unexplained = variances[len(grams) :] @ diagonals
    covariance[np.diag_indices_from(covariance)] += unexplained + known_variance + _JITTER
    return np.asarray(covariance)


def _most_likely(grams: Array, diagonals: Array, residual: Array, known_variance: Array) -> Array:
    """Logarithms of the prior deviations and of both noises that make the residuals most likely.

    ``grams`` (G, N, N) are of the groups of coefficients, ``diagonals`` (2, N) of the noises.
    """
    from scipy.optimize import minimize

    start = np.log(np.array([*PRIOR_DEVIATIONS, _NOISE_DEVIATION, _CONSTANT_DEVIATION]))

    def loss(log_deviations: Array) -> tuple[float, Array]:
        variances = np.exp(2.0 * log_deviations)
        value, gradient = _negative_evidence(grams, diagonals, residual, known_variance, variances)
        pull = (log_deviations - start) / _HYPERPRIOR_SD
        return value + 0.5 * float(pull @ pull), gradient + pull / _HYPERPRIOR_SD

    bounds = [(value - 5.0, value + 5.0) for value in start]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    return np.asarray(found.x)


def _negative_evidence(
    grams: Array, diagonals: Array, residual: Array, known_variance: Array, variances: Array
) -> tuple[float, Array]:
    """Minus the log marginal likelihood and its gradient by the log deviations."""
    covariance = _covariance(grams, diagonals, known_variance, variances)
    sign, log_determinant = np.linalg.slogdet(covariance)
    if sign <= 0:
        return 1e12, np.zeros(len(variances))
    inverse = np.linalg.inv(covariance)
    alpha = inverse @ residual
    value = 0.5 * float(residual @ alpha) + 0.5 * float(log_determinant)
    outer = inverse - np.outer(alpha, alpha)
    by_variance = np.concatenate([np.tensordot(grams, outer, axes=2), diagonals @ np.diag(outer)])
    return value, by_variance * variances
