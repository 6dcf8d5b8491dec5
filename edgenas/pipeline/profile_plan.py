"""What ``profile`` measures: a list of networks that depends on space, precision and seed alone."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray

from edgenas.latency_tables.covering import cover
from edgenas.latency_tables.layers import describe_layer
from edgenas.latency_tables.profile_networks.architectures import FAMILIES, architecture
from edgenas.latency_tables.profile_networks.kernel_networks import kernel_network
from edgenas.latency_tables.profile_networks.operator_tour import STOPS, tour_network
from edgenas.latency_tables.rows import NetworkRow, Role
from edgenas.pipeline.onnx_input import precision_of, read_model, with_batch_one
from edgenas.records import Environment, Precision
from edgenas.search_spaces import SearchSpace, build_onnx, macs, parameters
from edgenas.search_spaces.onnx_builder import BUILDER_VERSION

Ints = NDArray[np.int64]

# Networks of a space: so many that show what is new in them, and at least so many altogether.
_PICKED, _FITTED = {"fp32": 200, "int8": 200}, {"fp32": 200, "int8": 300}
_HELD_OUT_EVERY = 5  # one network in five never enters the fit
_JUDGING_EVERY = 9  # of the networks like published ones, which are dear
_OPSET, _IR_VERSION = 17, 8
_KERNEL_NETWORKS = {"fp32": 132, "int8": 110}
_FAMILIES_FIRST = 22  # random kernel networks of each precision that are measured before anything else
_SHARE_OF_SPACES = 0.4  # of their own plans, in a default profile
_LAPS = 4  # networks like each published architecture, the first of them at its own width
KERNELS = "kernels"  # what the networks over common kernel families are called instead of a space


@dataclass(frozen=True)
class Target:
    """What a device's runtime accepts and what stands for int8 there."""

    opset: int
    ir_version: int
    int8_scheme: str

    @classmethod
    def of(cls, environment: Environment, int8_scheme: str) -> Target:
        """The lowest versions that serve, as far as the device accepts them."""
        return cls(
            min(_OPSET, environment.supported_opset),
            min(_IR_VERSION, environment.supported_ir_version),
            int8_scheme,
        )


class PlannedNetwork(ABC):
    """One network to measure. ``recipe`` changes whenever the model would."""

    name: str
    space: str
    precision: Precision
    role: Role

    @abstractmethod
    def model(self) -> onnx.ModelProto:
        """Builds the model."""

    @abstractmethod
    def recipe(self) -> str:
        """Hash of everything that the model depends on, known without building it."""

    @abstractmethod
    def row(self, model_sha256: str) -> NetworkRow:
        """What the table keeps about the network."""

    @property
    def cell(self) -> tuple[str, str]:
        """Space and precision, by which errors are reported."""
        return self.space, self.precision


@dataclass(frozen=True)
class SpaceNetwork(PlannedNetwork):
    """A network of a search space with random weights; ``picked`` for what is new in it, or random."""

    name: str
    space: str
    precision: Precision
    role: Role
    origin: SearchSpace
    genome: tuple[int, ...]
    target: Target
    picked: bool = False

    def model(self) -> onnx.ModelProto:
        return build_onnx(
            self.origin.network(np.array(self.genome)),
            opset=self.target.opset,
            ir_version=self.target.ir_version,
            int8_scheme=self.target.int8_scheme,
        )

    def recipe(self) -> str:
        return self._recipe

    @cached_property
    def _recipe(self) -> str:
        """Asked for many times, and as dear as placing all layers."""
        network = self.origin.network(np.array(self.genome))
        return _hash(f"space-{BUILDER_VERSION}", network.fingerprint(), self.target)

    def row(self, model_sha256: str) -> NetworkRow:
        placed = self.origin.placed(np.array(self.genome))
        network = self.origin.network(np.array(self.genome))
        return NetworkRow(
            model_sha256=model_sha256,
            name=self.name,
            space=self.space,
            precision=self.precision,
            role=self.role,
            genome=self.genome,
            layers=tuple((item.layer.name, describe_layer(item).to_json()) for item in placed),
            facts={
                "recipe": self.recipe(),
                "macs": macs(network),
                "parameters": parameters(network),
                "picked": self.picked,
            },
        )


