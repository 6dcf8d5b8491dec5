"""The first guess of a kernel's time: as it was profiled in place, or interpolated over shapes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.features import FEATURES, features_of
from edgenas.latency_tables.kernels import KernelSpec, family_of
from edgenas.latency_tables.regression import Settings, ShapeRegressor
from edgenas.records import Record

Array = NDArray[np.float64]

# Which features the correction of a family may depend on, besides being constant.
_SHAPE_TERMS = tuple(FEATURES.index(name) for name in ("macs", "read", "out_channels", "height"))
TERMS = 1 + len(_SHAPE_TERMS)

# What is not known about a kernel that is priced by another layout or type of its kind.
_RELATED_LOG_SD = 0.6


class Guess(Record):
    """A kernel's time before the networks were looked at. ``log_sd`` is 0 where it was profiled."""

    latency_ms: float
    log_sd: float
    family: str
    terms: tuple[float, ...]

    @property
    def measured(self) -> bool:
        """Whether the kernel itself was profiled."""
        return self.log_sd == 0.0


class KernelGuesses:
    """Guesses kernel times from what was profiled.

    Args:
        specs: kernels by key.
        profiled_ms: time in place by key.
        like: other guesses whose regressors' settings are taken over, which saves choosing them.
    """

    def __init__(
        self,
        specs: Mapping[str, KernelSpec],
        profiled_ms: Mapping[str, float],
        *,
        like: KernelGuesses | None = None,
    ) -> None:
        self._settings: dict[str, Settings] = dict(like.settings()) if like else {}
        self._profiled = dict(profiled_ms)
        self._samples: dict[str, list[str]] = defaultdict(list)
        for key in sorted(self._profiled):
            self._samples[family_of(specs[key])].append(key)
        self._specs = {key: specs[key] for key in self._profiled}
        self._centres = {
            family: np.mean([features_of(self._specs[key]) for key in keys], axis=0)
            for family, keys in self._samples.items()
        }
        self._regressors: dict[str, ShapeRegressor] = {}
        self._guesses: dict[str, Guess] = {}

    @property
    def families(self) -> tuple[str, ...]:
        """Families of which at least one kernel was profiled."""
        return tuple(self._samples)

    @property
    def shortest_ms(self) -> float:
        """What the cheapest twentieth of the profiled kernels take at most: the scale of overheads."""
        times = list(self._profiled.values())
        return max(float(np.quantile(times, 0.05)), 5e-4) if times else 1e-3

    def settings(self) -> dict[str, Settings]:
        """Settings of every family's regressor, for ``like``."""
        return {family: self._regressor(family).settings for family in self._samples}

    def knows(self, spec: KernelSpec) -> bool:
        """Whether a kernel of this kind was ever profiled."""
        return self._family(spec) is not None

    def _family(self, spec: KernelSpec) -> str | None:
        """The kernel's family, else the most profiled one of the same kind, else None."""
        family = family_of(spec)
        if family in self._samples:
            return family
        same = [other for other in self._samples if other.split("/")[0] == spec.kind]
        return max(same, key=lambda other: len(self._samples[other])) if same else None

    def guess(self, spec: KernelSpec) -> Guess:
        """The kernel's time and how it was come by; the family must be known."""
        key = spec.key()
        if key not in self._guesses:
            self._guesses[key] = self._guess(key, spec)
        return self._guesses[key]

    def _guess(self, key: str, spec: KernelSpec) -> Guess:
        family, features = self._family(spec), features_of(spec)
        assert family is not None, "callers ask knows() first"
        shape = (features - self._centres[family])[list(_SHAPE_TERMS)] / 4.0
        terms = (1.0, *(float(term) for term in shape))
        if key in self._profiled:
            return Guess(latency_ms=self._profiled[key], log_sd=0.0, family=family, terms=terms)
        mean, deviation = self._regressor(family).predict(features[None, :])
        log_sd = max(float(deviation[0]), 1e-3 if family == family_of(spec) else _RELATED_LOG_SD)
        return Guess(latency_ms=math.exp(float(mean[0])), log_sd=log_sd, family=family, terms=terms)

    def _regressor(self, family: str) -> ShapeRegressor:
        if family not in self._regressors:
            keys = self._samples[family]
            features = np.array([features_of(self._specs[key]) for key in keys])
            times = np.log([self._profiled[key] for key in keys])
            settings = self._settings.get(family)
            self._regressors[family] = ShapeRegressor.fit(features, times, settings=settings)
        return self._regressors[family]
