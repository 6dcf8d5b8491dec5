"""What a metric is worth on average when every option is drawn with its own probability."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from edgenas.search.choice_distribution import ChoiceDistribution
from edgenas.search.problem import Floats, Genomes, Metric

SAMPLES = 20
"""Random genomes for every coefficient of a fitted metric."""


@runtime_checkable
class Expected(Protocol):
    """A metric that knows its own expectation; a compiled latency table is one."""

    def expected(self, probabilities: Floats) -> tuple[float, Floats]:
        """The expectation, and its gradient by ``probabilities`` (options of all genes in a row)."""
        ...


class FittedExpectation:
    """The expectation of the linear model that fits a metric best: what an unknown function allows.

    Args:
        metric: any function of genomes.
        distribution: of the genes.
        sample: genomes (N, genes) to fit it to.
    """

    def __init__(self, metric: Metric, distribution: ChoiceDistribution, sample: Genomes) -> None:
        codes = distribution.one_hot(sample)
        values = metric(sample)
        self._constant = float(values.mean())
        gram = codes.T @ codes + 1e-3 * len(sample) * np.eye(codes.shape[1]) / codes.shape[1]
        self._slopes = np.linalg.solve(gram, codes.T @ (values - self._constant))

    def expected(self, probabilities: Floats) -> tuple[float, Floats]:
        """The expectation and its gradient."""
        return self._constant + float(probabilities @ self._slopes), self._slopes


def expectation_of(metric: Metric, distribution: ChoiceDistribution, space_sample: Genomes) -> Expected:
    """The metric's own expectation where it has one, else that of its best linear fit."""
    return metric if isinstance(metric, Expected) else FittedExpectation(metric, distribution, space_sample)