@dataclass(frozen=True)
class FileNetwork(PlannedNetwork):
    """An ONNX file that the user brought, measured as it is."""

    name: str
    path: Path
    precision: Precision
    role: Role = "fit"
    space: str = "models"

    def model(self) -> onnx.ModelProto:
        return with_batch_one(read_model(self.path), self.path)

    def recipe(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:32]

    def row(self, model_sha256: str) -> NetworkRow:
        return NetworkRow(
            model_sha256=model_sha256, name=self.name, space=self.space, precision=self.precision,
            role=self.role, facts={"recipe": self.recipe()},
        )  # fmt: skip


@dataclass(frozen=True)
class KernelNetwork(PlannedNetwork):
    """A random network over common kernel families."""

    name: str
    precision: Precision
    role: Role
    index: int
    seed: int
    target: Target
    space: str = KERNELS

    built_by: ClassVar[Callable[..., onnx.ModelProto]] = staticmethod(kernel_network)

    def model(self) -> onnx.ModelProto:
        return self.built_by(
            self.index,
            seed=self.seed,
            int8_scheme=self.target.int8_scheme if self.precision == "int8" else None,
            opset=self.target.opset,
            ir_version=self.target.ir_version,
        )

    def recipe(self) -> str:
        return _hash("kernels-4", self.index, self.seed, self.precision, self.target)

    def row(self, model_sha256: str) -> NetworkRow:
        return NetworkRow(
            model_sha256=model_sha256, name=self.name, space=self.space, precision=self.precision,
            role=self.role, facts={"recipe": self.recipe()},
        )  # fmt: skip


@dataclass(frozen=True)
class TourNetwork(KernelNetwork):
    """The network about one operator. None is held out: no other network shows that operator for sure."""

    built_by: ClassVar[Callable[..., onnx.ModelProto]] = staticmethod(tour_network)

    def recipe(self) -> str:
        return _hash("tour-3", STOPS[self.index][0], self.index, self.seed, self.precision, self.target)


@dataclass(frozen=True)
class ArchitectureNetwork(KernelNetwork):
    """A network like a published one."""

    built_by: ClassVar[Callable[..., onnx.ModelProto]] = staticmethod(architecture)

    def recipe(self) -> str:
        return _hash("architecture-4", self.index, self.seed, self.precision, self.target)


def plan_kernels(precisions: Sequence[Precision], target: Target, *, seed: int) -> list[PlannedNetwork]:
    """Networks over the kernel families of ordinary models, so that any can be predicted.

    Those that show every family once come first: where time is short the others are left out.
    """
    tours = [_tour(precision, target, seed) for precision in precisions]
    chains = [_chains(precision, target, seed) for precision in precisions]
    published = [_architectures(precision, target, seed) for precision in precisions]
    lap = len(FAMILIES)
    return [
        *interleaved([*(plan[:_FAMILIES_FIRST] for plan in chains), *tours]),
        *interleaved([plan[:lap] for plan in published]),
        *interleaved([*(plan[_FAMILIES_FIRST:] for plan in chains), *(plan[lap:] for plan in published)]),
    ]


def plan_by_default(
    kernels: Sequence[PlannedNetwork], spaces: Sequence[Sequence[PlannedNetwork]]
) -> list[PlannedNetwork]:
    """First every operator and one network like each architecture, then everything else in proportion.

    Of each space only as much as serves well; ``--space`` goes into depth.
    """
    lap = len(FAMILIES)
    first = 1 + max(
        position
        for position, network in enumerate(kernels)
        if isinstance(network, TourNetwork)
        or (isinstance(network, ArchitectureNetwork) and network.index < lap)
    )
    parts = [plan[: round(_SHARE_OF_SPACES * len(plan))] for plan in spaces]
    return [*kernels[:first], *interleaved([kernels[first:], *parts])]


def _architectures(precision: Precision, target: Target, seed: int) -> list[PlannedNetwork]:
    lap = len(FAMILIES)
    return [
        ArchitectureNetwork(
            name=f"{KERNELS}-{precision}-{FAMILIES[index % lap][0].__name__.strip('_')}-{index // lap}",
            precision=precision,
            role="held-out" if index >= lap and index % _JUDGING_EVERY == _JUDGING_EVERY - 1 else "fit",
            index=index,
            seed=seed,
            target=target,
        )
        for index in range(_LAPS * lap)
    ]


def _tour(precision: Precision, target: Target, seed: int) -> list[PlannedNetwork]:
    return [
        TourNetwork(f"{KERNELS}-{precision}-{name.lower()}", precision, "fit", index, seed, target)
        for index, (name, _) in enumerate(STOPS)
    ]


