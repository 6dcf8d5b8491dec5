"""The kernels that a computation deals with, by key, each looked at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.features import features_of, work_of
from edgenas.latency_tables.kernels import KernelSpec, family_of


class KernelCatalogue:
    """Specs by key with their families and features, which take longer to find than to use.

    Args:
        specs: kernels that are known from the start; ``add`` takes more.
    """

    def __init__(self, specs: Mapping[str, KernelSpec]) -> None:
        self._specs = dict(specs)
        self._families: dict[str, str] = {}
        self._features: dict[str, NDArray[np.float64]] = {}
        self._work: dict[str, NDArray[np.float64]] = {}

    def add(self, spec: KernelSpec) -> str:
        """Takes a kernel in and returns its key."""
        key = spec.key()
        self._specs.setdefault(key, spec)
        return key

    def spec(self, key: str) -> KernelSpec:
        """The kernel of a key."""
        return self._specs[key]

    def family(self, key: str) -> str:
        """The kernel's family."""
        if key not in self._families:
            self._families[key] = family_of(self._specs[key])
        return self._families[key]

    def features(self, key: str) -> NDArray[np.float64]:
        """The kernel's features, (len(FEATURES),)."""
        if key not in self._features:
            self._features[key] = features_of(self._specs[key])
        return self._features[key]

    def work(self, key: str) -> NDArray[np.float64]:
        """What the kernel's time is a sum of, (len(WORK),)."""
        if key not in self._work:
            self._work[key] = work_of(self._specs[key])
        return self._work[key]
