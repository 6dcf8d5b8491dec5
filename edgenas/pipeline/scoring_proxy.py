"""The accuracy source ``proxy``: a rank that needs no data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.errors import UnknownNameError, UsageError
from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest
from edgenas.progress import say
from edgenas.search.problem import Floats, Genomes
from edgenas.search_spaces import SearchSpace, default_space, get_space
from edgenas.search_spaces.counted import CountedSpace

COUNTED = ("macs", "parameters")
NEED_TORCH = ("naswot", "synflow", "zen")
PROXY_NAMES = tuple(sorted((*COUNTED, *NEED_TORCH)))
_COUNTED_EVALUATIONS, _TORCH_EVALUATIONS = 4000, 200
_IMAGE_SIZE = 32
_STEEPNESS = 2.0 * np.log(9.0)  # of a logistic curve through .1 and .9


class ProxyAccuracy:
    """A proxy's value, squashed into 0..1: the space's least capable network has .1, the most capable .9.

    It is no accuracy and no share of anything; only the order counts.

    Args:
        name: one of ``PROXY_NAMES``.
        values: raw values (N,) of genomes (N, genes), more is better.
        space: whose ends make the scale.

    Source: Krishnakumar et al., NAS-Bench-Suite-Zero, 2022: MACs and parameters are hard to beat
    among proxies.
    """

    def __init__(self, name: str, values: Callable[[Genomes], Floats], space: SearchSpace) -> None:
        self.name = f"proxy:{name}"
        self._values = values
        low, high = values(np.stack([space.smallest(), space.largest()]))
        self._low, self._span = float(low), float(high - low) or 1.0

    def score(self, genomes: Genomes) -> Floats:
        """Scores (N,) of genomes (N, genes)."""
        place = (self._values(genomes) - self._low) / self._span
        return np.asarray(1.0 / (1.0 + np.exp(-_STEEPNESS * (place - 0.5))), np.float64)


def proxy_scoring(request: ScoringRequest) -> Scoring:
    """Scores by the proxy that the detail names; MACs without one."""
    name = request.detail or "macs"
    space = get_space(request.space or default_space(_IMAGE_SIZE))
    values = _values(name, space, request.seed)
    say(f"candidates are ranked by a proxy ({name}), which is no accuracy")
    evaluations = _COUNTED_EVALUATIONS if name in COUNTED else _TORCH_EVALUATIONS
    return Scoring(space, ProxyAccuracy(name, values, space), f"{name} {request.seed}", evaluations)


def _values(name: str, space: SearchSpace, seed: int) -> Callable[[Genomes], Floats]:
    if name not in PROXY_NAMES:
        raise UnknownNameError("proxy", name, PROXY_NAMES)
    if name in COUNTED:
        counted = CountedSpace(space)
        count = counted.macs if name == "macs" else counted.parameters
        return lambda genomes: np.log(np.maximum(count(genomes), 1.0))
    if space.network(space.smallest()).vocabulary:
        raise UsageError(
            f"the proxy '{name}' looks at images, the space '{space.name}' reads texts",
            hint="--proxy macs, or --proxy parameters",
        )
    try:
        from edgenas.training.proxies import proxy_score
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the proxy '{name}' needs torch, which is not installed; macs and parameters do without",
            hint='pip install "edgenas[train]"',
        ) from error
    return lambda genomes: np.array([proxy_score(name, space.network(genome), seed) for genome in genomes])
