"""Latency over shape, for kernels that were never measured: for each family a sum of work, corrected.

A kernel's time is first taken as a sum of what it does, each kind of work at a price of its own that is
fitted to the family and never negative. That holds far outside of what was measured, where a curve
through the measurements would go anywhere. A Gaussian process over shape then corrects it where
measurements are near.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Settings: TypeAlias = tuple[float, float, float]

_SLOPE_SD = 0.03  # prior of a power law in the ratio to the sum of work, per feature
_OFFSET_SD = 0.3  # prior of the logarithm of that ratio
_LENGTHS = (1.0, 2.0, 4.0, 8.0)  # octaves over which the ratio changes
_AMPLITUDES = (0.05, 0.2, 0.6, 1.2)
_NOISES = (0.02, 0.06, 0.15)
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
    length: float
    amplitude: float
    noise: float
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

        Length, amplitude and noise are ``settings``, or those with the best leave-one-out density, so
        that the standard deviation that ``predict`` gives is that of kernels left out.
        """
        prices_ms = _prices(work, latency_ms)
        floor = _log_floor(latency_ms)
        ratio = np.log(latency_ms / np.maximum(work @ prices_ms, np.exp(floor)))
        if len(features) > _MOST_SAMPLES:
            chosen = np.random.default_rng(seed).choice(len(features), _MOST_SAMPLES, replace=False)
            features, ratio = features[chosen], ratio[chosen]
        centre, level = features.mean(axis=0), float(np.median(ratio))
        samples, target = features - centre, ratio - level
        choices = [settings] if settings else list(itertools.product(_LENGTHS, _AMPLITUDES, _NOISES))
        best = _best(samples, target, choices)
        ordinary = np.abs(best.left_out) <= _OUTLYING
        if not np.all(ordinary):  # timed while the device was disturbed
            samples, target = samples[ordinary], target[ordinary]
            best = _best(samples, target, choices)
        return cls(
            prices_ms, centre, level, samples, best.weights, best.inverse, best.length, best.amplitude,
            best.noise, floor,
        )  # fmt: skip

    @property
    def settings(self) -> Settings:
        """Length, amplitude and noise, for a fit to other samples of the same family."""
        return self.length, self.amplitude, self.noise

    def predict(self, features: Array, work: Array) -> tuple[Array, Array]:
        """Log-latency (M,) and its standard deviation (M,), noise included, for (M, D) and (M, W)."""
        points = features - self.centre
        cross = _covariance(points, self.samples, self.length, self.amplitude)
        prior = _OFFSET_SD**2 + _SLOPE_SD**2 * np.sum(points**2, axis=1) + self.amplitude**2
        explained = np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        variance = np.maximum(prior - explained, 0.0) + self.noise**2
        sums_ms = np.maximum(work @ self.prices_ms, np.exp(self.floor))
        mean = np.log(sums_ms) + self.level + cross @ self.weights
        return np.maximum(mean, self.floor), np.sqrt(variance)


@dataclass(frozen=True)
class _Fit:
    """``left_out`` (N,) are deviations of samples from what all others say, in expected ones."""

    weights: Array
    inverse: Array
    left_out: Array
    density: float
    length: float
    amplitude: float
    noise: float


def _best(samples: Array, target: Array, choices: Sequence[Settings]) -> _Fit:
    fits = (_solve(samples, target, *choice) for choice in choices)
    return max(fits, key=lambda fit: fit.density)


def _solve(samples: Array, target: Array, length: float, amplitude: float, noise: float) -> _Fit:
    covariance = _covariance(samples, samples, length, amplitude)
    covariance[np.diag_indices_from(covariance)] += noise**2
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    weights = inverse @ target
    variance = 1.0 / np.diag(inverse)
    residual = weights * variance
    density = float(-0.5 * np.sum(np.log(variance) + residual**2 / variance))
    return _Fit(weights, inverse, residual / np.sqrt(variance), density, length, amplitude, noise)


def _covariance(left: Array, right: Array, length: float, amplitude: float) -> Array:
    linear = left @ right.T
    squared = np.sum(left**2, axis=1)[:, None] + np.sum(right**2, axis=1)[None, :] - 2.0 * linear
    smooth = amplitude**2 * np.exp(-0.5 * np.maximum(squared, 0.0) / length**2)
    return np.asarray(_OFFSET_SD**2 + _SLOPE_SD**2 * linear + smooth)


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
