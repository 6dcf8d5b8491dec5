"""Latency over shape, for kernels that were never measured: a Gaussian process per family."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Settings: TypeAlias = tuple[float, float, float]

_SLOPE_SD = 0.5  # prior of a power law's exponent around 0, per feature
_OFFSET_SD = 1.5  # prior of the log-latency level around the family's mean
_LENGTHS = (1.0, 2.0, 4.0, 8.0)  # octaves over which the deviation from the power law changes
_AMPLITUDES = (0.05, 0.2, 0.6, 1.2)
_NOISES = (0.02, 0.06, 0.15)
_MOST_SAMPLES = 500


@dataclass(frozen=True)
class ShapeRegressor:
    """Natural logarithm of latency over log2 features: a power law plus a smooth deviation.

    Kept as plain arrays; the posterior of a Gaussian process with a linear and a squared-exponential
    covariance, which also says how little it knows far from what was measured.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eq. 2.25, 5.12.
    """

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
        cls, features: Array, log_latency: Array, *, settings: Settings | None = None, seed: int = 0
    ) -> ShapeRegressor:
        """Fits to features (N, D) and natural-log latencies (N,); one sample is enough.

        Length, amplitude and noise are ``settings``, or those with the best leave-one-out density, so
        that the standard deviation that ``predict`` gives is that of kernels left out.
        """
        if len(features) > _MOST_SAMPLES:
            chosen = np.random.default_rng(seed).choice(len(features), _MOST_SAMPLES, replace=False)
            features, log_latency = features[chosen], log_latency[chosen]
        centre, level = features.mean(axis=0), float(log_latency.mean())
        samples, target = features - centre, log_latency - level
        choices = [settings] if settings else itertools.product(_LENGTHS, _AMPLITUDES, _NOISES)
        fits = [_solve(samples, target, *choice) for choice in choices]
        best = max(fits, key=lambda fit: fit.density)
        return cls(
            centre, level, samples, best.weights, best.inverse, best.length, best.amplitude, best.noise,
            floor=_log_floor(target),
        )  # fmt: skip

    @property
    def settings(self) -> Settings:
        """Length, amplitude and noise, for a fit to other samples of the same family."""
        return self.length, self.amplitude, self.noise

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Log-latency (M,) and its standard deviation (M,), noise included, for features (M, D)."""
        points = features - self.centre
        cross = _covariance(points, self.samples, self.length, self.amplitude)
        prior = _OFFSET_SD**2 + _SLOPE_SD**2 * np.sum(points**2, axis=1) + self.amplitude**2
        explained = np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        variance = np.maximum(prior - explained, 0.0) + self.noise**2
        mean = np.maximum(cross @ self.weights, self.floor)
        return self.level + mean, np.sqrt(variance)


@dataclass(frozen=True)
class _Fit:
    weights: Array
    inverse: Array
    density: float
    length: float
    amplitude: float
    noise: float


def _solve(samples: Array, target: Array, length: float, amplitude: float, noise: float) -> _Fit:
    covariance = _covariance(samples, samples, length, amplitude)
    covariance[np.diag_indices_from(covariance)] += noise**2
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    weights = inverse @ target
    variance = 1.0 / np.diag(inverse)
    residual = weights * variance
    density = float(-0.5 * np.sum(np.log(variance) + residual**2 / variance))
    return _Fit(weights, inverse, density, length, amplitude, noise)


def _covariance(left: Array, right: Array, length: float, amplitude: float) -> Array:
    linear = left @ right.T
    squared = np.sum(left**2, axis=1)[:, None] + np.sum(right**2, axis=1)[None, :] - 2.0 * linear
    smooth = amplitude**2 * np.exp(-0.5 * np.maximum(squared, 0.0) / length**2)
    return np.asarray(_OFFSET_SD**2 + _SLOPE_SD**2 * linear + smooth)


def _log_floor(target: Array) -> float:
    """No kernel is taken to be faster than half the fastest of its family: every call has a cost."""
    return float(target.min() - np.log(2.0))
