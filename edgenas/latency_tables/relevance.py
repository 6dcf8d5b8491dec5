"""How far each feature must move before a kernel's time changes: chosen by what the samples make likely."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SLOPE_SD = 0.03  # prior of a power law in the ratio to the sum of work, per feature
_OFFSET_SD = 0.3  # prior of the logarithm of that ratio
_ENOUGH_TO_CHOOSE = 250  # samples; the time grows with their cube
_STEPS = 40
_LENGTH, _AMPLITUDE, _NOISE = 4.0, 0.3, 0.05  # what is likely before a sample is seen: octaves, and shares
_SPREAD = 0.7  # of the logarithms of all three
_BOUNDS = {"length": (0.3, 100.0), "amplitude": (0.02, 3.0), "noise": (0.01, 0.5)}


class Settings(NamedTuple):
    """Octaves over which the ratio changes along each feature, by how much it changes, and what is noise."""

    lengths: tuple[float, ...]
    amplitude: float
    noise: float


def covariance(left: Array, right: Array, settings: Settings) -> Array:
    """Of the ratios at features (M, D) and (N, D), without noise: (M, N)."""
    lengths = np.array(settings.lengths)
    smooth = np.exp(-0.5 * _squared(left / lengths, right / lengths))
    return np.asarray(_OFFSET_SD**2 + _SLOPE_SD**2 * left @ right.T + settings.amplitude**2 * smooth)


def prior_variance(points: Array, settings: Settings) -> Array:
    """Of the ratio at features (M, D) before any sample is seen, (M,)."""
    return np.asarray(_OFFSET_SD**2 + _SLOPE_SD**2 * np.sum(points**2, axis=1) + settings.amplitude**2)


def most_likely(samples: Array, target: Array, *, seed: int = 0) -> Settings:
    """The settings under which the targets (N,) at features (N, D) are most likely, gently held.

    A feature that tells nothing comes out with a length beyond all samples; one that makes steps, as the
    padding of a vector does, with a short one. A length for all of them could only be a compromise.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eq. 5.1, 5.8, 5.9.
    """
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(samples))[:_ENOUGH_TO_CHOOSE]
    evidence = _Evidence(samples[chosen], target[chosen])
    limits = [_BOUNDS["length"]] * samples.shape[1] + [_BOUNDS["amplitude"], _BOUNDS["noise"]]
    found = minimize(
        evidence.loss, evidence.start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS},
        bounds=[(math.log(low), math.log(high)) for low, high in limits],
    )  # fmt: skip
    *lengths, amplitude, noise = np.exp(found.x).tolist()
    return Settings(tuple(lengths), amplitude, noise)


class _Evidence:
    """Minus the logarithm of what makes some targets likely, by the logarithms of the settings."""

    def __init__(self, samples: Array, target: Array) -> None:
        self._target = target
        self._linear = _OFFSET_SD**2 + _SLOPE_SD**2 * samples @ samples.T
        self._squares = np.stack([_squared(column[:, None], column[:, None]) for column in samples.T])
        self.start = np.log(np.array([_LENGTH] * samples.shape[1] + [_AMPLITUDE, _NOISE]))

    def loss(self, logs: Array) -> tuple[float, Array]:
        """The value and its gradient at logarithms (D + 2,)."""
        inverse_squares, (amplitude, noise) = np.exp(-2.0 * logs[:-2]), np.exp(2.0 * logs[-2:])
        smooth = amplitude * np.exp(-0.5 * np.tensordot(inverse_squares, self._squares, axes=1))
        matrix = self._linear + smooth
        matrix[np.diag_indices_from(matrix)] += noise
        _, log_determinant = np.linalg.slogdet(matrix)
        inverse = np.linalg.inv(matrix)
        weights = inverse @ self._target
        outer = inverse - np.outer(weights, weights)
        by_smooth = outer * smooth
        by_length = 0.5 * inverse_squares * np.tensordot(self._squares, by_smooth, axes=2)
        gradient = np.append(by_length, [by_smooth.sum(), noise * np.trace(outer)])
        value = 0.5 * float(self._target @ weights) + 0.5 * float(log_determinant)
        pull = (logs - self.start) / _SPREAD
        return value + 0.5 * float(pull @ pull), gradient + pull / _SPREAD


def _squared(left: Array, right: Array) -> Array:
    """Squared distances of (M, D) to (N, D): (M, N)."""
    squared = np.sum(left**2, axis=1)[:, None] + np.sum(right**2, axis=1)[None, :] - 2.0 * left @ right.T
    return np.asarray(np.maximum(squared, 0.0))
