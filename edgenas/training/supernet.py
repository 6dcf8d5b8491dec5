"""One set of weights for every network of a search space."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.search_spaces.layer import parts_of
from edgenas.search_spaces.layers import AnyLayer
from edgenas.search_spaces.network import Network
from edgenas.search_spaces.parts import INPUT, AnyPart, Conv, Embed, LayerNorm, Linear, WeightedPart
from edgenas.search_spaces.space import Genomes, SearchSpace
from edgenas.search_spaces.torch_builder import activate, build_torch, combine, embedded, fold, normalized
from edgenas.training.compression import Slices, layer_slices, uncompressed
from edgenas.training.elastic import (
    BatchMoments,
    CollectedMoments,
    Moments,
    SharedConv,
    SharedEmbed,
    SharedLinear,
    SharedNorm,
    convolve,
)
from edgenas.training.folded import FoldedNetwork

Shared: TypeAlias = SharedConv | SharedLinear | SharedEmbed | SharedNorm


class Supernet(nn.Module):
    """Every network of ``space``, one at a time, on shared weights.

    Parts of the same layer name, layer type and part name share their weights; which of them run,
    and how much of each, follows the active genome; compressed layers prune and factor what the
    uncompressed ones hold. Weights are shared between precisions and
    activations too. In training, batch norms use the batch's own statistics; in evaluation those
    that ``calibrate`` took for the active network, because averages over many networks fit none.

    Args:
        seed: of the first weights.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        generator = torch.Generator().manual_seed(seed)
        self.shared = nn.ModuleDict(
            {place: _shared(parts, generator) for place, parts in _parts_by_place(space).items()}
        )
        self._network = space.network(space.largest())
        self._moments: Moments = BatchMoments()
        self._calibrated: tuple[dict[str, tuple[Tensor, Tensor]], FoldedNetwork] | None = None

    @property
    def network(self) -> Network:
        """The active network."""
        return self._network

    def set_active(self, genome: Genomes) -> None:
        """Makes the network of ``genome`` (genes,) the active one; it is not calibrated."""
        self._network = self.space.network(genome)
        self._calibrated = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) through the active network."""
        if not self.training:
            assert self._calibrated is not None, "calibrate the active network before evaluating it"
            return self._calibrated[1](images)
        outputs = images
        for layer in self._network.layers:
            outputs = self._layer(layer, outputs)
        return outputs

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Takes the statistics of the active network's batch norms from batches (N, C, H, W)."""
        collected = CollectedMoments()
        was_training = self.training
        self.train()
        self._moments = collected
        try:
            for batch in batches:
                self(batch)
        finally:
            self._moments = BatchMoments()
            self.train(was_training)
        averages = collected.averages()
        weights = fold({k: v.cpu().numpy() for k, v in self._state(averages).items()}, self._network)
        device = next(self.parameters()).device
        self._calibrated = averages, FoldedNetwork(self._network, weights, device=device)

    def subnet_state(self) -> dict[str, Tensor]:
        """Copies for ``build_torch`` of the active, calibrated network, with the same outputs."""
        assert self._calibrated is not None, "calibrate the active network before taking it out"
        return self._state(self._calibrated[0])

    def extract(self) -> nn.Module:
        """The active, calibrated network as a module of its own, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            module = build_torch(self._network)
        module.load_state_dict(self.subnet_state())
        return module.to(next(self.parameters()).device).eval()

    def _layer(self, layer: AnyLayer, inputs: Tensor) -> Tensor:
        slices = self._slices(layer)
        wires = {INPUT: inputs}
        for part in parts_of(layer):
            read = [wires[wire] for wire in part.inputs]
            wires[part.name] = self._part(layer, part, slices.get(part.name, {}), read)
        return wires[parts_of(layer)[-1].name]

    def _part(self, layer: AnyLayer, part: AnyPart, slices: Slices, inputs: list[Tensor]) -> Tensor:
        if isinstance(part, Linear):
            return F.linear(inputs[0].flatten(1), slices[".weight"], slices[".bias"])
        if isinstance(part, Conv):
            values = convolve(part, slices, inputs[0], self._moments, f"{layer.name}.{part.name}")
            return activate(values, part.activation)
        if isinstance(part, Embed):
            return embedded(inputs[0], slices[".weight"], slices[".position"])
        if isinstance(part, LayerNorm):
            return normalized(inputs[0], slices[".weight"], slices[".bias"])
        return combine(part, inputs)

    def _slices(self, layer: AnyLayer) -> dict[str, Slices]:
        def sliced(part: WeightedPart) -> Slices:
            shared = self.shared[_place(layer, part)]
            assert isinstance(shared, Shared), "nothing else has weights"
            return shared.slices(part)  # type: ignore[arg-type]  # a place holds parts of one kind

        return layer_slices(layer, sliced)

    @torch.no_grad()
    def _state(self, averages: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for layer in self._network.layers:
            for part, slices in self._slices(layer).items():
                key = f"{layer.name}.{part}"
                state |= {f"{key}{suffix}": tensor for suffix, tensor in slices.items()}
                if key in averages:
                    mean, variance = averages[key]
                    state |= {f"{key}_bn.running_mean": mean, f"{key}_bn.running_var": variance}
                    state[f"{key}_bn.num_batches_tracked"] = torch.tensor(0)
        return {name: tensor.detach().clone() for name, tensor in state.items()}


def _place(layer: AnyLayer, part: AnyPart) -> str:
    """What parts have in common that share weights."""
    return f"{layer.name}-{type(layer).__name__}-{part.name}"


def _shared(parts: list[WeightedPart], generator: torch.Generator) -> nn.Module:
    convolutions = [part for part in parts if isinstance(part, Conv)]
    if convolutions:
        return SharedConv(convolutions, generator)
    embeddings = [part for part in parts if isinstance(part, Embed)]
    if embeddings:
        return SharedEmbed(embeddings, generator)
    norms = [part for part in parts if isinstance(part, LayerNorm)]
    if norms:
        return SharedNorm(norms)
    return SharedLinear([part for part in parts if isinstance(part, Linear)], generator)


def _parts_by_place(space: SearchSpace) -> dict[str, list[WeightedPart]]:
    """All different weighted parts of the space by the place where they stand."""
    places: defaultdict[str, dict[WeightedPart, None]] = defaultdict(dict)
    for layer in dict.fromkeys(uncompressed(layer) for layer in _variants(space)):
        for part in parts_of(layer):
            if isinstance(part, WeightedPart):
                places[_place(layer, part)][part] = None
    return {place: list(parts) for place, parts in places.items()}


def _variants(space: SearchSpace) -> Iterator[AnyLayer]:
    """Every layer that can stand in a slot of the space, for all values of the slot's genes."""
    for slot in space.slots:
        options = (range(len(space.choices[gene].options)) for gene in slot.genes)
        for values in itertools.product(*options):
            placed = space.layer_at(slot, values)
            if placed is not None:
                yield placed.layer
