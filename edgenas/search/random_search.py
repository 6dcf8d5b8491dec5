"""Random search: the baseline that every other strategy must beat."""

from __future__ import annotations

from typing import ClassVar

from edgenas.search.problem import Genomes
from edgenas.search.strategy import Strategy


class RandomSearch(Strategy):
    """Proposes genomes spread evenly over those within the limits."""

    name: ClassVar[str] = "random"

    @property
    def generation_size(self) -> int:
        return 32

    def _propose(self, n: int) -> Genomes:
        return self.variation.sample_by_rejection(n + n // 8)
