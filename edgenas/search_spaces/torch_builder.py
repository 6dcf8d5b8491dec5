"""Builds the torch module of a network and folds its batch norms into what the ONNX builder takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.search_spaces.layer import output_wire, parts_of
from edgenas.search_spaces.layers import AnyLayer
from edgenas.search_spaces.network import Network
from edgenas.search_spaces.parts import (
    INPUT,
    LAYER_NORM_EPSILON,
    Activate,
    Activation,
    Add,
    AnyPart,
    Attention,
    AveragePool,
    Conv,
    Embed,
    GlobalPool,
    LayerNorm,
    Linear,
    Scale,
    Zero,
    padding,
)

BATCH_NORM_EPSILON = 1e-5
EMBEDDING_DEVIATION = 0.1

Weightless: TypeAlias = Activate | Add | Scale | GlobalPool | AveragePool | Zero | Attention
"""The parts of a layer that have no weights."""


class LayerModule(nn.Module):
    """One layer: children are named after its parts, a batch norm after its convolution + ``_bn``.

    Precision plays no role: every layer is trained in float.
    """

    def __init__(self, layer: AnyLayer) -> None:
        super().__init__()
        self.layer = layer
        for part in parts_of(layer):
            self._add_part(part)

    def forward(self, inputs: Tensor) -> Tensor:
        """Runs the parts in order on (N, channels, height, width), or on token numbers (N, tokens)."""
        wires = {INPUT: inputs}
        for part in parts_of(self.layer):
            wires[part.name] = self._run(part, [wires[wire] for wire in part.inputs])
        return wires[output_wire(self.layer)]

    def _add_part(self, part: AnyPart) -> None:
        if isinstance(part, Conv):
            self.add_module(part.name, _convolution(part))
            if part.normalized:
                self.add_module(f"{part.name}_bn", nn.BatchNorm2d(part.out_channels, BATCH_NORM_EPSILON))
        elif isinstance(part, Linear):
            self.add_module(part.name, _linear(part))
        elif isinstance(part, Embed):
            self.add_module(part.name, EmbedModule(part))
        elif isinstance(part, LayerNorm):
            self.add_module(part.name, nn.LayerNorm(part.in_channels, LAYER_NORM_EPSILON))

    def _run(self, part: AnyPart, inputs: list[Tensor]) -> Tensor:
        match part:
            case Conv():
                return activate(self._convolve(part, inputs[0]), part.activation)
            case Linear():
                flat: Tensor = self.get_submodule(part.name)(inputs[0].flatten(1))
                return flat
            case Embed():
                embed = self.get_submodule(part.name)
                assert isinstance(embed, EmbedModule), "made with the part"
                return embedded(inputs[0], embed.weight, embed.position)
            case LayerNorm():
                norm = self.get_submodule(part.name)
                assert isinstance(norm, nn.LayerNorm), "made with the part"
                return normalized(inputs[0], norm.weight, norm.bias)
            case _:
                return combine(part, inputs)

    def _convolve(self, part: Conv, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.get_submodule(part.name)(inputs)
        if part.normalized:
            outputs = self.get_submodule(f"{part.name}_bn")(outputs)
        return outputs


class NetworkModule(nn.Module):
    """A network for training: one child a layer, named after it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        for layer in network.layers:
            self.add_module(layer.name, LayerModule(layer))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, height, width)."""
        outputs = images
        for layer in self.network.layers:
            outputs = self.get_submodule(layer.name)(outputs)
        return outputs


def build_torch(network: Network) -> NetworkModule:
    """The network as a torch module with freshly drawn weights (torch's global generator).

    State-dict names are ``layer.part.weight``; a batch norm's are ``layer.part_bn.weight``, ``.bias``,
    ``.running_mean``, ``.running_var``.
    """
    return NetworkModule(network)


def folded_weights(module: nn.Module, network: Network) -> dict[str, npt.NDArray[np.float32]]:
    """The shipped weights of ``module`` by the keys that ``build_onnx`` takes, batch norms folded."""
    state = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    return fold(state, network)


def fold(
    state: Mapping[str, npt.NDArray[np.generic]], network: Network
) -> dict[str, npt.NDArray[np.float32]]:
    """As ``folded_weights``, from a state dict of arrays.

    y = gamma (w x - mean) / sqrt(var + eps) + beta is one convolution; computed in float64.
    """
    folded: dict[str, npt.NDArray[np.float32]] = {}
    for layer in network.layers:
        for part in parts_of(layer):
            key = f"{layer.name}.{part.name}"
            if isinstance(part, Conv) and part.normalized:
                weight, bias = _fold_batch_norm(state, key)
                folded[f"{key}.weight"] = weight.astype(np.float32)
                folded[f"{key}.bias"] = bias.astype(np.float32)
            else:
                for kind in part.weight_shapes():
                    folded[f"{key}.{kind}"] = np.asarray(state[f"{key}.{kind}"], np.float32)
    return folded


def combine(part: Weightless, inputs: Sequence[Tensor]) -> Tensor:
    """The output of ``part`` for its inputs (N, C, H, W) in order."""
    match part:
        case Activate():
            return activate(inputs[0], part.activation)
        case Add():
            return activate(inputs[0] + inputs[1], part.activation)
        case Scale():
            return inputs[0] * inputs[1]
        case GlobalPool():
            return inputs[0].mean((2, 3), keepdim=True)
        case Attention():
            return attended(inputs[0], inputs[1], inputs[2], part.heads)
        case Zero():
            return torch.zeros_like(inputs[0])
        case AveragePool():
            return F.avg_pool2d(inputs[0], part.kernel, part.stride, padding(part), count_include_pad=False)


def activate(values: Tensor, activation: Activation) -> Tensor:
    """The activation of that name, the same function as the ONNX builder's nodes."""
    match activation:
        case "relu":
            return F.relu(values)
        case "hardswish":
            return F.hardswish(values)
        case "hardsigmoid":
            return F.hardsigmoid(values)
        case "none":
            return values


class EmbedModule(nn.Module):
    """The vectors of all tokens and places."""

    def __init__(self, part: Embed) -> None:
        super().__init__()
        shapes = part.weight_shapes()
        self.weight = nn.Parameter(torch.randn(shapes["weight"]) * EMBEDDING_DEVIATION)
        self.position = nn.Parameter(torch.randn(shapes["position"]) * EMBEDDING_DEVIATION)


def embedded(tokens: Tensor, weight: Tensor, position: Tensor) -> Tensor:
    """Vectors (N, channels, 1, tokens) of token numbers (N, tokens)."""
    vectors: Tensor = F.embedding(tokens, weight) + position
    return vectors.transpose(1, 2).unsqueeze(2)


def normalized(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layer norm over the channels of (N, channels, 1, tokens)."""
    last = values.movedim(1, -1)
    normal: Tensor = F.layer_norm(last, tuple(weight.shape), weight, bias, LAYER_NORM_EPSILON)
    return normal.movedim(-1, 1)


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention between the tokens of (N, channels, 1, tokens)."""
    count, channels, _, tokens = query.shape
    query, key, value = (
        wire.reshape(count, heads, channels // heads, tokens) for wire in (query, key, value)
    )
    scores: Tensor = query.transpose(2, 3) @ key * (channels // heads) ** -0.5
    return (value @ scores.softmax(-1).transpose(2, 3)).reshape(count, channels, 1, tokens)


def _convolution(part: Conv) -> nn.Conv2d:
    convolution = nn.Conv2d(
        part.in_channels,
        part.out_channels,
        part.kernel,
        part.stride,
        padding(part),
        groups=part.groups,
        bias=not part.normalized,
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def _linear(part: Linear) -> nn.Linear:
    linear = nn.Linear(part.in_channels, part.out_channels)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear


def _fold_batch_norm(
    state: Mapping[str, npt.NDArray[np.generic]], key: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    gamma, beta, mean, variance = (
        np.asarray(state[f"{key}_bn.{name}"], np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    weight = np.asarray(state[f"{key}.weight"], np.float64)
    return weight * factor[:, None, None, None], beta - mean * factor
