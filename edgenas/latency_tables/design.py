"""Networks and kernels as rows of a linear model: T = overhead + sum of corrected kernel times.

Every kernel k of family f has the corrected time

    t_k = p_k (1 + g + c_f . s_k + u_k) + b + b_f + o_k

where p_k is the guess (profiled in place or interpolated), s_k a few shape terms, g, c_f and u_k
relative corrections of all kernels, of the family and of the kernel alone, and b, b_f and o_k what
each call costs besides. Profilers round, perturb and add a constant per kernel; these terms take
that out again, as far as the end-to-end times of whole networks tell.

The sum is not all: a network whose weights and activations stay in a cache from run to run is faster
than its kernels were elsewhere. So the overhead has one more term, piecewise linear in the megabytes
that the whole network touches.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from edgenas.latency_tables.pricing import TERMS, Guess, KernelGuesses

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

OVERHEAD, SCALE, CALL = 0, 1, 2
KNOTS_MB = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # sizes that caches have
MEMORY = slice(3, 3 + len(KNOTS_MB))
_FIXED = MEMORY.stop

# The groups of coefficients that share one prior deviation, and that deviation before fitting:
# relative for the corrections, in units of the shortest kernel for what a call costs.
GROUPS = (
    "overhead", "scale", "call", "memory", "family_call", "family_scale", "kernel_scale", "kernel_call",
)  # fmt: skip
PRIOR_DEVIATIONS = (5.0, 0.2, 0.7, 0.05, 0.3, 0.08, 0.06, 0.1)


@dataclass(frozen=True)
class Column:
    """One kernel as a sparse row: coefficients' indices and values, its guess, and its own doubt."""

    indices: Ints
    values: Array
    guess: Guess

    @functools.cached_property
    def own_variance(self) -> float:
        """Variance in ms squared that no measured network can reduce."""
        return float((self.guess.latency_ms * np.expm1(min(self.guess.log_sd, 2.0))) ** 2)


class Design:
    """The layout of the coefficients: global, per family, per profiled kernel.

    Args:
        guesses: first guesses and families.
        keys: profiled kernels that get a correction of their own.
    """

    def __init__(self, guesses: KernelGuesses, keys: Sequence[str]) -> None:
        self.guesses = guesses
        self.unit_ms = guesses.shortest_ms
        self.ms_per_mb = guesses.ms_per_mb
        self._families = {family: index for index, family in enumerate(guesses.families)}
        self._kernels = {key: index for index, key in enumerate(keys)}
        self._family_terms = _FIXED + len(self._families)
        self._kernel_terms = self._family_terms + TERMS * len(self._families)
        self.size = self._kernel_terms + 2 * len(self._kernels)

    def groups(self) -> Ints:
        """For every coefficient the index of its group in ``GROUPS``, (size,)."""
        lengths = (
            1,
            1,
            1,
            len(KNOTS_MB),
            len(self._families),
            TERMS * len(self._families),
            len(self._kernels),
        )
        return np.repeat(np.arange(len(GROUPS)), (*lengths, len(self._kernels)))

    def column(self, key: str, guess: Guess) -> Column:
        """The coefficients that one call of a kernel involves."""
        family, time = self._families[guess.family], guess.latency_ms
        first = self._family_terms + TERMS * family
        indices = [SCALE, CALL, _FIXED + family, *range(first, first + TERMS)]
        values = [time, self.unit_ms, self.unit_ms, *(time * term for term in guess.terms)]
        if key in self._kernels:
            own = self._kernel_terms + self._kernels[key]
            indices += [own, own + len(self._kernels)]
            values += [time, self.unit_ms]
        return Column(np.array(indices), np.array(values), guess)

    def rows(
        self, networks: Sequence[Mapping[str, float]], columns: Mapping[str, Column]
    ) -> tuple[csr_array, Array, Array]:
        """Networks as ``row`` gives them, the coefficients sparse: (N, size), (N,), (N,)."""
        whole = csr_array((0, self.size))
        rows, bases, variances = [whole], [], []
        for kernels in networks:
            row, base, variance = self.row(kernels, columns)
            rows.append(csr_array(row[None, :]))
            bases.append(base)
            variances.append(variance)
        return vstack(rows, format="csr"), np.array(bases), np.array(variances)

    def row(self, kernels: Mapping[str, float], columns: Mapping[str, Column]) -> tuple[Array, float, float]:
        """A network as (coefficients (size,), sum of guesses in ms, own variance in ms squared)."""
        row = np.zeros(self.size)
        row[OVERHEAD] = self.unit_ms
        base, variance, megabytes = 0.0, 0.0, 0.0
        for key, count in kernels.items():
            column = columns[key]
            row[column.indices] += count * column.values  # the indices of one column are distinct
            base += count * column.guess.latency_ms
            # The same unknown kernel errs the same way each time it is called.
            variance += count**2 * column.own_variance
            megabytes += count * column.guess.footprint_mb
        row[MEMORY] = self.ms_per_mb * np.maximum(0.0, megabytes - np.array(KNOTS_MB))
        return row, base, variance
