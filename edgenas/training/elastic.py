"""Convolutions and classifiers that many layers share: each runs with a slice of the same weights.

A layer uses the first of the shared channels and the centre of the shared kernel, passed through a
learned matrix for each smaller kernel size, so that a small kernel need not be a copy of the middle
of a large one.

Source: Cai et al., Once for All (2020), section 3.3, for kernels; Yu et al., BigNAS (2020), for
training all slices at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.errors import UsageError
from edgenas.search_spaces.parts import Conv, Embed, LayerNorm, Linear, padding
from edgenas.search_spaces.torch_builder import BATCH_NORM_EPSILON, EMBEDDING_DEVIATION


class Moments(ABC):
    """Where a batch norm takes its mean and variance (channels,) from."""

    @abstractmethod
    def normalize(self, key: str, values: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Batch norm of ``values`` (N, C, H, W); ``key`` names the part in its network."""


class BatchMoments(Moments):
    """Each batch's own, as in training."""

    def normalize(self, key: str, values: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        del key
        return F.batch_norm(values, None, None, gamma, beta, training=True, eps=BATCH_NORM_EPSILON)


class CollectedMoments(BatchMoments):
    """Each batch's own, whose averages are kept: recalibration of one network.

    Source: Cai et al., Once for All (2020), set_running_statistics.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def normalize(self, key: str, values: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        variance, mean = torch.var_mean(values.detach(), dim=(0, 2, 3), correction=0)
        means, variances, batches = self._sums.get(key, (0.0, 0.0, 0))
        self._sums[key] = (means + mean, variances + variance, batches + 1)
        return super().normalize(key, values, gamma, beta)

    def averages(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and variance by part, averaged over the batches."""
        return {key: (means / n, variances / n) for key, (means, variances, n) in self._sums.items()}


class SharedConv(nn.Module):
    """One convolution for all parts that stand in the same place of a space.

    Raises:
        UsageError: the parts have groups that are neither 1 nor one a channel.
    """

    def __init__(self, parts: Sequence[Conv], generator: torch.Generator) -> None:
        super().__init__()
        depthwise = parts[0].groups > 1
        if any(part.groups != (part.in_channels if depthwise else 1) for part in parts):
            raise UsageError(f"convolution '{parts[0].name}' has groups that cannot share weights")
        kernels = sorted({part.kernel for part in parts}, reverse=True)
        outputs = max(part.out_channels for part in parts)
        inputs = 1 if depthwise else max(part.in_channels for part in parts)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernels[0], kernels[0]))
        # As torch_builder draws a network's own weights, by the fan of the largest slice.
        deviation = math.sqrt(2.0 / ((1 if depthwise else outputs) * kernels[0] ** 2))
        nn.init.normal_(self.weight, std=deviation, generator=generator)
        self.scale = nn.Parameter(torch.ones(outputs)) if parts[0].normalized else None
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.kernels = kernels
        self.transforms = nn.ParameterDict(
            {str(kernel): nn.Parameter(torch.eye(kernel * kernel)) for kernel in kernels[1:]}
        )

    def weight_of(self, part: Conv) -> Tensor:
        """The weight (out, in / groups, kernel, kernel) of ``part``, differentiable."""
        weight = self.weight[: part.out_channels, : part.in_channels // part.groups]
        for kernel in self.kernels[1:]:
            if kernel < part.kernel:
                break
            weight = _centre(weight, kernel)
            weight = (weight.flatten(2) @ self.transforms[str(kernel)]).view(weight.shape)
        return weight

    def slices(self, part: Conv) -> dict[str, Tensor]:
        """The state of ``part`` by the suffixes of ``build_torch``'s names, without statistics."""
        bias = self.bias[: part.out_channels]
        if self.scale is None:
            return {".weight": self.weight_of(part), ".bias": bias}
        scale = self.scale[: part.out_channels]
        return {".weight": self.weight_of(part), "_bn.weight": scale, "_bn.bias": bias}


class SharedLinear(nn.Module):
    """One classifier for all parts that stand in the same place of a space."""

    def __init__(self, parts: Sequence[Linear], generator: torch.Generator) -> None:
        super().__init__()
        inputs, outputs = (
            max(getattr(part, side) for part in parts) for side in ("in_channels", "out_channels")
        )
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.normal_(self.weight, std=0.01, generator=generator)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def weight_of(self, part: Linear) -> Tensor:
        """The weight (out, in) of ``part``, differentiable."""
        return self.weight[: part.out_channels, : part.in_channels]

    def slices(self, part: Linear) -> dict[str, Tensor]:
        """The state of ``part`` by the suffixes of ``build_torch``'s names."""
        return {".weight": self.weight_of(part), ".bias": self.bias[: part.out_channels]}


class SharedEmbed(nn.Module):
    """One table of vectors for all embeddings that stand in the same place of a space."""

    def __init__(self, parts: Sequence[Embed], generator: torch.Generator) -> None:
        super().__init__()
        channels, tokens = (max(getattr(part, side) for part in parts) for side in ("out_channels", "tokens"))
        self.weight = nn.Parameter(torch.empty(parts[0].vocabulary, channels))
        self.position = nn.Parameter(torch.empty(tokens, channels))
        for vectors in (self.weight, self.position):
            nn.init.normal_(vectors, std=EMBEDDING_DEVIATION, generator=generator)

    def slices(self, part: Embed) -> dict[str, Tensor]:
        """The state of ``part`` by the suffixes of ``build_torch``'s names."""
        width = part.out_channels
        return {".weight": self.weight[:, :width], ".position": self.position[: part.tokens, :width]}


class SharedNorm(nn.Module):
    """One layer norm's scale and shift for all that stand in the same place of a space."""

    def __init__(self, parts: Sequence[LayerNorm]) -> None:
        super().__init__()
        channels = max(part.in_channels for part in parts)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def slices(self, part: LayerNorm) -> dict[str, Tensor]:
        """The state of ``part`` by the suffixes of ``build_torch``'s names."""
        return {".weight": self.weight[: part.in_channels], ".bias": self.bias[: part.in_channels]}


def convolve(part: Conv, slices: Mapping[str, Tensor], inputs: Tensor, moments: Moments, key: str) -> Tensor:
    """Convolution and batch norm of ``part`` with what ``slices`` gave, without its activation."""
    values = F.conv2d(
        inputs, slices[".weight"], slices.get(".bias"), part.stride, padding(part), 1, part.groups
    )
    if not part.normalized:
        return values
    return moments.normalize(key, values, slices["_bn.weight"], slices["_bn.bias"])


def _centre(weight: Tensor, kernel: int) -> Tensor:
    start = (weight.shape[-1] - kernel) // 2
    return weight[..., start : start + kernel, start : start + kernel]
