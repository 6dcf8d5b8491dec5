"""A new device from few measurements: the mixture of known devices that fits, and what is left over.

The latency of a network on the new device is a non-negative mixture of its latencies on donor devices
and of how often each operation stands in it, plus a smooth function of the network's make-up. The
mixture comes from non-negative least squares, the rest from a Gaussian process whose strength the few
measurements decide.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_DONOR_SHRINKAGE = 0.1  # of the mixture towards equal parts of all donors
_COUNT_SHRINKAGE = 0.005  # of what an operation adds on this device alone towards nothing
_AMPLITUDES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of what no mixture explains, relative to the mean latency
_NOISES = (0.01, 0.03, 0.1)
_QUANTILE = 1.645  # 90 % of a normal distribution
_COMPONENTS = 3  # of the donors' log-latencies, that hold nearly all of what sets networks apart


@dataclass(frozen=True)
class Networks:
    """What is known about networks before the new device is asked.

    ``donors_ms`` (N, D) are latencies on donors, measured or predicted; ``counts`` (N, C) how often each
    operation stands in the network; ``features`` (N, F) its make-up in numbers of about unit variance.
    """

    donors_ms: Array
    counts: Array
    features: Array

    def at(self, indices: Ints) -> Networks:
        """Some of the networks."""
        return Networks(self.donors_ms[indices], self.counts[indices], self.features[indices])


@dataclass(frozen=True)
class Transfer:
    """A new device as a mixture and a correction. Made by ``fit``.

    ``weights`` are of the donors, the counts and a constant, all scaled; ``leave_one_out_ms`` (N,) are
    the errors of the networks that were measured, each predicted without itself.
    """

    weights: Array
    donor_scale: Array
    count_scale: float
    scale: float
    features: Array
    alpha: Array
    inverse: Array
    amplitude: float
    noise: float
    leave_one_out_ms: Array

    @classmethod
    def fit(cls, networks: Networks, latency_ms: Array) -> Transfer:
        """Fits to the few networks that were measured on the new device, (N,) in ms."""
        fitted = cls._fit(networks, latency_ms)
        count = len(latency_ms)
        left_out = np.empty(count)
        for index in range(count):
            kept = np.delete(np.arange(count), index)
            predicted, _ = cls._fit(networks.at(kept), latency_ms[kept]).predict(
                networks.at(np.array([index]))
            )
            left_out[index] = latency_ms[index] - predicted[0]
        return replace(fitted, leave_one_out_ms=left_out)

    @classmethod
    def _fit(cls, networks: Networks, latency_ms: Array) -> Transfer:
        donor_scale, scale = networks.donors_ms.mean(axis=0), float(latency_ms.mean())
        count_scale = float(max(networks.counts.sum(axis=1).mean(), 1.0))
        columns = _columns(networks, donor_scale, count_scale)
        weights = _mixture(columns, latency_ms / scale, networks.donors_ms.shape[1])
        residual = latency_ms / scale - columns @ weights
        options = [
            _solve(networks.features, residual, *choice) for choice in itertools.product(_AMPLITUDES, _NOISES)
        ]
        best = max(options, key=lambda option: option.evidence)
        return cls(
            weights, donor_scale, count_scale, scale, networks.features,
            best.alpha, best.inverse, best.amplitude, best.noise, np.zeros(0),
        )  # fmt: skip

    def predict(self, networks: Networks) -> tuple[Array, Array]:
        """Latencies (M,) in ms and half widths (M,) of their 90 % intervals."""
        mixture = _columns(networks, self.donor_scale, self.count_scale) @ self.weights
        cross = _covariance(networks.features, self.features, self.amplitude)
        explained = np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        variance = np.maximum(self.amplitude**2 - explained, 0.0) + self.noise**2
        spread = (
            float(np.mean((self.leave_one_out_ms / self.scale) ** 2)) if len(self.leave_one_out_ms) else 0.0
        )
        halfwidth = _QUANTILE * np.sqrt(np.maximum(variance, spread))
        return self.scale * (mixture + cross @ self.alpha), self.scale * halfwidth


@dataclass(frozen=True)
class _Correction:
    alpha: Array
    inverse: Array
    amplitude: float
    noise: float
    evidence: float


def _columns(networks: Networks, donor_scale: Array, count_scale: float) -> Array:
    """Donors, counts and a constant, each of about unit size, (N, D + C + 1)."""
    constant = np.ones((len(networks.donors_ms), 1))
    return np.hstack([networks.donors_ms / donor_scale, networks.counts / count_scale, constant])


def _mixture(columns: Array, target: Array, donors: int) -> Array:
    """Non-negative weights, drawn a little towards equal parts of the donors and nothing else."""
    from scipy.optimize import nnls

    others = columns.shape[1] - donors
    expected = np.concatenate([np.full(donors, 1.0 / donors), np.zeros(others)])
    shrinkage = np.concatenate([np.full(donors, _DONOR_SHRINKAGE), np.full(others, _COUNT_SHRINKAGE)])
    pull = np.diag(np.sqrt(shrinkage))
    weights, _ = nnls(np.vstack([columns, pull]), np.concatenate([target, pull @ expected]))
    return np.asarray(weights)


def _solve(features: Array, residual: Array, amplitude: float, noise: float) -> _Correction:
    covariance = _covariance(features, features, amplitude) + noise**2 * np.eye(len(features))
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    alpha = inverse @ residual
    evidence = -0.5 * float(residual @ alpha) - 0.5 * float(np.linalg.slogdet(covariance)[1])
    return _Correction(alpha, inverse, amplitude, noise, evidence)


def _covariance(left: Array, right: Array, amplitude: float) -> Array:
    """Half linear, half smooth in the features, of variance ``amplitude`` squared."""
    size = left.shape[1]
    linear = left @ right.T / size
    squared = np.sum(left**2, axis=1)[:, None] + np.sum(right**2, axis=1)[None, :] - 2.0 * left @ right.T
    return np.asarray(amplitude**2 * 0.5 * (linear + np.exp(-np.maximum(squared, 0.0) / (2.0 * size))))


def choose_informative(networks: Networks, count: int, rng: np.random.Generator, *, pool: int = 300) -> Ints:
    """Indices (count,) of the networks to measure: those that tell most about a new device.

    Greedy D-optimal design over what donors tell apart and what operations there are, in a random pool;
    costs nothing on the new device.

    Source: Fedorov, Theory of Optimal Experiments (1972); NASFLAT (2024), section 4.2, for choosing
    samples instead of drawing them.
    """
    basis = _basis(networks)
    drawn = rng.choice(len(basis), min(pool, len(basis)), replace=False)
    information = 0.1 * np.eye(basis.shape[1])
    chosen: list[int] = []
    for _ in range(count):
        inverse = np.linalg.inv(information)
        gains = np.einsum("ij,jk,ik->i", basis[drawn], inverse, basis[drawn])
        gains[np.isin(drawn, chosen)] = -1.0
        best = int(drawn[gains.argmax()])
        chosen.append(best)
        information += np.outer(basis[best], basis[best])
    return np.array(chosen)


def _basis(networks: Networks) -> Array:
    points = _standardised(np.log(networks.donors_ms))
    _, _, axes = np.linalg.svd(points, full_matrices=False)
    components = _standardised(points @ axes[:_COMPONENTS].T)
    return np.hstack([components, _standardised(networks.counts), np.ones((len(points), 1))])


def _standardised(values: Array) -> Array:
    return np.asarray((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12))
