"""Where a candidate's accuracy comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from edgenas.search.problem import Floats, Genomes


class AccuracySource(Protocol):
    """Scores candidates; ``name`` is what results are labelled with."""

    @property
    def name(self) -> str: ...

    def score(self, genomes: Genomes) -> Floats:
        """Accuracies (N,) in 0..1 of genomes (N, genes)."""
        ...


class MacsProxy:
    """More multiply-accumulates, more accuracy: a rank without any data, never an accuracy.

    The score is the logarithm of the MACs scaled to 0..1 between the space's ends.

    Args:
        macs: MACs of one genome (genes,).
        smallest: genome of the least capable network.
        largest: genome of the most capable network.

    Source: Krishnakumar et al., NAS-Bench-Suite-Zero (2022): FLOPs and parameters are hard to beat
    among proxies.
    """

    name = "proxy:macs"

    def __init__(self, macs: Callable[[Genomes], int], smallest: Genomes, largest: Genomes) -> None:
        self._macs = macs
        self._low, self._high = np.log(macs(smallest)), np.log(macs(largest))

    def score(self, genomes: Genomes) -> Floats:
        """Scores (N,) of genomes (N, genes)."""
        logs = np.log([self._macs(genome) for genome in genomes])
        scores: Floats = np.clip((logs - self._low) / (self._high - self._low), 0.0, 1.0)
        return scores
