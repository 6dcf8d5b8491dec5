"""Networks as short lists of typed layers.

A layer is what a search decides about: a stem, a block, a head. ``parts()`` says what it is made
of. Layers are frozen, hashable and travel as JSON; ``precision`` is what the layer runs in on the
device, "int8" standing for quantized weights and activations.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

from edgenas.records import Precision, Record
from edgenas.search_spaces.parts import (
    INPUT,
    Activation,
    Add,
    AnyPart,
    Conv,
    GlobalPool,
    Linear,
    Shape,
    squeeze_excite,
)


class Layer(Record, tag=True, kw_only=True):
    """One named layer; every concrete layer is a record of its own."""

    name: str
    in_channels: int
    out_channels: int
    precision: Precision = "fp32"

    def parts(self) -> tuple[AnyPart, ...]:
        """The primitive operations in execution order; the last one is the layer's output."""
        raise NotImplementedError

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output of one image for an input of ``shape`` (channels, height, width)."""
        return wire_shapes(self, shape)[parts_of(self)[-1].name]


class ConvLayer(Layer, kw_only=True):
    """Convolution, batch norm, activation: the stem."""

    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu"

    def parts(self) -> tuple[AnyPart, ...]:
        return (_conv("conv", INPUT, self.in_channels, self.out_channels,
                      self.kernel, self.stride, self.activation),)  # fmt: skip


class Block(Layer, kw_only=True):
    """What the blocks of a stage share: a hidden width, a kernel, a stride, SE and activation."""

    hidden: int
    kernel: int = 3
    stride: int = 1
    se: bool = False
    activation: Activation = "relu"

    @property
    def keeps_shape(self) -> bool:
        """Whether the input can be added to the output as it is."""
        return self.stride == 1 and self.in_channels == self.out_channels

    def _attention(self, source: str, channels: int) -> tuple[tuple[AnyPart, ...], str]:
        """The SE parts on ``source``, if any, and the wire to go on from."""
        if not self.se:
            return (), source
        return squeeze_excite(source, channels), "scale"

    def _linear_residual(self, output: str) -> tuple[AnyPart, ...]:
        """The addition of the input, without activation, where shapes allow it."""
        return (Add(name="add", inputs=(output, INPUT)),) if self.keeps_shape else ()


class InvertedResidual(Block):
    """Pointwise expansion to ``hidden``, depthwise, SE, linear projection, residual.

    ``hidden`` equal to the input channels leaves the expansion out.

    Source: Sandler et al., MobileNetV2 (2018); Howard et al., MobileNetV3 (2019).
    """

    def parts(self) -> tuple[AnyPart, ...]:
        expand: tuple[AnyPart, ...] = ()
        source = INPUT
        if self.hidden != self.in_channels:
            expand = (_conv("expand", INPUT, self.in_channels, self.hidden, activation=self.activation),)
            source = "expand"
        depthwise = _conv("depthwise", source, self.hidden, self.hidden, self.kernel, self.stride,
                          self.activation, groups=self.hidden)  # fmt: skip
        attention, source = self._attention("depthwise", self.hidden)
        project = _conv("project", source, self.hidden, self.out_channels)
        return (*expand, depthwise, *attention, project, *self._linear_residual("project"))


class FusedInvertedResidual(Block):
    """Full convolution to ``hidden``, SE, linear projection, residual.

    More MACs than ``InvertedResidual`` in fewer, denser kernels, which CPUs run closer to their
    peak. ``hidden`` equal to the input channels leaves the projection out: one convolution.

    Source: Tan and Le, EfficientNetV2 (2021), figure 2; Xiong et al., MobileDets (2020).
    """

    def parts(self) -> tuple[AnyPart, ...]:
        plain = self.hidden == self.in_channels
        width = self.out_channels if plain else self.hidden
        convolve = _conv(
            "convolve", INPUT, self.in_channels, width, self.kernel, self.stride, self.activation
        )
        attention, output = self._attention("convolve", width)
        if plain:
            return (convolve, *attention, *self._linear_residual(output))
        project = _conv("project", output, width, self.out_channels)
        return (convolve, *attention, project, *self._linear_residual("project"))


class BasicBlock(Block):
    """Two full convolutions with a residual and a last activation; projection where shapes differ.

    Source: He et al., Deep residual learning (2016).
    """

    def parts(self) -> tuple[AnyPart, ...]:
        first = _conv(
            "conv1", INPUT, self.in_channels, self.hidden, self.kernel, self.stride, self.activation
        )
        second = _conv("conv2", "conv1", self.hidden, self.out_channels, self.kernel)
        attention, output = self._attention("conv2", self.out_channels)
        return (first, second, *attention, *_shortcut(self, output))


class Bottleneck(Block):
    """Pointwise to ``hidden``, full convolution, pointwise, residual and a last activation.

    Source: He et al., Deep residual learning (2016), with the stride in the 3x3 convolution.
    """

    def parts(self) -> tuple[AnyPart, ...]:
        reduce = _conv("conv1", INPUT, self.in_channels, self.hidden, activation=self.activation)
        convolve = _conv(
            "conv2", "conv1", self.hidden, self.hidden, self.kernel, self.stride, self.activation
        )
        expand = _conv("conv3", "conv2", self.hidden, self.out_channels)
        attention, output = self._attention("conv3", self.out_channels)
        return (reduce, convolve, expand, *attention, *_shortcut(self, output))


class Head(Layer, kw_only=True):
    """Pointwise convolution, global mean, optional hidden layer, classifier.

    ``out_channels`` is the number of classes; ``features`` or ``hidden`` of 0 leaves that part out.
    """

    features: int = 0
    hidden: int = 0
    activation: Activation = "relu"

    def parts(self) -> tuple[AnyPart, ...]:
        parts: list[AnyPart] = []
        source, width = INPUT, self.in_channels
        if self.features:
            parts.append(_conv("features", source, width, self.features, activation=self.activation))
            source, width = "features", self.features
        parts.append(GlobalPool(name="pool", inputs=(source,)))
        source = "pool"
        if self.hidden:
            parts.append(Conv(name="hidden", inputs=(source,), in_channels=width, out_channels=self.hidden,
                              activation=self.activation, normalized=False))  # fmt: skip
            source, width = "hidden", self.hidden
        classify = Linear(
            name="classify", inputs=(source,), in_channels=width, out_channels=self.out_channels
        )
        return (*parts, classify)


AnyLayer: TypeAlias = ConvLayer | InvertedResidual | FusedInvertedResidual | BasicBlock | Bottleneck | Head


@functools.lru_cache(maxsize=65536)
def parts_of(layer: Layer) -> tuple[AnyPart, ...]:
    """``layer.parts()``, computed once for equal layers."""
    return layer.parts()


def wire_shapes(layer: Layer, shape: Shape) -> dict[str, Shape]:
    """Shape of every wire of the layer for an input of ``shape``, by part name."""
    shapes = {INPUT: shape}
    for part in parts_of(layer):
        shapes[part.name] = part.output_shape(shapes[part.inputs[0]])
    return shapes


def _conv(  # noqa: PLR0917 - reads like the table of layers in a paper
    name: str,
    source: str,
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    activation: Activation = "none",
    groups: int = 1,
) -> Conv:
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


def _shortcut(block: Block, output: str) -> tuple[AnyPart, ...]:
    """The residual addition of ``block`` with its activation, projected where shapes differ."""
    if block.keeps_shape:
        return (Add(name="add", inputs=(output, INPUT), activation=block.activation),)
    shortcut = _conv("shortcut", INPUT, block.in_channels, block.out_channels, stride=block.stride)
    return (shortcut, Add(name="add", inputs=(output, "shortcut"), activation=block.activation))
