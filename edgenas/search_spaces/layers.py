"""The layers of image classifiers: a stem, blocks, a head."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, TypeAlias

import msgspec

from edgenas.search_spaces.cells import Cell, PreActivationBlock
from edgenas.search_spaces.encoder import Embedding, EncoderLayer
from edgenas.search_spaces.layer import Compression, Layer, conv, first_factor, pointwise, rank_of
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


class HiddenChannels(NamedTuple):
    """Channels inside a block that are pruned together.

    Attributes:
        producers: parts that have them as outputs, in execution order (a depthwise convolution has
            them on both sides and counts here); the last one with a batch norm makes them.
        consumers: parts that read them; the last one makes the block's output of them.
    """

    producers: tuple[str, ...]
    consumers: tuple[str, ...]


class Block(Layer, kw_only=True):
    """What the blocks of a stage share: a hidden width, a kernel, a stride, SE and activation.

    ``hidden`` is what pruning left. ``compression`` is unset, and not written, in all other blocks.
    """

    hidden_channels: ClassVar[tuple[HiddenChannels, ...]]

    hidden: int
    kernel: int = 3
    stride: int = 1
    se: bool = False
    activation: Activation = "relu"
    compression: Compression | msgspec.UnsetType = msgspec.UNSET

    @property
    def unpruned(self) -> int:
        """Hidden channels before pruning."""
        return (self.compression.unpruned if self.compression else 0) or self.hidden

    @property
    def keeps_shape(self) -> bool:
        """Whether the input can be added to the output as it is."""
        return self.stride == 1 and self.in_channels == self.out_channels

    def _attention(self, source: str, channels: int) -> tuple[tuple[AnyPart, ...], str]:
        """The SE parts on ``source``, if any, and the wire to go on from."""
        if not self.se:
            return (), source
        return squeeze_excite(source, channels), "scale"

    def _project(self, source: str) -> tuple[AnyPart, ...]:
        """The linear pointwise convolution from the hidden channels to the block's output."""
        return pointwise("project", source, self.hidden, self.out_channels, "none", self.compression)

    def _linear_residual(self, output: str) -> tuple[AnyPart, ...]:
        """The addition of the input, without activation, where shapes allow it."""
        return (Add(name="add", inputs=(output, INPUT)),) if self.keeps_shape else ()


class InvertedResidual(Block):
    """Pointwise expansion to ``hidden``, depthwise, SE, linear projection, residual.

    ``hidden`` equal to the input channels, before pruning, leaves the expansion out.

    Source: Sandler et al., MobileNetV2 (2018); Howard et al., MobileNetV3 (2019).
    """

    hidden_channels = (HiddenChannels(("expand", "depthwise", "excite"), ("reduce", "project")),)

    def parts(self) -> tuple[AnyPart, ...]:
        expand: tuple[AnyPart, ...] = ()
        source = INPUT
        if self.unpruned != self.in_channels:
            expand = pointwise("expand", INPUT, self.in_channels, self.hidden, self.activation,
                               self.compression)  # fmt: skip
            source = "expand"
        depthwise = conv("depthwise", source, self.hidden, self.hidden, self.kernel, self.stride,
                          self.activation, groups=self.hidden)  # fmt: skip
        attention, source = self._attention("depthwise", self.hidden)
        project = self._project(source)
        return (*expand, depthwise, *attention, *project, *self._linear_residual("project"))


class FusedInvertedResidual(Block):
    """Full convolution to ``hidden``, SE, linear projection, residual.

    More MACs than ``InvertedResidual`` in fewer, denser kernels, which CPUs run closer to their
    peak. ``hidden`` equal to the input channels, before pruning, leaves the projection out: one
    convolution.

    Source: Tan and Le, EfficientNetV2 (2021), figure 2; Xiong et al., MobileDets (2020).
    """

    hidden_channels = (HiddenChannels(("convolve", "excite"), ("reduce", "project")),)

    def parts(self) -> tuple[AnyPart, ...]:
        plain = self.unpruned == self.in_channels
        width = self.out_channels if plain else self.hidden
        convolve = conv("convolve", INPUT, self.in_channels, width, self.kernel, self.stride, self.activation)
        attention, output = self._attention("convolve", width)
        if plain:
            return (convolve, *attention, *self._linear_residual(output))
        return (convolve, *attention, *self._project(output), *self._linear_residual("project"))


