"""What a quantized model can look like: one record with everything that decides its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec

from edgenas.records import Record

Types = Literal["u8s8", "s8s8", "u8u8"]
Calibration = Literal["minmax", "percentile", "entropy", "mse"]


class QuantizationScheme(Record):
    """How one int8 candidate is made.

    Attributes:
        types: of activations and weights; ``u`` is unsigned, ``s`` signed.
        per_channel: a scale for each output channel of a weight, else one for all.
        reduced_range: weights use 7 of 8 bits, so that 16-bit sums of products cannot saturate.
        calibration: how the activations' ranges are found.
        equalized: ranges of neighbouring weights, and of normalised activations and the weights that
            read them, are balanced first (exact in float).
        bias_corrected: biases make up for the mean error of rounded weights and activations.
        refined_rounding: weights are rounded one after the other, each making up for the last.
        integer_sums: additions, products, pools and activations run on integers where their inputs
            come from such; else only layers with weights do.
        integer_gates: HardSigmoid and HardSwish run on integers, else in float between them.
        float_layers: names of nodes that stay float, or beginnings of names before a ``/``.
        engine: who quantizes; all the above is ours, another engine goes by its ``preset``.
        label: what chose ``float_layers``, for people; part of the name.
    """

    types: Types = "u8s8"
    per_channel: bool = True
    reduced_range: bool = False
    calibration: Calibration = "minmax"
    equalized: bool = False
    bias_corrected: bool = False
    refined_rounding: bool = False
    integer_sums: bool = True
    integer_gates: bool = True
    float_layers: tuple[str, ...] = ()
    label: str = ""
    engine: str = "edgenas"
    preset: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is made here, and can be refined and mixed."""
        return self.engine == "edgenas"

    @property
    def is_integer(self) -> bool:
        """Whether integers are the point of it; 16-bit floats are not."""
        return self.engine != "float16"

    @property
    def name(self) -> str:
        """Short and unique among the schemes of one model, such as ``u8s8-channel-mse-bias``.

        ``edgenas.reporting.schemes`` says it in words.
        """
        if not self.is_own:
            return f"{self.engine}-{self.preset}" if self.preset else self.engine
        parts = [self.types, "channel" if self.per_channel else "tensor"]
        parts += ["reduced"] if self.reduced_range else []
        parts += [self.calibration]
        parts += [word for flag, word in self._flags() if flag]
        if self.float_layers:
            digest = hashlib.sha256(repr(self.float_layers).encode()).hexdigest()[:4]
            parts.append(f"{self.label or 'mixed'}{len(self.float_layers)}.{digest}")
        return "-".join(parts)

    def _flags(self) -> tuple[tuple[bool, str], ...]:
        return (
            (self.equalized, "equalized"),
            (self.bias_corrected, "bias"),
            (self.refined_rounding, "rounding"),
            (not self.integer_sums, "weighted"),
            (not self.integer_gates, "floatgates"),
        )

    def keeps_float(self, node: str) -> bool:
        """Whether the node of that name is one of ``float_layers``."""
        return any(node == layer or node.startswith(f"{layer}/") for layer in self.float_layers)


R = TypeVar("R", bound=Record)


def replaced(record: R, **changes: object) -> R:
    """``record`` with some fields changed."""
    return msgspec.structs.replace(record, **changes)


def first_schemes() -> tuple[QuantizationScheme, ...]:
    """The integer types and weight granularities worth a look on any device."""
    base = QuantizationScheme()
    return (
        base,
        replaced(base, reduced_range=True),
        replaced(base, per_channel=False),
        replaced(base, types="s8s8"),
        replaced(base, types="s8s8", per_channel=False),
        replaced(base, types="u8u8", per_channel=False),
    )


CALIBRATIONS: tuple[Calibration, ...] = ("percentile", "mse", "entropy")


def with_float_layers(scheme: QuantizationScheme, layers: Sequence[str], label: str) -> QuantizationScheme:
    """``scheme`` with ``layers`` in float."""
    return replaced(scheme, float_layers=tuple(layers), label=label)
