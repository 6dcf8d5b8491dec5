"""The layers of a transformer encoder for text."""

from __future__ import annotations

from edgenas.search_spaces.layer import Layer
from edgenas.search_spaces.parts import (
    INPUT,
    Activation,
    Add,
    AnyPart,
    Attention,
    Conv,
    Embed,
    LayerNorm,
)


class Embedding(Layer, kw_only=True):
    """Token numbers to vectors of ``out_channels``; ``in_channels`` is 1, the row of numbers."""

    vocabulary: int
    tokens: int

    def parts(self) -> tuple[AnyPart, ...]:
        embed = Embed(name="embed", inputs=(INPUT,), vocabulary=self.vocabulary, tokens=self.tokens,
                      out_channels=self.out_channels)  # fmt: skip
        return (embed,)


class EncoderLayer(Layer, kw_only=True):
    """Attention and a feed-forward part of ``hidden`` channels, each normalized first and added.

    Source: Vaswani et al., Attention is all you need (2017); Xiong et al., On layer normalization in
    the transformer architecture (2020), for normalizing first.
    """

    heads: int
    hidden: int
    activation: Activation = "relu"

    def parts(self) -> tuple[AnyPart, ...]:
        width = self.in_channels
        return (
            LayerNorm(name="norm1", inputs=(INPUT,), in_channels=width),
            *(_token_wise(name, "norm1", width, width) for name in ("query", "key", "value")),
            Attention(name="attend", inputs=("query", "key", "value"), in_channels=width, heads=self.heads),
            _token_wise("mix", "attend", width, width),
            Add(name="attended", inputs=("mix", INPUT)),
            LayerNorm(name="norm2", inputs=("attended",), in_channels=width),
            _token_wise("expand", "norm2", width, self.hidden, self.activation),
            _token_wise("project", "expand", self.hidden, width),
            Add(name="add", inputs=("project", "attended")),
        )


def _token_wise(
    name: str, source: str, in_channels: int, out_channels: int, activation: Activation = "none"
) -> Conv:
    """A matrix for every token alone, with a bias."""
    return Conv(name=name, inputs=(source,), in_channels=in_channels, out_channels=out_channels,
                activation=activation, normalized=False)  # fmt: skip