class BasicBlock(Block):
    """Two full convolutions with a residual and a last activation; projection where shapes differ.

    Source: He et al., Deep residual learning (2016).
    """

    hidden_channels = (HiddenChannels(("conv1",), ("conv2",)),)

    def parts(self) -> tuple[AnyPart, ...]:
        first = conv("conv1", INPUT, self.in_channels, self.hidden, self.kernel, self.stride, self.activation)
        second = conv("conv2", "conv1", self.hidden, self.out_channels, self.kernel)
        attention, output = self._attention("conv2", self.out_channels)
        return (first, second, *attention, *_shortcut(self, output))


class Bottleneck(Block):
    """Pointwise to ``hidden``, full convolution, pointwise, residual and a last activation.

    Source: He et al., Deep residual learning (2016), with the stride in the 3x3 convolution.
    """

    hidden_channels = (HiddenChannels(("conv1",), ("conv2",)), HiddenChannels(("conv2",), ("conv3",)))

    def parts(self) -> tuple[AnyPart, ...]:
        reduce = pointwise("conv1", INPUT, self.in_channels, self.hidden, self.activation, self.compression)
        convolve = conv("conv2", "conv1", self.hidden, self.hidden, self.kernel, self.stride, self.activation)
        expand = pointwise("conv3", "conv2", self.hidden, self.out_channels, "none", self.compression)
        attention, output = self._attention("conv3", self.out_channels)
        return (*reduce, convolve, *expand, *attention, *_shortcut(self, output))


class Head(Layer, kw_only=True):
    """Pointwise convolution, global mean, optional hidden layer, classifier.

    ``out_channels`` is the number of classes; ``features`` or ``hidden`` of 0 leaves that part out.
    """

    features: int = 0
    hidden: int = 0
    activation: Activation = "relu"
    compression: Compression | msgspec.UnsetType = msgspec.UNSET

    def parts(self) -> tuple[AnyPart, ...]:
        parts: list[AnyPart] = []
        source, width = INPUT, self.in_channels
        if self.features:
            parts += pointwise("features", source, width, self.features, self.activation, self.compression)
            source, width = "features", self.features
        parts.append(GlobalPool(name="pool", inputs=(source,)))
        source = "pool"
        if self.hidden:
            read, inputs = self._factored(parts, "hidden", source, width, self.hidden)
            parts.append(Conv(name="hidden", inputs=(read,), in_channels=inputs, out_channels=self.hidden,
                              activation=self.activation, normalized=False))  # fmt: skip
            source, width = "hidden", self.hidden
        source, width = self._factored(parts, "classify", source, width, self.out_channels)
        classify = Linear(
            name="classify", inputs=(source,), in_channels=width, out_channels=self.out_channels
        )
        return (*parts, classify)

    def _factored(
        self, parts: list[AnyPart], name: str, source: str, in_channels: int, out_channels: int
    ) -> tuple[str, int]:
        """Adds the first factor of ``name``, if it has one; returns what is left to read and its width."""
        rank = rank_of(in_channels, out_channels, self.compression.rank) if self.compression else 0
        if not rank:
            return source, in_channels
        parts.append(first_factor(name, source, in_channels, rank))
        return parts[-1].name, rank


AnyLayer: TypeAlias = (
    ConvLayer
    | InvertedResidual
    | FusedInvertedResidual
    | BasicBlock
    | Bottleneck
    | Cell
    | PreActivationBlock
    | Embedding
    | EncoderLayer
    | Head
)


def _shortcut(block: Block, output: str) -> tuple[AnyPart, ...]:
    """The residual addition of ``block`` with its activation, projected where shapes differ."""
    if block.keeps_shape:
        return (Add(name="add", inputs=(output, INPUT), activation=block.activation),)
    shortcut = conv("shortcut", INPUT, block.in_channels, block.out_channels, stride=block.stride)
    return (shortcut, Add(name="add", inputs=(output, "shortcut"), activation=block.activation))
