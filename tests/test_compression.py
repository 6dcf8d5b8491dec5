"""Pruned and factored layers on shared weights: what is left is what matters most."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a supernet needs torch: pip install edgenas[train]")

from edgenas.search_spaces import Genomes, SearchSpace, get_space, macs  # noqa: E402
from edgenas.search_spaces.layer import Compression, parts_of  # noqa: E402
from edgenas.search_spaces.layers import (  # noqa: E402
    BasicBlock,
    Block,
    Bottleneck,
    FusedInvertedResidual,
    InvertedResidual,
)
from edgenas.search_spaces.parts import Conv, Linear  # noqa: E402
from edgenas.training import Supernet  # noqa: E402
from edgenas.training.compression import Slices, layer_slices  # noqa: E402

BLOCKS: list[type[Block]] = [InvertedResidual, FusedInvertedResidual, BasicBlock, Bottleneck]


def block(kind: type[Block], hidden: int = 64, **compression: float) -> Block:
    options = {"compression": Compression(**compression)} if compression else {}
    return kind(name="b", in_channels=32, out_channels=48, hidden=hidden, se=True, **options)


def drawn(part: Conv | Linear) -> Slices:
    """Random tensors that depend on the part's name alone, cut to its size."""
    generator = torch.Generator().manual_seed(sum(part.name.encode()))
    shape = part.weight_shapes()["weight"]
    weight = torch.randn(96, 96, *shape[2:], generator=generator)[: shape[0], : shape[1]]
    scale, bias = (torch.rand(96, generator=generator)[: shape[0]] + shift for shift in (0.5, -0.5))
    if getattr(part, "normalized", False):
        return {".weight": weight, "_bn.weight": scale, "_bn.bias": bias}
    return {".weight": weight, ".bias": bias}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("compression", [{"unpruned": 64}, {"rank": 0.5}, {"unpruned": 64, "rank": 0.5}])
def test_slices_have_the_shapes_of_the_parts(kind: type[Block], compression: dict[str, float]) -> None:
    layer = block(kind, 40 if "unpruned" in compression else 64, **compression)
    slices = layer_slices(layer, drawn)
    parts = {part.name: part for part in parts_of(layer) if isinstance(part, Conv | Linear)}
    assert slices.keys() == parts.keys()
    for name, part in parts.items():
        assert tuple(slices[name][".weight"].shape) == part.weight_shapes()["weight"]
        others = [tensor for suffix, tensor in slices[name].items() if suffix != ".weight"]
        assert {len(tensor) for tensor in others} == {part.out_channels}


def test_factors_are_the_nearest_matrix_of_their_rank() -> None:
    layer = block(InvertedResidual, rank=0.5)
    slices = layer_slices(layer, drawn)
    whole = layer_slices(block(InvertedResidual), drawn)
    for name in ("expand", "project"):  # taller than wide, and wider than tall
        matrix = whole[name][".weight"].flatten(1).double().numpy()
        first, second = (
            slices[part][".weight"].flatten(1).double().numpy() for part in (f"{name}_first", name)
        )
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        rank = len(first)
        assert rank < min(matrix.shape)
        np.testing.assert_allclose(second @ first, (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-4)
        assert np.linalg.norm(first) == pytest.approx(np.linalg.norm(second), rel=1e-3)


@pytest.mark.parametrize("kind", BLOCKS)
def test_channels_that_nothing_reads_are_pruned_first(kind: type[Block]) -> None:
    useless = torch.randperm(64, generator=torch.Generator().manual_seed(1))[:24]
    last = kind.hidden_channels[-1].consumers[-1]

    def sliced(part: Conv | Linear) -> Slices:
        slices = drawn(part)
        if part.name == last:
            slices[".weight"][:, useless] = 0.0
        return slices

    left = layer_slices(block(kind, 40, unpruned=64), sliced)[last][".weight"]
    assert (left.flatten(2).norm(dim=(0, 2)) > 0).all()
    assert left.shape[1] == 40


def test_compressed_weights_learn() -> None:
    weights: dict[str, torch.Tensor] = {}

    def sliced(part: Conv | Linear) -> Slices:
        slices = drawn(part)
        weights[part.name] = slices[".weight"].requires_grad_()
        return slices

    layer = block(InvertedResidual, 40, unpruned=64, rank=0.5)
    slices = layer_slices(layer, sliced)
    sum(part[".weight"].square().sum() for part in slices.values()).backward()
    assert all(weights[name].grad.abs().sum() > 0 for name in ("expand", "depthwise", "project"))


@pytest.fixture
def joint() -> SearchSpace:
    return get_space("mobilenetv3-32px-joint")


def compressed(space: SearchSpace, genome: Genomes, **values: float) -> Genomes:
    """The genome with some roles of all stages set."""
    wanted = {c.name: values[role] for c in space.choices if (role := c.name.split(".")[-1]) in values}
    return space.genome_of({**space.describe(genome), **wanted})


def test_compression_makes_a_network_smaller_and_keeps_its_architecture(joint: SearchSpace) -> None:
    whole = compressed(joint, joint.largest(), kept=1, rank=1)
    pruned, factored = compressed(joint, whole, kept=0.5), compressed(joint, whole, rank=0.5)
    counts = [macs(joint.network(genome)) for genome in (whole, pruned, factored)]
    assert counts[1] < 0.6 * counts[0]
    assert counts[2] < counts[0]
    plain = get_space("mobilenetv3-32px")
    described = {k: v for k, v in joint.describe(whole).items() if not k.endswith((".kept", ".rank"))}
    expected = plain.network(plain.genome_of(described))
    assert joint.network(whole).layers == expected.layers


def test_a_supernet_of_a_joint_space_has_the_weights_of_the_plain_one(joint: SearchSpace) -> None:
    names = {name: p.shape for name, p in Supernet(joint).named_parameters()}
    plain = {name: p.shape for name, p in Supernet(get_space("mobilenetv3-32px")).named_parameters()}
    assert names == plain
