"""The kernels that a computation deals with, by key, each looked at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.features import features_of, work_of
from edgenas.latency_tables.kernels import KernelSpec, computes_in_integers, family_of, footprint_bytes


class KernelFacts(NamedTuple):
    """What prices are made of: ``features`` (len(FEATURES),), ``work`` (len(WORK),) and megabytes touched."""

    family: str
    features: NDArray[np.float64]
    work: NDArray[np.float64]
    footprint_mb: float


class KernelCatalogue:
    """Specs by key with their families and features, which take longer to find than to use.

    Args:
        specs: kernels that are known from the start; ``add`` takes more.
        known: facts that were found before.
    """

    def __init__(
        self, specs: Mapping[str, KernelSpec], known: Mapping[str, KernelFacts] | None = None
    ) -> None:
        self._specs = dict(specs)
        self._facts = dict(known or {})
        self._in_integers: dict[str, bool] = {}

    def add(self, spec: KernelSpec) -> str:
        """Takes a kernel in and returns its key."""
        key = spec.key()
        self._specs.setdefault(key, spec)
        return key

    def spec(self, key: str) -> KernelSpec:
        """The kernel of a key."""
        return self._specs[key]

    def facts(self, key: str) -> KernelFacts:
        """What is to know about a kernel's price."""
        if key not in self._facts:
            spec = self._specs[key]
            self._facts[key] = KernelFacts(
                family_of(spec), features_of(spec), work_of(spec), footprint_bytes(spec) / 1e6
            )
        return self._facts[key]

    def computes_in_integers(self, keys: Collection[str]) -> bool:
        """Whether any of the kernels is a convolution or a matrix product of integers."""
        for key in keys:
            if key not in self._in_integers:
                self._in_integers[key] = computes_in_integers(self._specs[key])
        return any(self._in_integers[key] for key in keys)

    def family(self, key: str) -> str:
        """The kernel's family."""
        return self.facts(key).family

    def features(self, key: str) -> NDArray[np.float64]:
        """The kernel's features, (len(FEATURES),)."""
        return self.facts(key).features
