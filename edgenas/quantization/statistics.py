"""What calibration remembers of a tensor: a histogram of fixed size, whatever the number of images.

The bins' width is a power of two that doubles when a larger value comes, and pairs of bins then
merge exactly. So the order of the images, and how they are cut into batches, never changes a
statistic: merging parts gives what one pass over everything gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
HALF = 4096  # bins on each side of zero: at least eight for each of 256 integer levels
SMALLEST_EXPONENT = -60


def _empty_counts() -> npt.NDArray[np.int64]:
    return np.zeros(2 * HALF, np.int64)


@dataclass
class Histogram:
    """Counts of values in ``2 * HALF`` bins over ``[-2**exponent, 2**exponent)``.

    Attributes:
        low, high: the exact smallest and largest value seen; infinite before the first.
        counts: of the values that were sampled.
    """

    low: float = float("inf")
    high: float = float("-inf")
    exponent: int = SMALLEST_EXPONENT
    counts: npt.NDArray[np.int64] = field(default_factory=_empty_counts)

    @property
    def bin_width(self) -> float:
        return 2.0**self.exponent / HALF

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The middle of each bin."""
        centres: npt.NDArray[np.float64] = (np.arange(-HALF, HALF, dtype=np.float64) + 0.5) * self.bin_width
        return centres

    def add(self, values: Floats, sampled: Floats | None = None) -> None:
        """Counts ``values``; only ``sampled`` of them where given, but the extremes are of all."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(_exponent_for(max(abs(low), abs(high))))
        counted = (values if sampled is None else sampled).reshape(-1)
        bins = np.floor(counted * np.float32(1.0 / self.bin_width)).astype(np.int64) + HALF
        self.counts += np.bincount(bins, minlength=2 * HALF)

    def merge(self, other: Histogram) -> None:
        """Takes in what another pass has counted."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        merged = Histogram(exponent=other.exponent, counts=other.counts.copy())
        merged._widen(self.exponent)
        self._widen(merged.exponent)
        self.counts = self.counts + merged.counts

    def _widen(self, exponent: int) -> None:
        steps = exponent - self.exponent
        if steps <= 0:
            return
        if not self.counts.any():
            self.exponent = exponent
            return
        while self.exponent < exponent:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros_like(self.counts)
            self.counts[HALF // 2 : HALF // 2 + HALF] = pairs
            self.exponent += 1


def _exponent_for(largest: float) -> int:
    """The smallest exponent whose power of two is above ``largest``."""
    if largest == 0.0:
        return SMALLEST_EXPONENT
    return max(int(np.frexp(np.float64(largest))[1]), SMALLEST_EXPONENT)


@dataclass
class ChannelMeans:
    """Running mean of each channel (axis 1)."""

    total: npt.NDArray[np.float64]
    count: int = 0

    def add(self, sums: npt.NDArray[np.float64], count: int) -> None:
        self.total = self.total + sums
        self.count += count

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        return self.total / max(self.count, 1)
