"""A logarithm that spreads the best values of an objective out and draws the bad ones together.

Accuracies of networks crowd near the best that a space can do and trail off far below it. A
surrogate of the plain values spends itself on telling bad from worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgenas.search.problem import Floats

STRENGTHS = (1.0, 5.0)
"""Distances from the best value to where the logarithm has its pole, in units of the median's distance.

Nothing better than the pole can be predicted: one that is nearer fits what was evaluated better, and
leaves the search no hope where the best values are.
"""
HIGHEST = 50.0  # keeps the exponential of a wild extrapolation finite


@dataclass(frozen=True)
class Warping:
    """value -> (log(value - pole) - centre) / scale, for values that are minimised.

    Attributes:
        best: the least value that is known; lower ones are warped as if they were it.
        pole: below ``best``.
        centre: mean of the logarithms.
        scale: their standard deviation, above 0.
    """

    best: float
    pole: float
    centre: float
    scale: float

    @classmethod
    def of(cls, values: Floats, strength: float) -> Warping:
        """The warping after which ``values`` (N,) have mean 0 and deviation 1."""
        best = float(values.min())
        spread = float(np.median(values)) - best + 1e-9 * (1.0 + abs(best))  # of equal values it is above 0
        pole = best - strength * spread
        logarithms = np.log(values - pole)
        return cls(best, pole, float(logarithms.mean()), float(logarithms.std()) + 1e-12)

    def forward(self, values: Floats) -> Floats:
        """Warped values."""
        return np.asarray((np.log(np.maximum(values, self.best) - self.pole) - self.centre) / self.scale)

    def backward(self, warped: Floats) -> Floats:
        """Values again; any number is welcome."""
        return np.asarray(self.pole + np.exp(np.minimum(self.centre + self.scale * warped, HIGHEST)))

    def slope(self, warped: Floats) -> Floats:
        """How fast ``backward`` rises there."""
        return self.scale * (self.backward(warped) - self.pole)

    def cost(self, values: Floats) -> float:
        """What the change of variables takes from the log likelihood of ``values``."""
        return float(np.log(self.scale * (np.maximum(values, self.best) - self.pole)).sum())
