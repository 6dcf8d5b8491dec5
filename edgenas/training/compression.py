"""The shared weights as one layer uses them: sliced, and pruned and factored where it is compressed.

Pruned channels are chosen by what they contribute under the weights of the moment, and factors are
those of the moment's singular vectors. Neither choice is differentiated, the weights that are left
are, so that compressed networks of a supernet learn with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import msgspec
import torch
from torch import Tensor

from edgenas.search_spaces.layer import FIRST_FACTOR, parts_of
from edgenas.search_spaces.layers import AnyLayer, Block, Head, HiddenChannels
from edgenas.search_spaces.parts import Conv, Linear, WeightedPart

Slices: TypeAlias = dict[str, Tensor]
"""The tensors of one part by the suffixes of ``build_torch``'s names."""


def uncompressed(layer: AnyLayer) -> AnyLayer:
    """The layer whose weights ``layer`` shares: all hidden channels, no factors."""
    if isinstance(layer, Block):
        return msgspec.structs.replace(layer, hidden=layer.unpruned, compression=msgspec.UNSET)
    if isinstance(layer, Head):
        return msgspec.structs.replace(layer, compression=msgspec.UNSET)
    return layer


def layer_slices(layer: AnyLayer, sliced: Callable[[WeightedPart], Slices]) -> dict[str, Slices]:
    """The tensors of every weighted part of ``layer`` by the part's name, differentiable.

    Args:
        layer: any layer of the space.
        sliced: the shared tensors for a part of the uncompressed layer.
    """
    whole = uncompressed(layer)
    slices = {part.name: sliced(part) for part in parts_of(whole) if isinstance(part, WeightedPart)}
    if whole is layer or whole == layer:
        return slices
    if isinstance(layer, Block) and layer.unpruned > layer.hidden:
        for channels in layer.hidden_channels:
            _prune(slices, channels, layer.hidden)
    return _fitted(layer, slices)


def _fitted(layer: AnyLayer, slices: dict[str, Slices]) -> dict[str, Slices]:
    """The slices in the sizes that the parts of ``layer`` have, factored where it has two for one."""
    parts = {part.name: part for part in parts_of(layer) if isinstance(part, Conv | Linear)}
    fitted: dict[str, Slices] = {}
    for name, part in parts.items():
        if name.endswith(FIRST_FACTOR):
            continue
        first = parts.get(f"{name}{FIRST_FACTOR}")
        if first is None:
            fitted[name] = _narrowed(slices[name], part)
        else:
            fitted[first.name], fitted[name] = _factored(slices[name], first.out_channels)
    return fitted


def _prune(slices: dict[str, Slices], channels: HiddenChannels, count: int) -> None:
    """Leaves the ``count`` most important of a block's hidden channels, in their order."""
    producers = [name for name in channels.producers if name in slices]
    consumers = [name for name in channels.consumers if name in slices]
    maker = next(slices[name] for name in reversed(producers) if "_bn.weight" in slices[name])
    kept = contribution(maker, slices[consumers[-1]]).topk(count).indices.sort().values
    for name in producers:
        slices[name] = {suffix: tensor[kept] for suffix, tensor in slices[name].items()}
    for name in consumers:
        slices[name] = slices[name] | {".weight": slices[name][".weight"][:, kept]}


@torch.no_grad()
def contribution(maker: Slices, consumer: Slices) -> Tensor:
    """What each channel (C,) adds to a block's output: its own size times that of the weights on it.

    A batch norm makes channels of mean b and deviation g, and a Relu leaves the root mean square
    sqrt((b^2 + g^2) F(b / g) + b g f(b / g)), F and f being the normal distribution and its density.

    Source: Liu et al., Network slimming (2017), for the batch norm's scale as a channel's importance;
    Li et al., Pruning filters (2017), for the norm of its weights.
    """
    deviation, mean = maker["_bn.weight"].abs().clamp_min(1e-6), maker["_bn.bias"]
    ratio = mean / deviation
    density = torch.exp(-0.5 * ratio**2) / math.sqrt(2.0 * math.pi)
    square = (mean**2 + deviation**2) * torch.special.ndtr(ratio) + mean * deviation * density
    weights = consumer[".weight"].transpose(0, 1).flatten(1).norm(dim=1)
    size: Tensor = square.clamp_min(0.0).sqrt() * weights
    return size


def _narrowed(slices: Slices, part: Conv | Linear) -> Slices:
    """The first channels of a part whose size follows the hidden channels: the squeezed ones of SE."""
    inputs = part.in_channels // part.groups if isinstance(part, Conv) else part.in_channels
    narrow = {suffix: tensor[: part.out_channels] for suffix, tensor in slices.items()}
    return narrow | {".weight": narrow[".weight"][:, :inputs]}


def _factored(slices: Slices, rank: int) -> tuple[Slices, Slices]:
    """The part as two: a plain matrix of ``rank`` rows, and the rest with all that follows it.

    The weight is projected on its ``rank`` largest singular directions, which is the nearest matrix
    of that rank; both factors get the roots of the singular values, so that neither is hard to
    quantize.

    Source: Eckart and Young, The approximation of one matrix by another of lower rank (1936).
    """
    weight = slices[".weight"]
    matrix = weight.flatten(1)
    outputs, inputs = matrix.shape
    basis, sizes = _directions(matrix.detach(), rank)
    if outputs <= inputs:
        first, second = (basis / sizes).T @ matrix, basis * sizes
    else:
        first, second = (basis * sizes).T, matrix @ (basis / sizes)
    bias = torch.zeros(rank, device=weight.device)
    reduced = {".weight": first[:, :, None, None], ".bias": bias}
    return reduced, slices | {".weight": second.view(outputs, rank, *weight.shape[2:])}


@torch.no_grad()
def _directions(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Singular vectors (n, rank) on the shorter side of a matrix, and roots (rank,) of the values."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    # A diverged training is told by its loss; until then its matrices must not stop the solver.
    values, vectors = torch.linalg.eigh(gram.double().nan_to_num(0.0, 0.0, 0.0))
    roots = values[-rank:].clamp_min(1e-12) ** 0.25
    return vectors[:, -rank:].to(matrix.dtype), roots.to(matrix.dtype)
