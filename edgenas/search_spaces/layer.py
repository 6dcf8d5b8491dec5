"""The base of all layers: what a search decides about, made of a short list of parts.

Layers are frozen, hashable and travel as JSON; ``precision`` is what the layer runs in on the
device, "int8" standing for quantized weights and activations.
"""

from __future__ import annotations

import functools

import msgspec

from edgenas.records import Precision, Record
from edgenas.search_spaces.parts import INPUT, Activation, AnyPart, Conv, Shape, divisible

FIRST_FACTOR = "_first"
"""Ends the name of the part that is the first of two factors; the second has the name of the whole."""


class Compression(Record, kw_only=True, forbid_unknown_fields=True):
    """By how much a layer is smaller than its architecture says.

    Attributes:
        unpruned: hidden channels before pruning, of which the layer's own ``hidden`` are left; 0
            where none were removed.
        rank: share of the multiply-accumulates that the two factors of each pointwise convolution
            and matrix product keep; 1 leaves them whole.
    """

    unpruned: int = 0
    rank: float = 1.0


class Layer(Record, tag=True, kw_only=True):
    """One named layer; every concrete layer is a record of its own."""

    name: str
    in_channels: int
    out_channels: int
    precision: Precision = "fp32"

    def parts(self) -> tuple[AnyPart, ...]:
        """The primitive operations in execution order; the last one is the layer's output.

        A layer without parts hands on its input.
        """
        raise NotImplementedError

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output of one image for an input of ``shape`` (channels, height, width)."""
        return wire_shapes(self, shape)[output_wire(self)]


def rank_of(in_channels: int, out_channels: int, share: float) -> int:
    """Rank of two factors with about ``share`` of the whole's weights, a multiple of 8; 0: it stays whole.

    Factors of rank r hold r (in + out) weights, the whole in x out. A rank that is not below both
    sides would only add a kernel.

    Source: Denton et al., Exploiting linear structure within convolutional networks (2014).
    """
    if share >= 1.0:
        return 0
    rank = divisible(share * in_channels * out_channels / (in_channels + out_channels))
    return rank if rank < min(in_channels, out_channels) else 0


def pointwise(  # noqa: PLR0917 - reads like ``conv``
    name: str,
    source: str,
    in_channels: int,
    out_channels: int,
    activation: Activation = "none",
    compression: Compression | msgspec.UnsetType = msgspec.UNSET,
) -> tuple[Conv, ...]:
    """A pointwise convolution with a batch norm, or its two factors where ``compression`` asks for them."""
    rank = rank_of(in_channels, out_channels, compression.rank) if compression else 0
    if not rank:
        return (conv(name, source, in_channels, out_channels, activation=activation),)
    first = first_factor(name, source, in_channels, rank)
    return (first, conv(name, first.name, rank, out_channels, activation=activation))


def first_factor(name: str, source: str, in_channels: int, rank: int) -> Conv:
    """The first factor of the part ``name``: a plain matrix, without batch norm and activation."""
    return Conv(
        name=f"{name}{FIRST_FACTOR}",
        inputs=(source,),
        in_channels=in_channels,
        out_channels=rank,
        normalized=False,
    )


@functools.lru_cache(maxsize=65536)
def parts_of(layer: Layer) -> tuple[AnyPart, ...]:
    """``layer.parts()``, computed once for equal layers."""
    return layer.parts()


def output_wire(layer: Layer) -> str:
    """The wire that the next layer reads."""
    parts = parts_of(layer)
    return parts[-1].name if parts else INPUT


def wire_shapes(layer: Layer, shape: Shape) -> dict[str, Shape]:
    """Shape of every wire of the layer for an input of ``shape``, by part name."""
    shapes = {INPUT: shape}
    for part in parts_of(layer):
        shapes[part.name] = part.output_shape(shapes[part.inputs[0]])
    return shapes


def conv(  # noqa: PLR0917 - reads like the table of layers in a paper
    name: str,
    source: str,
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    activation: Activation = "none",
    groups: int = 1,
) -> Conv:
    """A convolution with a batch norm, the part that most layers are made of."""
    return Conv(
        name=name,
        inputs=(source,),
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=kernel,
        stride=stride,
        groups=groups,
        activation=activation,
    )