def _chains(precision: Precision, target: Target, seed: int) -> list[PlannedNetwork]:
    return [
        KernelNetwork(
            name=f"{KERNELS}-{precision}-{index}",
            precision=precision,
            role="held-out" if index % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1 else "fit",
            index=index,
            seed=seed,
            target=target,
        )
        for index in range(_KERNEL_NETWORKS[precision])
    ]


def plan_space(
    space: SearchSpace, precision: Precision, target: Target, *, seed: int, held_out: int | None = None
) -> list[PlannedNetwork]:
    """Networks that show every layer of ``space`` several times, and others that only judge.

    ``held_out`` is how many of the others; one network in five when None.
    """
    rng = np.random.default_rng([seed, precision == "int8"])
    sampler = _Sampler(space, precision)
    covering = cover(space, sampler, least=_FITTED[precision], most=_PICKED[precision], rng=rng)
    chosen = covering.genomes
    judging = _fresh(sampler, chosen, held_out or len(chosen) // (_HELD_OUT_EVERY - 1), rng)
    networks = [
        *_numbered(space, precision, target, "fit", chosen, picked=covering.picked),
        *_numbered(space, precision, target, "held-out", judging),
    ]
    order = sorted(range(len(networks)), key=lambda index: _turn(index, len(chosen), len(judging)))
    return [networks[index] for index in order]


def _turn(index: int, fitted: int, held_out: int) -> float:
    """Spreads the held-out networks evenly among the others."""
    return index / fitted if index < fitted else (index - fitted + 0.5) / max(held_out, 1)


def _numbered(
    space: SearchSpace, precision: Precision, target: Target, role: Role, genomes: Ints, *, picked: int = 0
) -> list[PlannedNetwork]:
    return [
        SpaceNetwork(
            name=f"{space.name}-{precision}-{role}-{i}",
            space=space.name,
            precision=precision,
            role=role,
            origin=space,
            genome=tuple(genome),
            target=target,
            picked=i < picked,
        )
        for i, genome in enumerate(genomes.tolist())
    ]


class _Sampler:
    """Draws genomes whose precision genes fit the precision that is measured.

    For int8 every other network is int8 throughout and the others mix both, which shows the
    boundaries between them.
    """

    def __init__(self, space: SearchSpace, precision: Precision) -> None:
        self._space = space
        self._precision = precision
        self._genes = {
            index: choice.options.index(precision)
            for index, choice in enumerate(space.choices)
            if choice.name.endswith("precision") and precision in choice.options
        }

    def __call__(self, rng: np.random.Generator, n: int) -> Ints:
        genomes = self._space.sample(rng, n)
        pure = slice(None) if self._precision == "fp32" else slice(None, None, 2)
        for gene, option in self._genes.items():
            genomes[pure, gene] = option
        return self._space.canonical(genomes)


def _fresh(sampler: _Sampler, taken: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Random genomes that are not among those taken."""
    drawn = np.unique(sampler(rng, 4 * count + 4), axis=0)
    known = {tuple(genome) for genome in taken.tolist()}
    fresh = [genome for genome in drawn.tolist() if tuple(genome) not in known]
    order = rng.permutation(len(fresh))[:count]
    return np.array([fresh[index] for index in order], np.int64).reshape(-1, taken.shape[1])


def plan_models(paths: Sequence[Path], *, role: Role = "fit") -> list[PlannedNetwork]:
    """The ONNX files themselves; read once so that a bad one is found before anything is measured."""
    loaded = [with_batch_one(read_model(path), path) for path in paths]
    return [
        FileNetwork(path.stem, path, precision_of(model), role)
        for path, model in zip(paths, loaded, strict=True)
    ]


def interleaved(plans: Sequence[Sequence[PlannedNetwork]]) -> list[PlannedNetwork]:
    """All plans in one, dealt in proportion, so that a time limit cuts every plan alike."""
    turns = [
        ((index + 1) / len(plan), number, network)
        for number, plan in enumerate(plans)
        for index, network in enumerate(plan)
    ]
    return [network for _, _, network in sorted(turns, key=lambda turn: turn[:2])]


def batches(networks: Sequence[PlannedNetwork], size: int) -> list[Sequence[PlannedNetwork]]:
    """Networks that are measured side by side."""
    return [networks[start : start + size] for start in range(0, len(networks), size)]


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
