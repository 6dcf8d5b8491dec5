"""Which part of a tensor's values the 256 integers shall span.

Each method takes a calibration histogram and returns ``(low, high)`` with ``low <= 0 <= high``.
Values outside saturate; a narrower range gives the others finer steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgenas.errors import UnknownNameError
from edgenas.quantization.statistics import Histogram

LEVELS = 256
PERCENTILE = 99.99
SHRINKS = np.concatenate([np.linspace(0.10, 0.70, 25), np.linspace(0.72, 1.0, 29)])
Range = tuple[float, float]


def find_range(histogram: Histogram, method: str) -> Range:
    """The range of a tensor by ``method``: minmax, percentile, entropy or mse.

    Raises:
        UnknownNameError: there is no such method.
    """
    if method not in METHODS:
        raise UnknownNameError("calibration method", method, METHODS)
    if not np.isfinite([histogram.low, histogram.high]).all():
        return 0.0, 0.0
    low, high = METHODS[method](histogram)
    return min(low, 0.0), max(high, 0.0)


def _minmax(histogram: Histogram) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram) -> Range:
    """Leaves out the outermost values on both sides, never more than ``100 - PERCENTILE`` percent."""
    cumulated = np.cumsum(histogram.counts)
    total = cumulated[-1]
    outside = total * (1.0 - PERCENTILE / 100.0) / 2.0
    first = int(np.searchsorted(cumulated, outside, side="right"))
    last = int(np.searchsorted(cumulated, total - outside, side="left"))
    centres, half = histogram.centres, histogram.bin_width / 2
    low = max(histogram.low, float(centres[first]) - half)
    high = min(histogram.high, float(centres[min(last, len(centres) - 1)]) + half)
    return low, high


def _mse(histogram: Histogram) -> Range:
    """The range with the least squared error of rounding and saturation, one end after the other."""
    values, weights = _occupied(histogram)
    return _search(histogram, lambda low, high: _squared_error(values, weights, low, high))


def _entropy(histogram: Histogram) -> Range:
    """The range whose quantized distribution is nearest to the original's in Kullback-Leibler divergence.

    Zero is left out: it is exact in every range, and the peak that a Relu leaves there would hide
    the rest. Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017; here with both ends free.
    """
    values, weights = _occupied(histogram)
    away = np.abs(values) > histogram.bin_width
    values, weights = values[away], weights[away] / max(weights[away].sum(), 1e-30)
    return _search(histogram, lambda low, high: _divergence(values, weights, low, high))


def _occupied(histogram: Histogram) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    occupied = histogram.counts > 0
    centres = np.clip(histogram.centres, histogram.low, histogram.high)
    return centres[occupied], histogram.counts[occupied] / max(histogram.counts.sum(), 1)


def _search(histogram: Histogram, cost: Callable[[float, float], float]) -> Range:
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if low == high or not histogram.counts.any():
        return low, high
    best_low, best_high = low, high
    for _ in range(2):
        best_high = high * SHRINKS[int(np.argmin([cost(best_low, high * s) for s in SHRINKS]))]
        best_low = low * SHRINKS[int(np.argmin([cost(low * s, best_high) for s in SHRINKS]))]
    return float(best_low), float(best_high)


def _squared_error(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], low: float, high: float
) -> float:
    step = max(high - low, 1e-30) / (LEVELS - 1)
    rounded = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step
    return float(weights @ (values - rounded) ** 2)


def _divergence(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], low: float, high: float
) -> float:
    step = max(high - low, 1e-30) / (LEVELS - 1)
    level = np.clip(np.rint((values - low) / step), 0, LEVELS - 1).astype(np.int64)
    inside = (values >= low - step / 2) & (values <= high + step / 2)
    mass = np.bincount(level, weights, LEVELS)
    members = np.bincount(level[inside], minlength=LEVELS)
    quantized = np.where(inside, mass[level] / np.maximum(members[level], 1), 1e-9 * weights)
    return float(np.sum(weights * np.log(np.maximum(weights, 1e-300) / np.maximum(quantized, 1e-300))))


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
