"""Where the ONNX builder takes weights from: a trained network's arrays, or seeded random ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edgenas.errors import ModelError
from edgenas.search_spaces.parts import Shape

FloatArray = npt.NDArray[np.float32]

_POOL_SIZE = 65_521


class WeightSource(ABC):
    """Gives the float weights of a layer's part by their key."""

    @abstractmethod
    def weight(self, key: str, shape: Shape) -> FloatArray:
        """The array ``key`` (``layer.part.weight`` or ``.bias``) of the given shape."""


class TrainedWeights(WeightSource):
    """Arrays of a trained network, batch norm folded.

    Raises:
        ModelError: an array is missing, has another shape or holds values that are not finite.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._arrays = arrays

    def weight(self, key: str, shape: Shape) -> FloatArray:
        array = self._arrays.get(key)
        if array is None:
            raise ModelError(
                f"no weights for '{key}' of shape {shape}; {len(self._arrays)} other arrays given"
            )
        if array.shape != shape:
            raise ModelError(f"weights '{key}' have shape {array.shape}, the network needs {shape}")
        values = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(values).all():
            raise ModelError(f"weights '{key}' hold NaN or infinite values: training diverged")
        return values


class RandomWeights(WeightSource):
    """Seeded random weights for profiling: normal, scaled so that activations neither grow nor die.

    Values repeat a pool of prime length instead of being drawn one by one, which makes a network of
    millions of weights in milliseconds; no kernel's time depends on them.

    Source: He et al., Delving deep into rectifiers (2015), equation 10, for the scale.
    """

    def __init__(self, seed: int) -> None:
        self._pool = _pool(seed)

    def weight(self, key: str, shape: Shape) -> FloatArray:
        del key
        fan_in = math.prod(shape[1:])
        size = math.prod(shape)
        # ``resize`` copies the whole pool even for a bias.
        values = self._pool[:size].reshape(shape) if size <= _POOL_SIZE else np.resize(self._pool, shape)
        return values * np.float32(0.02 if len(shape) == 1 else math.sqrt(2.0 / fan_in))


@lru_cache(maxsize=4)
def _pool(seed: int) -> FloatArray:
    """The random values that all weights of a seed repeat; drawn once for a whole plan of networks."""
    values: FloatArray = np.random.default_rng(seed).standard_normal(_POOL_SIZE, dtype=np.float32)
    values.flags.writeable = False
    return values
