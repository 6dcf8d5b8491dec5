"""Synthetic int8 quantization of tensors: the scales and zero points of a QDQ graph for profiling.

What a runtime fuses depends on types and zero points, not on scales: a Relu whose output has the
lowest integer as zero point disappears into the quantized kernel before it, as it does in a really
calibrated model. Scales only keep values within range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgenas.errors import UnknownNameError
from edgenas.search_spaces.parts import Activation

Int8SchemeName = Literal["u8s8", "s8s8", "u8u8"]


@dataclass(frozen=True)
class Range:
    """The values that a tensor is taken to hold."""

    low: float
    high: float


SIGNED = Range(-4.0, 4.0)
ACTIVATION_RANGES: dict[Activation, Range] = {
    "none": SIGNED,
    "relu": Range(0.0, 4.0),
    "hardswish": Range(-0.375, 4.0),
    "hardsigmoid": Range(0.0, 1.0),
}


@dataclass(frozen=True)
class Parameters:
    """Scale and zero point of one tensor; the zero point carries the integer type."""

    scale: float
    zero_point: npt.NDArray[np.generic]


@dataclass(frozen=True)
class Int8Scheme:
    """Integer types of activations and weights, per tensor."""

    activations: type[np.uint8] | type[np.int8]
    weights: type[np.uint8] | type[np.int8]

    def activation(self, values: Range) -> Parameters:
        """Asymmetric parameters whose 256 levels span ``values``."""
        scale = (values.high - values.low) / 255.0
        lowest = int(np.iinfo(self.activations).min)
        zero_point = lowest + int(np.floor(-values.low / scale + 0.5))
        return Parameters(scale, np.array(zero_point, self.activations))

    def weight(
        self, values: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.uint8] | npt.NDArray[np.int8], Parameters]:
        """Symmetric parameters of a weight and its integers, of the same shape."""
        scale = float(np.abs(values).max()) / 127.0 or 1.0
        centre = 128 if self.weights is np.uint8 else 0
        integers = np.rint(values / np.float32(scale)).astype(np.int16) + centre
        return integers.astype(self.weights), Parameters(scale, np.array(centre, self.weights))


_SCHEMES: dict[str, Int8Scheme] = {
    "u8s8": Int8Scheme(np.uint8, np.int8),
    "s8s8": Int8Scheme(np.int8, np.int8),
    "u8u8": Int8Scheme(np.uint8, np.uint8),
}


def get_scheme(name: str) -> Int8Scheme:
    """The scheme of that name: activations first, weights second.

    Raises:
        UnknownNameError: no such scheme.
    """
    if name not in _SCHEMES:
        raise UnknownNameError("int8 scheme", name, _SCHEMES)
    return _SCHEMES[name]
