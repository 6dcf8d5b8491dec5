"""The few primitive operations that every layer is made of.

A layer is a short list of parts. A part reads wires: the layer's input (``INPUT``) or an earlier
part's name; the last part's wire is the layer's output. The ONNX builder, the torch builder and the
counts of MACs and parameters all read these lists, so that they cannot disagree.

Shapes are of one image: (channels, height, width), and (features,) after ``Linear``. A text is a row
of tokens, (1, 1, tokens) as numbers and (channels, 1, tokens) once embedded, so that what works on each
token alone is a pointwise convolution.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from edgenas.records import Record

Activation = Literal["none", "relu", "hardswish", "hardsigmoid"]
Shape: TypeAlias = tuple[int, ...]

INPUT = "input"
LAYER_NORM_EPSILON = 1e-5


class Part(Record, tag=True, kw_only=True):
    """One primitive operation: a name that is unique in its layer and the wires it reads."""

    name: str
    inputs: tuple[str, ...]

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for a first input of ``shape``."""
        return shape

    def weight_shapes(self) -> dict[str, Shape]:
        """Shapes of the shipped weights by name (batch norm folded); empty for most parts."""
        return {}

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates of convolutions and matrix products; nothing else counts."""
        del shape
        return 0


class Conv(Part, kw_only=True):
    """Square convolution padded by half its kernel, with a folded batch norm, then an activation.

    ``normalized`` says whether training has a batch norm here; shipped weights always have a bias.
    """

    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: Activation = "none"
    normalized: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        _, height, width = shape
        return (self.out_channels, _strided(height, self), _strided(width, self))

    def weight_shapes(self) -> dict[str, Shape]:
        per_group = self.in_channels // self.groups
        return {
            "weight": (self.out_channels, per_group, self.kernel, self.kernel),
            "bias": (self.out_channels,),
        }

    def macs(self, shape: Shape) -> int:
        _, height, width = self.output_shape(shape)
        return math.prod(self.weight_shapes()["weight"]) * height * width


class Linear(Part, kw_only=True):
    """Fully connected layer on a (channels, 1, 1) or (features,) input."""

    in_channels: int
    out_channels: int

    def output_shape(self, shape: Shape) -> Shape:
        del shape
        return (self.out_channels,)

    def weight_shapes(self) -> dict[str, Shape]:
        return {"weight": (self.out_channels, self.in_channels), "bias": (self.out_channels,)}

    def macs(self, shape: Shape) -> int:
        del shape
        return self.in_channels * self.out_channels


class Activate(Part, kw_only=True):
    """An activation on its own, before a convolution."""

    activation: Activation


class Add(Part, kw_only=True):
    """Sum of two wires of equal shape, then an activation."""

    activation: Activation = "none"


class Scale(Part, kw_only=True):
    """Multiplies the first wire's channels by the second wire, which is (channels, 1, 1)."""


class GlobalPool(Part, kw_only=True):
    """Mean over height and width: (channels, 1, 1)."""

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], 1, 1)


class AveragePool(Part, kw_only=True):
    """Mean over a square window padded by half its kernel; padding does not count in the mean.

    An even kernel halves sizes without padding: kernel 2, stride 2.
    """

    kernel: int
    stride: int = 1

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = shape
        return (channels, _strided(height, self), _strided(width, self))


class Zero(Part, kw_only=True):
    """Zeros of the input's shape: what a cell without any path from its input gives."""


class Embed(Part, kw_only=True):
    """A vector for every token plus one for its place.

    ``vocabulary`` is how many tokens there are; 0, the padding, is a token like any other: no mask
    enters the network, which therefore has kernels that depend on its sizes alone.
    """

    vocabulary: int
    tokens: int
    out_channels: int

    def output_shape(self, shape: Shape) -> Shape:
        return (self.out_channels, *shape[1:])

    def weight_shapes(self) -> dict[str, Shape]:
        return {
            "weight": (self.vocabulary, self.out_channels),
            "position": (self.tokens, self.out_channels),
        }


class LayerNorm(Part, kw_only=True):
    """Every token's channels to mean 0 and deviation 1, then scaled and shifted.

    Source: Ba et al., Layer normalization (2016).
    """

    in_channels: int

    def weight_shapes(self) -> dict[str, Shape]:
        return {"weight": (self.in_channels,), "bias": (self.in_channels,)}


class Attention(Part, kw_only=True):
    """Every token's mean of the values of all tokens, weighted by how its query meets their keys.

    It reads three wires: queries, keys, values. ``heads`` divide the channels.

    Source: Vaswani et al., Attention is all you need (2017), equation 1.
    """

    in_channels: int
    heads: int

    def macs(self, shape: Shape) -> int:
        channels, _, tokens = shape
        return 2 * channels * tokens**2


AnyPart: TypeAlias = (
    Conv | Linear | Activate | Add | Scale | GlobalPool | AveragePool | Zero | Embed | LayerNorm | Attention
)
WeightedPart: TypeAlias = Conv | Linear | Embed | LayerNorm


def padding(part: Conv | AveragePool) -> int:
    """Pixels added on every side: half the kernel where it is odd, none where it is even."""
    return part.kernel // 2 if part.kernel % 2 else 0


def _strided(size: int, part: Conv | AveragePool) -> int:
    return (size + 2 * padding(part) - part.kernel) // part.stride + 1


def squeeze_excite(source: str, channels: int) -> tuple[AnyPart, ...]:
    """Channel attention on the wire ``source``; its output is the wire ``"scale"``.

    The bottleneck is a quarter of the channels, rounded to a multiple of 8.

    Source: Howard et al., Searching for MobileNetV3 (2019), section 5.3.
    """
    squeezed = divisible(channels / 4)
    return (
        GlobalPool(name="squeeze", inputs=(source,)),
        Conv(name="reduce", inputs=("squeeze",), in_channels=channels, out_channels=squeezed,
             activation="relu", normalized=False),
        Conv(name="excite", inputs=("reduce",), in_channels=squeezed, out_channels=channels,
             activation="hardsigmoid", normalized=False),
        Scale(name="scale", inputs=(source, "excite")),
    )  # fmt: skip


def divisible(channels: float, by: int = 8) -> int:
    """The multiple of ``by`` nearest to ``channels``, never more than a tenth below it.

    Source: ``_make_divisible`` of the MobileNet reference code (tensorflow/models).
    """
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded
