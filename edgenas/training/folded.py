"""Runs a network with its shipped weights, as float or with its int8 layers simulated.

Batch norms are folded already, so that this is what the ONNX builder writes; quantizing those
weights and every wire of an int8 layer comes close to what the quantizer will make of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edgenas.search_spaces.layer import parts_of
from edgenas.search_spaces.layers import AnyLayer
from edgenas.search_spaces.network import Network
from edgenas.search_spaces.parts import INPUT, AnyPart, Conv, Embed, LayerNorm, Linear, padding
from edgenas.search_spaces.torch_builder import activate, combine, embedded, normalized

_SEPARATE_ACTIVATIONS = ("hardswish", "hardsigmoid")


class FoldedNetwork:
    """A network for inference.

    Args:
        weights: by the keys of ``build_onnx``, batch norm folded.
        simulate_int8: layers whose precision is int8 get quantized weights and activations.
    """

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, npt.NDArray[np.float32]],
        *,
        device: torch.device | None = None,
        simulate_int8: bool = True,
    ) -> None:
        self.network = network
        self._weights = {key: torch.from_numpy(array).to(device or "cpu") for key, array in weights.items()}
        self._int8 = {layer.name for layer in network.layers if simulate_int8 and layer.precision == "int8"}
        for key, weight in self._weights.items():
            if key.split(".")[0] in self._int8 and key.endswith(".weight") and weight.ndim > 1:
                self._weights[key] = quantized_weight(weight)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, height, width)."""
        outputs = images
        with torch.inference_mode():
            for layer in self.network.layers:
                outputs = self._layer(layer, outputs)
        return outputs

    def _layer(self, layer: AnyLayer, inputs: Tensor) -> Tensor:
        int8 = layer.name in self._int8
        wires = {INPUT: quantized_activation(inputs) if int8 else inputs}
        for part in parts_of(layer):
            values = self._part(layer.name, part, [wires[wire] for wire in part.inputs], int8)
            wires[part.name] = quantized_activation(values) if int8 else values
        return wires[parts_of(layer)[-1].name]

    def _part(self, layer: str, part: AnyPart, inputs: list[Tensor], int8: bool) -> Tensor:
        if not isinstance(part, Conv | Linear | Embed | LayerNorm):
            return combine(part, inputs)
        weight, bias = (self._weights[f"{layer}.{part.name}.{kind}"] for kind in part.weight_shapes())
        if isinstance(part, Embed):
            return embedded(inputs[0], weight, bias)
        if isinstance(part, LayerNorm):
            return normalized(inputs[0], weight, bias)
        if isinstance(part, Linear):
            return F.linear(inputs[0].flatten(1), weight, bias)
        values = F.conv2d(inputs[0], weight, bias, part.stride, padding(part), 1, part.groups)
        if int8 and part.activation in _SEPARATE_ACTIVATIONS:
            values = quantized_activation(values)
        return activate(values, part.activation)


def quantized_weight(weight: Tensor) -> Tensor:
    """The nearest values of symmetric signed 8-bit integers with one scale."""
    scale = weight.abs().max().clamp_min(1e-12) / 127.0
    return (weight / scale).round_() * scale


def quantized_activation(values: Tensor) -> Tensor:
    """The nearest values of unsigned 8-bit integers that span the batch's own range and zero."""
    low, high = values.amin().clamp_max(0.0), values.amax().clamp_min(0.0)
    scale = ((high - low) / 255.0).clamp_min(1e-12)
    zero_point = (-low / scale).round()
    return ((values / scale + zero_point).round_().clamp_(0, 255) - zero_point) * scale
