"""Latencies of a space's candidates as dense arrays: a million of them are a gather and a sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Tensors: TypeAlias = dict[tuple[int, ...], Array]

_CHUNK = 1 << 14  # candidates a step: indices and latencies stay in the cache


@dataclass(frozen=True)
class MemoryCosts:
    """What a candidate costs for the memory that it touches, besides its entries.

    ``footprints_mb`` (entries,) are what the entries add to it; the cost in ms is linear between
    ``knots_mb`` (K,), where it is ``costs_ms`` (K,).
    """

    footprints_mb: Array
    knots_mb: Array
    costs_ms: Array

    def of(self, entries: Ints) -> Array:
        """Costs (N,) in ms of candidates (N, slots)."""
        touched_mb = self.footprints_mb[entries].sum(axis=1)
        return np.asarray(np.interp(touched_mb, self.knots_mb, self.costs_ms))


class DenseLatencies:
    """A latency is the overhead plus one entry a slot, plus what the memory of all slots costs.

    An entry's index is the mixed-radix number of the genes that decide the slot, the first gene the
    most significant, after the entries of all slots before it.

    Args:
        slots: for each slot the genes that decide what stands there.
        option_counts: how many values each gene has, (genes,).
        entries_ms: latencies of what can stand in the slots, slot after slot, (entries,) in ms.
        overhead_ms: what every candidate costs besides.
        memory: what it costs besides for the memory that it touches.
    """

    def __init__(
        self,
        slots: Sequence[tuple[int, ...]],
        option_counts: Ints,
        entries_ms: Array,
        *,
        overhead_ms: float = 0.0,
        memory: MemoryCosts | None = None,
    ) -> None:
        self._slots, self._counts = [tuple(genes) for genes in slots], np.asarray(option_counts)
        self._weights, sizes = _mixed_radix(slots, option_counts)
        self._first = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        if len(entries_ms) != sum(sizes):
            raise ValueError(f"{len(entries_ms)} entries for slots of {sum(sizes)} options")
        self._entries_ms = entries_ms
        self._overhead_ms = overhead_ms
        self._memory = memory

    def entries(self, genomes: Ints) -> Ints:
        """Indices (N, slots) of what stands in every slot of ``genomes`` (N, genes)."""
        # Products in float64 go through BLAS and are exact: all indices are far below 2**53.
        return np.asarray((genomes.astype(np.float64) @ self._weights).astype(np.int64) + self._first)

    def latency_ms(self, genomes: Ints) -> Array:
        """Latencies (N,) in ms of genomes (N, genes)."""
        population = np.atleast_2d(np.asarray(genomes))
        result = np.empty(len(population))
        for start in range(0, len(population), _CHUNK):
            indices = self.entries(population[start : start + _CHUNK])
            result[start : start + _CHUNK] = self._entries_ms[indices].sum(axis=1) + self._besides(indices)
        return result

    def overhead_ms(self, genomes: Ints) -> Array:
        """What genomes (N, genes) cost in ms besides their entries, (N,)."""
        return np.zeros(len(genomes)) + self._besides(self.entries(genomes))

    def _besides(self, entries: Ints) -> Array | float:
        return self._overhead_ms if self._memory is None else self._overhead_ms + self._memory.of(entries)

    __call__ = latency_ms

    def expected(self, probabilities: Array) -> tuple[float, Array]:
        """The latency in ms on average when every option is drawn with its own probability.

        Args:
            probabilities: (options,) of all genes in a row, each gene's sum is 1.

        Returns:
            The expectation and its gradient (options,). Layers that the table cannot price count as
            ten times the dearest one that it can.
        """
        total, gradient = self._on_average(self._latency_tensors, probabilities)
        total += self._overhead_ms
        if self._memory is None:
            return total, gradient
        touched_mb, by_option = self._on_average(self._footprint_tensors, probabilities)
        knots, costs = self._memory.knots_mb, self._memory.costs_ms
        step = 1e-3 * max(touched_mb, 1e-6)
        low, high = np.interp([touched_mb, touched_mb + step], knots, costs)
        return total + float(low), gradient + by_option * float(high - low) / step

    def _on_average(self, tensors: Tensors, probabilities: Array) -> tuple[float, Array]:
        """The expectation of a sum of tensors, one axis a gene, and its gradient (options,)."""
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(self._counts)))
        floored = np.maximum(probabilities, 1e-12)
        total, gradient = 0.0, np.zeros(len(probabilities))
        for genes, values in tensors.items():
            of_gene = [floored[starts[gene] : starts[gene + 1]] for gene in genes]
            weighted = values
            for axis, one in enumerate(of_gene):
                weighted = weighted * one.reshape([-1 if axis == other else 1 for other in range(len(genes))])
            total += float(weighted.sum())
            for axis, (gene, one) in enumerate(zip(genes, of_gene, strict=True)):
                others = tuple(other for other in range(len(genes)) if other != axis)
                gradient[starts[gene] : starts[gene + 1]] += weighted.sum(axis=others) / one
        return total, gradient

    @cached_property
    def _latency_tensors(self) -> Tensors:
        dearest = np.where(np.isinf(self._entries_ms), 0.0, self._entries_ms).max()
        return self._tensors(np.where(np.isinf(self._entries_ms), 10.0 * dearest, self._entries_ms))

    @cached_property
    def _footprint_tensors(self) -> Tensors:
        return {} if self._memory is None else self._tensors(self._memory.footprints_mb)

    def _tensors(self, entries: Array) -> Tensors:
        """Entries of all slots that the same genes decide, added up: one axis a gene."""
        result: Tensors = {}
        for genes, first in zip(self._slots, self._first, strict=True):
            sizes = [int(self._counts[gene]) for gene in genes]
            block = entries[first : first + math.prod(sizes)].reshape(sizes)
            result[genes] = result[genes] + block if genes in result else block
        return result


def _mixed_radix(slots: Sequence[tuple[int, ...]], counts: Ints) -> tuple[Array, list[int]]:
    """Weights (genes, slots) that turn a genome into an index of every slot, and the slots' sizes."""
    weights = np.zeros((len(counts), len(slots)))
    sizes = []
    for column, genes in enumerate(slots):
        size = 1
        for gene in reversed(genes):
            weights[gene, column] = size
            size *= int(counts[gene])
        sizes.append(size)
    return weights, sizes
