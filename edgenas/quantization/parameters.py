"""Scales, zero points and integers: from ranges of values to what a QDQ graph holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgenas.quantization.schemes import QuantizationScheme

Floats = npt.NDArray[np.float32]
INTEGER_TYPES = {"u": np.dtype(np.uint8), "s": np.dtype(np.int8)}
LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "int32": (-(2**31), 2**31 - 1)}
LARGEST_BIAS = 2**30  # half of int32: sums of products need the rest
SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class Parameters:
    """Scale(s) and zero point(s) of one tensor; ``axis`` is None for one scale."""

    scale: Floats
    zero_point: npt.NDArray[np.generic]
    axis: int | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest integer of the type."""
        return LIMITS[self.zero_point.dtype.name]

    def broadcast(self, rank: int) -> tuple[Floats, npt.NDArray[np.float32]]:
        """Scale and zero point, shaped so that they broadcast against a tensor of ``rank``."""
        shape = [1] * rank
        if self.axis is not None:
            shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.astype(np.float32).reshape(shape)


def activation_parameters(low: float, high: float, scheme: QuantizationScheme) -> Parameters:
    """Asymmetric parameters whose 256 levels span ``[low, high]``, zero included exactly.

    The span never reaches beyond a range that starts at zero: only then may a runtime drop the
    Relu or Clip before it.
    """
    dtype = INTEGER_TYPES[scheme.types[0]]
    lowest = LIMITS[dtype.name][0]
    span = high - low
    if not span > SMALLEST_SCALE * 255:
        return Parameters(np.array(1.0, np.float32), np.array(lowest if low == 0 else 0, dtype))
    scale = np.float32(span / 255.0)
    if low == 0.0:
        while float(scale) * 255.0 > high:
            scale = np.nextafter(scale, np.float32(0))
    zero_point = lowest + int(np.clip(np.rint(-low / float(scale)), 0, 255))
    return Parameters(np.array(scale), np.array(zero_point, dtype))


def weight_limit(scheme: QuantizationScheme) -> int:
    """The largest magnitude of a weight's integer: 127, or 64 with the reduced range."""
    return 64 if scheme.reduced_range else 127


def weight_parameters(
    weight: Floats, axis: int, scheme: QuantizationScheme, smallest: Floats | None = None
) -> Parameters:
    """Symmetric parameters of a weight.

    Args:
        axis: of the output channels.
        smallest: lower limit of the scale of each channel, so that the bias fits 32 bits.
    """
    dtype = INTEGER_TYPES[scheme.types[2]]
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    scale = largest / weight_limit(scheme)
    if smallest is not None:
        scale = np.maximum(scale, smallest)
    if not scheme.per_channel:
        scale = scale.max(keepdims=True)
    scale = np.where(scale > SMALLEST_SCALE, scale, 1.0).astype(np.float32)
    zero = np.full(scale.shape, 128 if dtype == np.uint8 else 0, dtype)
    if scheme.per_channel:
        return Parameters(scale, zero, axis)
    return Parameters(scale.reshape(()), zero.reshape(()))


def smallest_scales(bias: Floats | None, input_scale: float, channels: int) -> Floats:
    """The weight scales below which the bias would not fit its 32-bit integer."""
    if bias is None:
        return np.zeros(channels, np.float32)
    return (np.abs(bias) / (input_scale * LARGEST_BIAS)).astype(np.float32)


def to_integers(values: Floats, parameters: Parameters) -> npt.NDArray[np.generic]:
    """Rounds half to even and saturates, as QuantizeLinear does."""
    scale, zero_point = parameters.broadcast(values.ndim)
    low, high = parameters.limits
    integers: npt.NDArray[np.generic] = np.clip(np.rint(values / scale) + zero_point, low, high)
    return integers.astype(parameters.zero_point.dtype)


def to_floats(integers: npt.NDArray[np.generic], parameters: Parameters) -> Floats:
    """What DequantizeLinear gives."""
    scale, zero_point = parameters.broadcast(integers.ndim)
    return ((integers.astype(np.float32) - zero_point) * scale).astype(np.float32)


def bias_integers(
    bias: Floats, input_scale: float, weight: Parameters
) -> tuple[npt.NDArray[np.int32], Floats]:
    """The bias as int32 and its scale, input scale times weight scale."""
    scale = (np.float32(input_scale) * weight.scale).astype(np.float32)
    integers = np.rint(bias.astype(np.float64) / scale)
    limit = 2**31 - 1
    return np.clip(integers, -limit, limit).astype(np.int32), scale
