"""Where a candidate's accuracy comes from."""

from __future__ import annotations

from typing import Protocol

from edgenas.search.problem import Floats, Genomes


class AccuracySource(Protocol):
    """Scores candidates; ``name`` is what results are labelled with."""

    @property
    def name(self) -> str: ...

    def score(self, genomes: Genomes) -> Floats:
        """Accuracies (N,) in 0..1 of genomes (N, genes)."""
        ...
