"""The first guess of a kernel's time: as it was profiled in place, or interpolated over shapes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.catalogue import KernelCatalogue
from edgenas.latency_tables.features import FEATURES
from edgenas.latency_tables.regression import ShapeRegressor
from edgenas.latency_tables.relevance import Settings

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


def to_be_chosen(family: str) -> None:
    """The settings of a family that nobody has chosen yet."""


class KernelGuesses:
    """Guesses kernel times from what was profiled.

    Args:
        catalogue: all kernels that are asked for.
        profiled_ms: time in place by key.
        settings: those of a family's regressor where they are known, which saves choosing them.
    """

    def __init__(
        self,
        catalogue: KernelCatalogue,
        profiled_ms: Mapping[str, float],
        *,
        settings: Callable[[str], Settings | None] = to_be_chosen,
    ) -> None:
        self._catalogue = catalogue
        self._profiled = dict(profiled_ms)
        self._settings = settings
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
    def profiled_ms(self) -> Mapping[str, float]:
        """Time in place by key."""
        return self._profiled

    @property
    def families(self) -> tuple[str, ...]:
        """Families of which at least one kernel was profiled."""
        return tuple(self._samples)

    @property
    def ms_per_mb(self) -> float:
        """Profiled milliseconds a megabyte of all kernels' footprints: the scale of what memory costs."""
        megabytes = sum(self._catalogue.facts(key).footprint_mb for key in self._profiled)
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
        kind = family.split("/")[0]
        same = [other for other in self._samples if other.split("/")[0] == kind]
        return max(same, key=lambda other: len(self._samples[other])) if same else None

    def guess(self, key: str) -> Guess:
        """The kernel's time and how it was come by; its kind must be known."""
        if key not in self._guesses:
            self._guesses[key] = self._guess(key)
        return self._guesses[key]

    def _guess(self, key: str) -> Guess:
        family, facts = self._family(key), self._catalogue.facts(key)
        assert family is not None, "callers ask knows() first"
        shape = (facts.features - self._centres[family])[list(_SHAPE_TERMS)] / 4.0
        terms = (1.0, *shape.tolist())
        if key in self._profiled:
            return Guess(self._profiled[key], 0.0, family, terms, facts.footprint_mb)
        mean, deviation = self._regressor(family).predict(facts.features[None, :], facts.work[None, :])
        least = 1e-3 if family == facts.family else _RELATED_LOG_SD
        log_sd = max(float(deviation[0]), least)
        return Guess(math.exp(float(mean[0])), log_sd, family, terms, facts.footprint_mb)

    def settings_of(self, family: str) -> Settings | None:
        """Those of the family's regressor; None where nothing of it was profiled."""
        return self._regressor(family).settings if family in self._samples else None

    def settings_so_far(self) -> dict[str, Settings]:
        """Of the families whose regressors were asked for."""
        return {family: one.settings for family, one in self._regressors.items()}

    def _regressor(self, family: str) -> ShapeRegressor:
        if family not in self._regressors:
            known = [self._catalogue.facts(key) for key in self._samples[family]]
            self._regressors[family] = ShapeRegressor.fit(
                np.array([one.features for one in known]),
                np.array([one.work for one in known]),
                np.array([self._profiled[key] for key in self._samples[family]]),
                settings=self._settings(family),
            )
        return self._regressors[family]
