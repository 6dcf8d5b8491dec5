"""Other tables as donors: what they say about networks that a device with few measurements must price.

A donor is a device, runtime and thread count that was measured thoroughly. It needs no kernel in common
with the new device: candidates of a search space are priced by their layers on the donor, other models
by the kernels that they become on the donor, where those are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import UnknownKernelsError
from edgenas.latency_tables.compiled import CompiledSpace, SpaceLike, compiler
from edgenas.latency_tables.kernels import KERNEL_CLASSES, KernelSpec, kernel_class
from edgenas.latency_tables.observations import Observations, observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_FITTED = 100  # networks that a donor's predictor is fitted to: more cost seconds and gain little


@dataclass(frozen=True)
class MakeUp:
    """N networks on one donor.

    ``latency_ms`` (N,) is the whole; ``calls`` (N, C) and ``class_ms`` (N, C) say how often kernels of
    each of the C ``KERNEL_CLASSES`` are called and how long they take together, in ms.
    """

    latency_ms: Array
    calls: Array
    class_ms: Array

    def at(self, rows: Ints) -> MakeUp:
        """Some of the networks."""
        return MakeUp(self.latency_ms[rows], self.calls[rows], self.class_ms[rows])


class Donor:
    """One device at one thread count, as its table knows it. Made by ``read``."""

    def __init__(
        self,
        observations: Observations,
        predictor: LatencyPredictor,
        compile_space: Callable[[SpaceLike], CompiledSpace],
    ) -> None:
        self.device = predictor.device
        self.runtime = predictor.runtime
        self.threads = predictor.threads
        self.fingerprint = predictor.fingerprint
        self._structures = observations.structures
        self._predictor = predictor
        self._compile = compile_space

    @classmethod
    def read(cls, table: LatencyTable, *, threads: int, fingerprint: str) -> Donor:
        """The donor that one configuration of a table is.

        Raises:
            TableError: nothing usable was measured that way, or the table is damaged.
        """
        observations = observe(table, threads=threads, fingerprint=fingerprint)
        networks = observations.with_role("fit")
        every = max(1, -(-len(networks) // _MOST_FITTED))
        predictor = LatencyPredictor.fit_to(observations, networks[::every])
        return cls(observations, predictor, compiler(predictor, table))

    def kernels_of(self, model_sha256: str, specs: Iterable[KernelSpec]) -> Counter[str] | None:
        """How often a model calls each of the donor's kernels; None where the donor cannot tell.

        Args:
            model_sha256: the model; what it becomes on the donor may stand in the donor's table.
            specs: the kernels that it becomes elsewhere; they serve where the donor knows them all.
        """
        structure = self._structures.get(model_sha256)
        keys = (
            [sample.kernel for sample in structure.kernels]
            if structure is not None
            else [self._predictor.catalogue.add(spec) for spec in specs]
        )
        return Counter(keys) if all(map(self._predictor.knows, keys)) else None

    def make_up(self, networks: Sequence[Mapping[str, int]]) -> MakeUp:
        """Networks given by how often they call each of the donor's kernels."""
        vectors = [self.class_vectors(counts) for counts in networks]
        calls, class_ms = (np.array([pair[index] for pair in vectors]) for index in (0, 1))
        overhead_ms = np.array([self._predictor.overhead_of(counts) for counts in networks])
        return MakeUp(class_ms.sum(axis=1) + overhead_ms, calls, class_ms)

    def class_vectors(self, counts: Mapping[str, int]) -> tuple[Array, Array]:
        """Calls (C,) and ms (C,) by class of kernel."""
        calls, class_ms = np.zeros(len(KERNEL_CLASSES)), np.zeros(len(KERNEL_CLASSES))
        for key, count in counts.items():
            index = KERNEL_CLASSES.index(kernel_class(self._predictor.catalogue.spec(key)))
            calls[index] += count
            class_ms[index] += count * self._predictor.kernel_ms(key)
        return calls, class_ms

    def compiled(self, space: SpaceLike) -> DonorSpace | None:
        """The donor's view of a space; None where it cannot price it."""
        try:
            return DonorSpace(self, self._compile(space))
        except UnknownKernelsError:
            return None


class DonorSpace:
    """The make-up of a space's candidates on a donor, as dense arrays."""

    def __init__(self, donor: Donor, compiled: CompiledSpace) -> None:
        self.donor = donor
        self._compiled = compiled
        vectors = [donor.class_vectors(kernels) for kernels in compiled.entry_kernels()]
        self._calls, self._class_ms = (np.array([pair[index] for pair in vectors]) for index in (0, 1))

    def __call__(self, genomes: Ints) -> MakeUp:
        """The make-up of candidates (N, genes); what the donor cannot price is infinite."""
        entries = self._compiled.entries(genomes)
        return MakeUp(
            self._compiled.latency_ms(genomes),
            self._calls[entries].sum(axis=1),
            self._class_ms[entries].sum(axis=1),
        )
