"""Spaces of a stem, stages of equal blocks and a head, described as data.

MobileNetV3-style and residual spaces are descriptions of this one kind, as is a user's own in TOML.
Every field that holds several options becomes a gene; a field with one option is a constant.

Genes, by name: ``resolution``; ``stem.width``, ``stem.precision``; for every stage ``s1``, ``s2``, ...
``.depth``, ``.width``, ``.operator``, ``.se``, ``.activation``, ``.precision``, ``.kept``, ``.rank``; for
every block ``s1b0``, ... ``.kernel``, ``.expansion``; ``head.features``, ``head.precision``, ``head.rank``.

``kept`` and ``rank`` compress what the other genes describe. A gene that would change nothing, because
no block of the stage has what it acts on, is inactive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.records import Precision, Record
from edgenas.search_spaces.layer import Compression
from edgenas.search_spaces.layers import (
    AnyLayer,
    BasicBlock,
    Bottleneck,
    ConvLayer,
    FusedInvertedResidual,
    Head,
    InvertedResidual,
)
from edgenas.search_spaces.network import PlacedLayer
from edgenas.search_spaces.parts import Activation, divisible
from edgenas.search_spaces.space import Choice, Genomes, Option, SearchSpace, Slot

Operator = Literal["depthwise", "fused", "basic", "bottleneck"]
BlockActivation = Literal["relu", "hardswish"]
BlockType: TypeAlias = (
    type[InvertedResidual] | type[FusedInvertedResidual] | type[BasicBlock] | type[Bottleneck]
)

# Operators whose blocks have hidden channels, or pointwise convolutions, whatever their expansion.
_ALWAYS_PRUNABLE = ("basic", "bottleneck")
_ALWAYS_FACTORABLE = ("depthwise", "bottleneck")

PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")

_BLOCKS: dict[str, BlockType] = {
    "depthwise": InvertedResidual,
    "fused": FusedInvertedResidual,
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
}


class Stem(Record, kw_only=True, forbid_unknown_fields=True):
    """The first convolution."""

    width: tuple[int, ...]
    kernel: int = 3
    stride: int = 1
    activation: BlockActivation = "relu"
    precision: tuple[Precision, ...] = PRECISIONS


class Stage(Record, kw_only=True, forbid_unknown_fields=True):
    """Up to ``max(depth)`` blocks of one operator and width; the first one has the stride.

    ``expansion`` is the hidden width relative to the input (``depthwise``, ``fused``) or to the
    output (``basic``, ``bottleneck``), rounded to a multiple of 8. ``kept`` is the share of those
    channels that pruning leaves, rounded alike; ``rank`` the share of the multiply-accumulates that
    the factors of a pointwise convolution keep, 1 for a convolution that stays whole.
    """

    width: tuple[int, ...]
    depth: tuple[int, ...]
    operator: tuple[Operator, ...]
    expansion: tuple[float, ...]
    stride: int = 1
    kernel: tuple[int, ...] = (3,)
    se: tuple[bool, ...] = (False,)
    activation: tuple[BlockActivation, ...] = ("relu",)
    precision: tuple[Precision, ...] = PRECISIONS
    kept: tuple[float, ...] = (1,)
    rank: tuple[float, ...] = (1,)


class Classifier(Record, kw_only=True, forbid_unknown_fields=True):
    """The head: ``features`` channels before the mean, ``hidden`` after it; 0 leaves one out.

    ``rank`` as of a stage.
    """

    features: tuple[int, ...] = (0,)
    hidden: int = 0
    activation: BlockActivation = "relu"
    precision: tuple[Precision, ...] = PRECISIONS
    rank: tuple[float, ...] = (1,)


class StagedDescription(Record, kw_only=True, forbid_unknown_fields=True):
    """Everything that makes a staged space but the number of classes and input channels."""

    name: str
    resolution: tuple[int, ...]
    stem: Stem
    stages: tuple[Stage, ...]
    head: Classifier = Classifier()


def with_compression(
    description: StagedDescription, name: str, *, kept: tuple[float, ...], rank: tuple[float, ...] = (0.5, 1)
) -> StagedDescription:
    """The same architectures under another name, with pruning and low rank as genes of every stage."""
    stages = tuple(msgspec.structs.replace(stage, kept=kept, rank=rank) for stage in description.stages)
    return msgspec.structs.replace(description, name=name, stages=stages)


@dataclass(frozen=True)
class _Place:
    """What stands in a slot: its genes by role, the section before it, the downsampling so far."""

    name: str
    section: str
    before: str
    downsampling: int
    block: int = 0


class StagedSpace(SearchSpace):
    """The space of a description for ``classes`` outputs and images of ``channels`` channels."""

    def __init__(self, description: StagedDescription, *, classes: int, channels: int = 3) -> None:
        check_description(description)
        self.name = description.name
        self.classes = classes
        self._description = description
        self._channels = channels
        options = _options_by_gene(description)
        self._constants = {name: values[0] for name, values in options.items() if len(values) == 1}
        self.choices = tuple(
            Choice(name=name, options=values) for name, values in options.items() if len(values) > 1
        )
        self._gene = {choice.name: index for index, choice in enumerate(self.choices)}
        self._places = {place.name: place for place in _places(description)}
        self.slots = tuple(self._slot(place) for place in self._places.values())

    def layer_at(self, slot: Slot, values: tuple[int, ...]) -> PlacedLayer | None:
        place = self._places[slot.name]
        genes: dict[str, Any] = self._constants | {
            self.choices[gene].name: self.choices[gene].options[value]
            for gene, value in zip(slot.genes, values, strict=True)
        }
        if place.block >= genes.get(f"{place.section}.depth", place.block + 1):
            return None  # a slot that is never empty does not list the depth among its genes
        size = -(-int(genes["resolution"]) // place.downsampling)
        layer = self._layer(place, genes)
        before = "fp32" if place.section == "stem" else _precision(genes, self._input_section(place))
        return PlacedLayer(layer=layer, input_shape=(layer.in_channels, size, size), input_precision=before)

    def active(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        used = np.ones(genomes.shape, np.bool_)
        for place in self._places.values():
            if f"{place.section}.depth" not in self._gene:
                continue
            for role in ("kernel", "expansion"):
                gene = self._gene.get(f"{place.name}.{role}")
                if gene is not None:
                    used[:, gene] = self._stands(place, genomes)
        for section in dict.fromkeys(place.section for place in self._places.values()):
            for role, compressible in (("kept", self._prunable), ("rank", self._factorable)):
                gene = self._gene.get(f"{section}.{role}")
                if gene is not None:
                    used[:, gene] = compressible(section, genomes)
        return used

    def _values(self, name: str, genomes: Genomes) -> npt.NDArray[Any]:
        """The options (N,) of a gene or constant."""
        if name in self._constants:
            return np.full(len(genomes), self._constants[name])
        gene = self._gene[name]
        return np.array(self.choices[gene].options)[genomes[:, gene]]

    def _stands(self, place: _Place, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Where (N,) a block is not beyond the depth of its stage."""
        return np.asarray(np.greater(self._values(f"{place.section}.depth", genomes), place.block))

    def _expanded(self, section: str, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Where (N,) some block of a stage has hidden channels other than its input's or output's."""
        blocks = [place for place in self._places.values() if place.section == section]
        expanded = [self._values(f"{place.name}.expansion", genomes) != 1 for place in blocks]
        standing = [self._stands(place, genomes) for place in blocks]
        return np.asarray(np.logical_and(expanded, standing).any(axis=0))

    def _prunable(self, section: str, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Where (N,) some block of a stage has hidden channels of its own."""
        operator = self._values(f"{section}.operator", genomes)
        return np.asarray(np.isin(operator, _ALWAYS_PRUNABLE) | self._expanded(section, genomes))

    def _factorable(self, section: str, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Where (N,) a section has a pointwise convolution or matrix product worth two factors."""
        if section == "head":
            width = self._values(f"{self._places['head'].before}.width", genomes)
            return self._head_factorable(width, self._values("head.features", genomes))
        operator = self._values(f"{section}.operator", genomes)
        fused = np.equal(operator, "fused") & self._expanded(section, genomes)
        return np.asarray(fused | np.isin(operator, _ALWAYS_FACTORABLE))

    def _head_factorable(self, width: npt.ArrayLike, features: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        wide = np.minimum(width, self.classes) > 8  # the smallest rank
        return np.asarray(wide | np.greater(features, 0) | (self._description.head.hidden > 0))

    def _slot(self, place: _Place) -> Slot:
        genes = {self._gene[name] for name in self._read_by(place) if name in self._gene}
        return Slot(name=place.name, genes=tuple(sorted(genes)))

    def _read_by(self, place: _Place) -> list[str]:
        """Names of all genes and constants that decide the layer at ``place``."""
        source = self._input_section(place)
        names = ["resolution", f"{place.section}.precision"]
        if place.section != "stem":
            names += [f"{source}.width", f"{source}.precision"]
        if place.section == "head":
            return [*names, "head.features", "head.rank"]
        names += [
            f"{place.section}.{role}" for role in ("width", "operator", "se", "activation", "kept", "rank")
        ]
        names += [f"{place.name}.{role}" for role in ("kernel", "expansion")]
        stage = self._stage(place)
        return (
            names if stage is None or place.block < min(stage.depth) else [*names, f"{place.section}.depth"]
        )

    def _layer(self, place: _Place, genes: dict[str, Any]) -> AnyLayer:
        stage = self._stage(place)
        if stage is not None:
            return self._block(place, stage, genes)
        return self._stem(genes) if place.section == "stem" else self._head(place, genes)

    def _stem(self, genes: dict[str, Any]) -> ConvLayer:
        stem = self._description.stem
        return ConvLayer(
            name="stem",
            in_channels=self._channels,
            out_channels=genes["stem.width"],
            kernel=stem.kernel,
            stride=stem.stride,
            activation=stem.activation,
            precision=_precision(genes, "stem"),
        )

    def _block(self, place: _Place, stage: Stage, genes: dict[str, Any]) -> AnyLayer:
        section = place.section
        width: int = genes[f"{section}.width"]
        in_channels: int = genes[f"{self._input_section(place)}.width"]
        operator: str = genes[f"{section}.operator"]
        relative_to = in_channels if operator in {"depthwise", "fused"} else width
        expansion: float = genes[f"{place.name}.expansion"]
        hidden = relative_to if expansion == 1 else divisible(relative_to * expansion)
        prunable = expansion != 1 or operator in _ALWAYS_PRUNABLE
        factorable = operator in _ALWAYS_FACTORABLE or (operator == "fused" and expansion != 1)
        left = divisible(hidden * genes[f"{section}.kept"]) if prunable else hidden
        return _BLOCKS[operator](
            name=place.name,
            in_channels=in_channels,
            out_channels=width,
            hidden=left,
            kernel=genes[f"{place.name}.kernel"],
            stride=stage.stride if place.block == 0 else 1,
            se=genes[f"{section}.se"],
            activation=_activation(genes, section),
            precision=_precision(genes, section),
            compression=_compression(
                hidden if left < hidden else 0, genes[f"{section}.rank"] if factorable else 1.0
            ),
        )

    def _head(self, place: _Place, genes: dict[str, Any]) -> Head:
        head = self._description.head
        factorable = self._head_factorable(genes[f"{place.before}.width"], genes["head.features"])
        return Head(
            name="head",
            in_channels=genes[f"{place.before}.width"],
            out_channels=self.classes,
            features=genes["head.features"],
            hidden=head.hidden,
            activation=head.activation,
            precision=_precision(genes, "head"),
            compression=_compression(0, genes["head.rank"] if factorable else 1.0),
        )

    def _stage(self, place: _Place) -> Stage | None:
        if place.section in {"stem", "head"}:
            return None
        return self._description.stages[int(place.section[1:]) - 1]

    def _input_section(self, place: _Place) -> str:
        """The section whose width and precision the layer reads: its own after the first block."""
        return place.before if place.block == 0 else place.section


def check_description(description: StagedDescription) -> None:
    """Refuses descriptions that no network can be made of.

    Raises:
        UsageError: a list of options is empty, not ascending or out of range.
    """
    for name, options in _options_by_gene(description).items():
        if not options or len(set(options)) != len(options):
            raise UsageError(f"space '{description.name}': '{name}' needs distinct options, has {options}")
        numbers = [option for option in options if not isinstance(option, str)]
        lowest = 0 if name == "head.features" or isinstance(options[0], bool) else 1e-9
        if numbers != sorted(numbers) or (numbers and numbers[0] < lowest):
            raise UsageError(
                f"space '{description.name}': '{name}' must be positive and ascending: {options}"
            )
    if not description.stages:
        raise UsageError(f"space '{description.name}' has no stages")
    shares = {
        name: options
        for name, options in _options_by_gene(description).items()
        if name.endswith((".kept", ".rank")) and float(options[-1]) > 1
    }
    if shares:
        raise UsageError(f"space '{description.name}': shares of 0..1 were expected, found {shares}")
    odd = [k for stage in description.stages for k in stage.kernel if k % 2 == 0]
    if odd or description.stem.kernel % 2 == 0:
        raise UsageError(
            f"space '{description.name}': kernels must be odd, found {odd or description.stem.kernel}"
        )


def _options_by_gene(description: StagedDescription) -> dict[str, tuple[Option, ...]]:
    """All genes and constants in genome order."""
    stem, head = description.stem, description.head
    genes: dict[str, tuple[Option, ...]] = {"resolution": description.resolution}
    genes |= {"stem.width": stem.width, "stem.precision": stem.precision}
    for number, stage in enumerate(description.stages, start=1):
        for role in ("depth", "width", "operator", "se", "activation", "precision", "kept", "rank"):
            genes[f"s{number}.{role}"] = getattr(stage, role)
        for block in range(max(stage.depth, default=0)):
            genes[f"s{number}b{block}.kernel"] = stage.kernel
            genes[f"s{number}b{block}.expansion"] = stage.expansion
    return genes | {
        "head.features": head.features, "head.precision": head.precision, "head.rank": head.rank
    }  # fmt: skip


def _places(description: StagedDescription) -> list[_Place]:
    """All slots in execution order."""
    places = [_Place("stem", "stem", "", 1)]
    downsampling, before = description.stem.stride, "stem"
    for number, stage in enumerate(description.stages, start=1):
        section = f"s{number}"
        places.append(_Place(f"{section}b0", section, before, downsampling))
        downsampling *= stage.stride
        places += [
            _Place(f"{section}b{block}", section, before, downsampling, block)
            for block in range(1, max(stage.depth))
        ]
        before = section
    return [*places, _Place("head", "head", before, downsampling)]


def _precision(genes: dict[str, Any], section: str) -> Precision:
    precision: Precision = genes[f"{section}.precision"]
    return precision


def _activation(genes: dict[str, Any], section: str) -> Activation:
    activation: Activation = genes[f"{section}.activation"]
    return activation


def _compression(unpruned: int, rank: float) -> Compression | msgspec.UnsetType:
    return Compression(unpruned=unpruned, rank=rank) if unpruned or rank < 1 else msgspec.UNSET
