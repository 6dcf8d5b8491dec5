"""The first guess of a kernel's time: as it was profiled in place, or interpolated over shapes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.catalogue import KernelCatalogue
from edgenas.latency_tables.features import FEATURES
from edgenas.latency_tables.kernels import footprint_bytes
from edgenas.latency_tables.regression import Settings, ShapeRegressor

Array = NDArray[np.float64]

# Which features the correction of a family may depend on, besides being constant.
_SHAPE_TERMS = tuple(FEATURES.index(name) for name in ("macs", "read", "out_channels", "height"))
TERMS = 1 + len(_SHAPE_TERMS)

# What is not known about a kernel that is priced by another layout or type of its kind.
_RELATED_LOG_SD = 0.6


class Guess(NamedTuple):
    """A kernel's time before the networks were looked at. ``log_sd`` is 0 where it was profiled.

    ``footprint_mb`` are the megabytes of its weights and of what it writes.
    """

    latency_ms: float
    log_sd: float
    family: str
    terms: tuple[float, ...]
    footprint_mb: float

    @property
    def measured(self) -> bool:
        """Whether the kernel itself was profiled."""
        return self.log_sd == 0.0


class KernelGuesses:
    """Guesses kernel times from what was profiled.

    Args:
        catalogue: all kernels that are asked for.
        profiled_ms: time in place by key.
        like: other guesses whose regressors' settings are taken over, which saves choosing them.
    """

    def __init__(
        self,
        catalogue: KernelCatalogue,
        profiled_ms: Mapping[str, float],
        *,
        like: KernelGuesses | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._profiled = dict(profiled_ms)
        self._like = like
        self._samples: dict[str, list[str]] = defaultdict(list)
        for key in sorted(self._profiled):
            self._samples[catalogue.family(key)].append(key)
        self._centres = {
            family: np.mean([catalogue.features(key) for key in keys], axis=0)
            for family, keys in self._samples.items()
        }
        self._regressors: dict[str, ShapeRegressor] = {}
        self._guesses: dict[str, Guess] = {}

    @property
    def families(self) -> tuple[str, ...]:
        """Families of which at least one kernel was profiled."""
        return tuple(self._samples)

    @property
    def ms_per_mb(self) -> float:
        """Profiled milliseconds a megabyte of all kernels' footprints: the scale of what memory costs."""
        megabytes = sum(footprint_bytes(self._catalogue.spec(key)) for key in self._profiled) / 1e6
        return sum(self._profiled.values()) / megabytes if megabytes else 1.0

    @property
    def shortest_ms(self) -> float:
        """What the cheapest twentieth of the profiled kernels take at most: the scale of overheads."""
        times = list(self._profiled.values())
        return max(float(np.quantile(times, 0.05)), 5e-4) if times else 1e-3

    def knows(self, key: str) -> bool:
        """Whether a kernel of this kind was ever profiled."""
        return self._family(key) is not None

    def _family(self, key: str) -> str | None:
        """The kernel's family, else the most profiled one of the same kind, else None."""
        family = self._catalogue.family(key)
        if family in self._samples:
            return family
        kind = self._catalogue.spec(key).kind
        same = [other for other in self._samples if other.split("/")[0] == kind]
        return max(same, key=lambda other: len(self._samples[other])) if same else None

    def guess(self, key: str) -> Guess:
        """The kernel's time and how it was come by; its kind must be known."""
        if key not in self._guesses:
            self._guesses[key] = self._guess(key)
        return self._guesses[key]

    def _guess(self, key: str) -> Guess:
        family, features = self._family(key), self._catalogue.features(key)
        assert family is not None, "callers ask knows() first"
        shape = (features - self._centres[family])[list(_SHAPE_TERMS)] / 4.0
        terms = (1.0, *shape.tolist())
        megabytes = footprint_bytes(self._catalogue.spec(key)) / 1e6
        if key in self._profiled:
            return Guess(self._profiled[key], 0.0, family, terms, megabytes)
        work = self._catalogue.work(key)
        mean, deviation = self._regressor(family).predict(features[None, :], work[None, :])
        least = 1e-3 if family == self._catalogue.family(key) else _RELATED_LOG_SD
        log_sd = max(float(deviation[0]), least)
        return Guess(math.exp(float(mean[0])), log_sd, family, terms, megabytes)

    def _regressor(self, family: str) -> ShapeRegressor:
        if family not in self._regressors:
            keys = self._samples[family]
            features = np.array([self._catalogue.features(key) for key in keys])
            work = np.array([self._catalogue.work(key) for key in keys])
            times_ms = np.array([self._profiled[key] for key in keys])
            self._regressors[family] = ShapeRegressor.fit(
                features, work, times_ms, settings=self._settings(family)
            )
        return self._regressors[family]

    def _settings(self, family: str) -> Settings | None:
        if self._like is None or family not in self._like.families:
            return None
        return self._like._regressor(family).settings
