"""How well a device repeats itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edgenas.errors import MeasurementError


def repeat_difference(rounds_ms: Sequence[float]) -> float:
    """Relative difference between the medians of the odd and the even rounds of one model.

    Args:
        rounds_ms: at least two latencies.
    """
    odd, even = np.median(rounds_ms[1::2]), np.median(rounds_ms[::2])
    return float(abs(odd - even) / ((odd + even) / 2))


def noise_floor(models: Iterable[Sequence[float]]) -> float:
    """The 90th percentile over models of ``repeat_difference``; below it no difference is real.

    Raises:
        MeasurementError: no model has two rounds.
    """
    differences = [repeat_difference(rounds_ms) for rounds_ms in models if len(rounds_ms) >= 2]
    if not differences:
        raise MeasurementError("the noise floor needs a model with at least two rounds")
    return float(np.quantile(differences, 0.9))
