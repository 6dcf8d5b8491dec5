"""Latency over shape, for kernels that were never measured: for each family a sum of work, corrected.

A kernel's time is first taken as a sum of what it does, each kind of work at a price of its own that is
fitted to the family and never negative. That holds far outside of what was measured, where a curve
through the measurements would go anywhere. A Gaussian process over shape then corrects it where
measurements are near.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.relevance import Settings, covariance, most_likely, prior_variance

Array = NDArray[np.float64]

_MOST_SAMPLES = 500
_OUTLYING = 5.0  # expected deviations from what all other samples say
_SHARING, _REWEIGHTINGS = 0.01, 5


@dataclass(frozen=True)
class ShapeRegressor:
    """Natural logarithm of latency: of the sum of work, plus a smooth deviation over log2 features.

    Kept as plain arrays; the posterior of a Gaussian process with a linear and a squared-exponential
    covariance, which also says how little it knows far from what was measured.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eq. 2.25, 5.12.
    """

    prices_ms: Array  # (W,), of each kind of work
    centre: Array  # (D,)
    level: float
    samples: Array  # (N, D), centred
    weights: Array  # (N,)
    inverse: Array  # (N, N)
    settings: Settings
    floor: float

    @classmethod
    def fit(
        cls,
        features: Array,
        work: Array,
        latency_ms: Array,
        *,
        settings: Settings | None = None,
        seed: int = 0,
    ) -> ShapeRegressor:
        """Fits to features (N, D), work (N, W) and latencies (N,); one sample is enough.

        Lengths, amplitude and noise are ``settings``, or those that make the samples most likely.
        """
        prices_ms = _prices(work, latency_ms)
        floor = _log_floor(latency_ms)
        ratio = np.log(latency_ms / np.maximum(work @ prices_ms, np.exp(floor)))
        if len(features) > _MOST_SAMPLES:
            chosen = np.random.default_rng(seed).choice(len(features), _MOST_SAMPLES, replace=False)
            features, ratio = features[chosen], ratio[chosen]
        centre, level = features.mean(axis=0), float(np.median(ratio))
        samples, target = features - centre, ratio - level
        found = _solve(samples, target, settings or most_likely(samples, target, seed=seed))
        ordinary = np.abs(found.left_out) <= _OUTLYING
        if not np.all(ordinary):  # timed while the device was disturbed
            samples, target = samples[ordinary], target[ordinary]
            found = _solve(samples, target, settings or most_likely(samples, target, seed=seed))
        return cls(
            prices_ms, centre, level, samples, found.weights, found.inverse, found.settings, floor
        )  # fmt: skip

    def predict(self, features: Array, work: Array) -> tuple[Array, Array]:
        """Log-latency (M,) and its standard deviation (M,), noise included, for (M, D) and (M, W)."""
        points = features - self.centre
        cross = covariance(points, self.samples, self.settings)
        explained = np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        unknown = np.maximum(prior_variance(points, self.settings) - explained, 0.0)
        sums_ms = np.maximum(work @ self.prices_ms, np.exp(self.floor))
        mean = np.log(sums_ms) + self.level + cross @ self.weights
        return np.maximum(mean, self.floor), np.sqrt(unknown + self.settings.noise**2)


@dataclass(frozen=True)
class _Fit:
    """``left_out`` (N,) are deviations of samples from what all others say, in expected ones."""

    weights: Array
    inverse: Array
    left_out: Array
    settings: Settings


def _solve(samples: Array, target: Array, settings: Settings) -> _Fit:
    matrix = covariance(samples, samples, settings)
    matrix[np.diag_indices_from(matrix)] += settings.noise**2
    inverse = np.asarray(np.linalg.inv(matrix), np.float64)
    weights = inverse @ target
    variance = 1.0 / np.diag(inverse)
    return _Fit(weights, inverse, weights * np.sqrt(variance), settings)


def _log_floor(latency_ms: Array) -> float:
    """No kernel is taken to be faster than half the fastest of its family: every call has a cost."""
    return float(np.log(latency_ms.min() / 2.0))


def _prices(work: Array, latency_ms: Array) -> Array:
    """Prices (W,) in ms that make sums of work (N, W) as near as may be to the latencies (N,).

    Errors count relative to the larger of sum and latency, so that short kernels count as much as long
    ones. A weak pull makes all kinds of work share what few samples cannot tell apart.
    """
    from scipy.optimize import nnls

    count, divisor = work.shape[1], latency_ms
    for _ in range(_REWEIGHTINGS):
        relative, target = work / divisor[:, None], latency_ms / divisor
        scale = np.maximum(relative.mean(axis=0), 1e-12)
        rows = np.vstack([relative / scale, np.sqrt(_SHARING) * np.eye(count)])
        scaled, _ = nnls(rows, np.concatenate([target, np.zeros(count)]))
        prices_ms = scaled / scale
        divisor = np.maximum(latency_ms, work @ prices_ms)
    return np.asarray(prices_ms)
