"""Everything that was evaluated, in order, in growing arrays."""

from __future__ import annotations

import numpy as np

from edgenas.search.problem import Floats, Genomes


class History:
    """Genomes (N, genes), objectives (N, M) to be minimised and violations (N,) by order of telling."""

    def __init__(self, genes: int, objectives: int) -> None:
        self._genomes = np.zeros((64, genes), np.int64)
        self._objectives = np.zeros((64, objectives))
        self._violations = np.zeros(64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def genomes(self) -> Genomes:
        return self._genomes[: self._count]

    @property
    def objectives(self) -> Floats:
        return self._objectives[: self._count]

    @property
    def violations(self) -> Floats:
        return self._violations[: self._count]

    def add(self, genomes: Genomes, objectives: Floats, violations: Floats) -> None:
        """Appends rows."""
        end = self._count + len(genomes)
        while end > len(self._violations):
            self._genomes = np.concatenate([self._genomes, np.zeros_like(self._genomes)])
            self._objectives = np.concatenate([self._objectives, np.zeros_like(self._objectives)])
            self._violations = np.concatenate([self._violations, np.zeros_like(self._violations)])
        self._genomes[self._count : end] = genomes
        self._objectives[self._count : end] = objectives
        self._violations[self._count : end] = violations
        self._count = end
