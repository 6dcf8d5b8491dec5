"""The layers of image classifiers: a stem, blocks, a head."""

from __future__ import annotations

from typing import TypeAlias

from edgenas.search_spaces.cells import Cell, PreActivationBlock
from edgenas.search_spaces.layer import Layer, conv
from edgenas.search_spaces.parts import (
    INPUT,
    Activation,
    Add,
    AnyPart,
    Conv,
    GlobalPool,
    Linear,
    squeeze_excite,
)


class ConvLayer(Layer, kw_only=True):
    """Convolution, batch norm, activation: the stem, or a change of shape between stages.

    ``groups`` equal to the channels with a kernel of 1 is a batch norm of its own, as runtimes write
    one that follows no convolution.
    """

    kernel: int = 3
    stride: int = 1
    groups: int = 1
    activation: Activation = "relu"

    def parts(self) -> tuple[AnyPart, ...]:
        return (conv("conv", INPUT, self.in_channels, self.out_channels, self.kernel, self.stride,
                     self.activation, self.groups),)  # fmt: skip


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
            expand = (conv("expand", INPUT, self.in_channels, self.hidden, activation=self.activation),)
            source = "expand"
        depthwise = conv("depthwise", source, self.hidden, self.hidden, self.kernel, self.stride,
                          self.activation, groups=self.hidden)  # fmt: skip
        attention, source = self._attention("depthwise", self.hidden)
        project = conv("project", source, self.hidden, self.out_channels)
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
        convolve = conv("convolve", INPUT, self.in_channels, width, self.kernel, self.stride, self.activation)
        attention, output = self._attention("convolve", width)
        if plain:
            return (convolve, *attention, *self._linear_residual(output))
        project = conv("project", output, width, self.out_channels)
        return (convolve, *attention, project, *self._linear_residual("project"))


class BasicBlock(Block):
    """Two full convolutions with a residual and a last activation; projection where shapes differ.

    Source: He et al., Deep residual learning (2016).
    """

    def parts(self) -> tuple[AnyPart, ...]:
        first = conv("conv1", INPUT, self.in_channels, self.hidden, self.kernel, self.stride, self.activation)
        second = conv("conv2", "conv1", self.hidden, self.out_channels, self.kernel)
        attention, output = self._attention("conv2", self.out_channels)
        return (first, second, *attention, *_shortcut(self, output))


class Bottleneck(Block):
    """Pointwise to ``hidden``, full convolution, pointwise, residual and a last activation.

    Source: He et al., Deep residual learning (2016), with the stride in the 3x3 convolution.
    """

    def parts(self) -> tuple[AnyPart, ...]:
        reduce = conv("conv1", INPUT, self.in_channels, self.hidden, activation=self.activation)
        convolve = conv("conv2", "conv1", self.hidden, self.hidden, self.kernel, self.stride, self.activation)
        expand = conv("conv3", "conv2", self.hidden, self.out_channels)
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
            parts.append(conv("features", source, width, self.features, activation=self.activation))
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


AnyLayer: TypeAlias = (
    ConvLayer
    | InvertedResidual
    | FusedInvertedResidual
    | BasicBlock
    | Bottleneck
    | Cell
    | PreActivationBlock
    | Head
)


def _shortcut(block: Block, output: str) -> tuple[AnyPart, ...]:
    """The residual addition of ``block`` with its activation, projected where shapes differ."""
    if block.keeps_shape:
        return (Add(name="add", inputs=(output, INPUT), activation=block.activation),)
    shortcut = conv("shortcut", INPUT, block.in_channels, block.out_channels, stride=block.stride)
    return (shortcut, Add(name="add", inputs=(output, "shortcut"), activation=block.activation))
