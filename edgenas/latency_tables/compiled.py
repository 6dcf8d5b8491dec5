"""A search space's latency table as dense arrays: a million candidates are a gather and a sum."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import UnknownKernelsError
from edgenas.latency_tables.attribution import learn_templates
from edgenas.latency_tables.dense import DenseLatencies, MemoryCosts
from edgenas.latency_tables.design import KNOTS_MB
from edgenas.latency_tables.layers import LayerDescription, describe_layer
from edgenas.latency_tables.observations import observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable
from edgenas.latency_tables.templates import KernelTemplate, LayerTemplates
from edgenas.records import TransferSummary

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_BORROWED_LOG_SD = 0.3  # of a layer whose kernels were taken from a layer of another make


class SlotLike(Protocol):
    """A place for a layer and the genes that decide it."""

    @property
    def name(self) -> str: ...
    @property
    def genes(self) -> tuple[int, ...]: ...


class SpaceLike(Protocol):
    """What the compiler needs to know of a search space."""

    name: str

    @property
    def slots(self) -> Sequence[Any]: ...
    @property
    def option_counts(self) -> Ints: ...
    def layer_at(self, slot: Any, values: tuple[int, ...]) -> Any: ...


@dataclass(frozen=True)
class LayerPrice:
    """One layer: its latency, its kernels with how often, and whether any of it was not measured.

    ``footprint_mb`` is what it adds to the memory that the network touches.
    """

    latency_ms: float
    kernels: tuple[tuple[str, int], ...]
    interpolated_ms: float
    borrowed: bool
    footprint_mb: float = 0.0


_UNKNOWN = LayerPrice(math.inf, (), 0.0, borrowed=False)
_EMPTY = LayerPrice(0.0, (), 0.0, borrowed=False)  # a layer without parts hands on its input


class LayerPricer:
    """Prices layers by the kernels that traces say they become.

    Args:
        predictor: prices kernels.
        templates: says which kernels a layer becomes.
    """

    def __init__(self, predictor: LatencyPredictor, templates: LayerTemplates) -> None:
        self._predictor = predictor
        self._templates = templates
        self._prices: dict[tuple[str, tuple[int, ...]], LayerPrice] = {}
        self._kernels: dict[tuple[int, tuple[int, ...]], str] = {}
        self._kernel_prices: dict[str, tuple[float, bool]] = {}
        self._kept: dict[int, KernelTemplate] = {}

    def price(self, layer: LayerDescription) -> LayerPrice:
        """The price of a layer; infinite where nothing in the table can tell it, never 0."""
        key = (layer.context, tuple(layer.numbers.values()))
        if key not in self._prices:
            self._prices[key] = self._price(layer)
        return self._prices[key]

    def _price(self, layer: LayerDescription) -> LayerPrice:
        source, borrowed = self._source(layer)
        if source is None:
            return _UNKNOWN if layer.parts else _EMPTY
        keys = [self._kernel(template, layer) for template in self._templates.templates(source)]
        prices = [self._kernel_price(key) for key in keys]
        if math.inf in (latency for latency, _ in prices):
            return _UNKNOWN
        return LayerPrice(
            latency_ms=sum(latency for latency, _ in prices),
            kernels=tuple(Counter(keys).items()),
            interpolated_ms=sum(latency for latency, measured in prices if not measured),
            borrowed=borrowed,
            footprint_mb=sum(self._predictor.column(key).guess.footprint_mb for key in keys),
        )

    def _kernel_price(self, key: str) -> tuple[float, bool]:
        """Latency of a kernel, infinite where it is unknown, and whether it was measured."""
        if key not in self._kernel_prices:
            known = self._predictor.knows(key)
            self._kernel_prices[key] = (
                self._predictor.kernel_ms(key) if known else math.inf,
                known and self._predictor.measured(key),
            )
        return self._kernel_prices[key]

    def _source(self, layer: LayerDescription) -> tuple[LayerDescription | None, bool]:
        """The layer whose templates serve, and whether it is of another make; None: no such."""
        if self._templates.knows(layer):
            return layer, False
        context = self._templates.nearest(layer)
        if context is None:
            return None, False
        return LayerDescription(context=context, parts=layer.parts, numbers=layer.numbers), True

    def _kernel(self, template: KernelTemplate, layer: LayerDescription) -> str:
        """The key of the kernel that ``template`` is in ``layer``."""
        self._kept[id(template)] = template  # keeps the id from being used again
        known = (id(template), tuple(layer.numbers[name] for name in template.names))
        if known not in self._kernels:
            self._kernels[known] = self._predictor.catalogue.add(template.fill(layer.numbers))
        return self._kernels[known]


class CompiledSpace:
    """Latencies of a space's candidates on one device. Made by ``compile``.

    ``transfer`` is set where other tables might have helped and did not.
    """

    def __init__(self, space: SpaceLike, predictor: LatencyPredictor, pricer: LayerPricer) -> None:
        self.space_name = space.name
        self.device = predictor.device
        self.threads = predictor.threads
        self.transfer: TransferSummary | None = None
        self._predictor = predictor
        self._pricer = pricer
        counts = np.asarray(space.option_counts)
        self._prices = [price for slot in space.slots for price in self._slot_prices(space, slot, counts)]
        self._dense = DenseLatencies(
            [slot.genes for slot in space.slots],
            counts,
            self._of_prices("latency_ms"),
            overhead_ms=predictor.overhead_ms,
            memory=self._memory_costs(),
        )

    @classmethod
    def compile(cls, space: SpaceLike, table: LatencyTable, predictor: LatencyPredictor) -> CompiledSpace:
        """Prices every layer that can stand in a slot of ``space``.

        Raises:
            UnknownKernelsError: no layer at all of some slot can be priced.
        """
        observations = observe(table, threads=predictor.threads, fingerprint=predictor.fingerprint)
        return cls(space, predictor, LayerPricer(predictor, learn_templates(table, observations)))

    def _of_prices(self, field: str) -> Array:
        return np.array([getattr(price, field) if price else 0.0 for price in self._prices])

    def _memory_costs(self) -> MemoryCosts:
        footprints_mb = self._of_prices("footprint_mb")
        beyond = max(KNOTS_MB[-1], float(footprints_mb.sum())) + 1.0
        knots_mb = np.array((0.0, *KNOTS_MB, beyond))
        return MemoryCosts(footprints_mb, knots_mb, self._predictor.memory_ms(knots_mb))

    def _slot_prices(self, space: SpaceLike, slot: SlotLike, counts: Ints) -> list[LayerPrice | None]:
        options = [range(int(counts[gene])) for gene in slot.genes]
        placed = (space.layer_at(slot, values) for values in itertools.product(*options))
        prices = [None if one is None else self._pricer.price(describe_layer(one)) for one in placed]
        if all(price is _UNKNOWN for price in prices):
            raise UnknownKernelsError(
                (f"all layers of slot '{slot.name}' of space '{space.name}'",),
                device=self.device,
                hint=f"measure the space: edgenas profile --device {self.device} --space {space.name}",
            )
        return prices

    def entries(self, genomes: Ints) -> Ints:
        """Indices (N, slots) of what stands in every slot of ``genomes`` (N, genes)."""
        return self._dense.entries(genomes)

    def latency_ms(self, genomes: Ints) -> Array:
        """Predicted latencies (N,) in ms of genomes (N, genes)."""
        return self._dense.latency_ms(genomes)

    def overhead_ms(self, genomes: Ints) -> Array:
        """What runs of genomes (N, genes) cost in ms besides their kernels, (N,)."""
        return self._dense.overhead_ms(np.atleast_2d(np.asarray(genomes)))

    def expected(self, probabilities: Array) -> tuple[float, Array]:
        """The latency in ms on average when options are drawn; see ``DenseLatencies.expected``."""
        return self._dense.expected(probabilities)

    @property
    def coverage(self) -> float:
        """Share of the layers that can stand in a slot whose kernels are known and all measured."""
        standing = [price for price in self._prices if price is not None]
        known = [price for price in standing if price is not _UNKNOWN and not price.interpolated_ms]
        return len(known) / len(standing)

    def __call__(self, genomes: Ints) -> Array:
        return self.latency_ms(genomes)

    def interval_ms(self, genomes: Ints) -> Array:
        """The interval (N, 2) in ms that holds nine in ten candidates; about 10,000 a second."""
        population = np.atleast_2d(np.asarray(genomes))
        found = zip(self.entries(population), self.latency_ms(population), strict=True)
        return np.array([self._interval(entries, latency_ms) for entries, latency_ms in found])

    def _interval(self, entries: Ints, latency_ms: float) -> tuple[float, float]:
        prices = [price for price in (self._prices[entry] for entry in entries) if price is not None]
        counts: Counter[str] = Counter()
        for price in prices:
            counts.update(dict(price.kernels))
        columns = {key: self._predictor.column(key) for key in counts}
        row, _, own = self._predictor.design.row(counts, columns)
        own += sum((_BORROWED_LOG_SD * price.latency_ms) ** 2 for price in prices if price.borrowed)
        sd_ms = self._predictor.deviation(row[None, :], np.array([own]), np.array([latency_ms]))
        return self._predictor.interval(latency_ms, float(sd_ms[0]), counts)

    def entry_kernels(self) -> list[dict[str, int]]:
        """For every entry, in the order of ``entries``, how often it calls which kernel."""
        return [dict(price.kernels) if price is not None else {} for price in self._prices]

    def kernels(self, genome: Ints) -> list[tuple[str, LayerPrice]]:
        """What stands in the slots of one genome (genes,), empty slots left out: index and price."""
        found = ((entry, self._prices[entry]) for entry in self.entries(np.atleast_2d(genome))[0])
        return [(str(entry), price) for entry, price in found if price is not None]


def compiler(predictor: LatencyPredictor, table: LatencyTable) -> Callable[[SpaceLike], CompiledSpace]:
    """A function that compiles spaces and shares what it learns between them."""
    observations = observe(table, threads=predictor.threads, fingerprint=predictor.fingerprint)
    pricer = LayerPricer(predictor, learn_templates(table, observations))
    return lambda space: CompiledSpace(space, predictor, pricer)
