"""The base of all layers: what a search decides about, made of a short list of parts.

Layers are frozen, hashable and travel as JSON; ``precision`` is what the layer runs in on the
device, "int8" standing for quantized weights and activations.
"""

from __future__ import annotations

import functools

from edgenas.records import Precision, Record
from edgenas.search_spaces.parts import INPUT, Activation, AnyPart, Conv, Shape


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
