"""Accuracies learnt from a few hundred scored networks, so that thousands more cost nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from edgenas.records import Record
from edgenas.search.problem import Floats, Genomes, Metric
from edgenas.search.surrogate import GaussianProcess

_FOLDS = 5
_DECIMALS = 6  # a product of matrices depends on their sizes in the last bits; no accuracy does


class HeldOutError(Record, kw_only=True):
    """How far an accuracy predictor is off on networks that it was not trained on.

    Attributes:
        networks: how many it was trained and judged on, in turns.
        rmse: root mean square of the errors, in accuracy (0..1).
        rank_correlation: Spearman's, between predicted and true accuracies.
        spread: standard deviation of the true accuracies; an error as large means nothing was learnt.
    """

    networks: int
    rmse: float
    rank_correlation: float
    spread: float

    def __str__(self) -> str:
        return (
            f"off by {100 * self.rmse:.2f} points on networks held out, whose accuracies spread over "
            f"{100 * self.spread:.2f}; rank correlation {self.rank_correlation:.3f}, {self.networks} networks"
        )


class AccuracyPredictor:
    """A Gaussian process over genomes as an accuracy source.

    Args:
        option_counts: (genes,).
        genomes: networks (N, genes) whose accuracies are known, at least 20.
        accuracies: (N,) in 0..1.
        traits: numbers (N, traits) of genomes (N, genes) that the process sees beside the genes.
    """

    name = "predictor"

    def __init__(self, option_counts: Genomes, genomes: Genomes, accuracies: Floats, traits: Metric) -> None:
        known = traits(genomes)
        self.error = held_out_error(option_counts, genomes, accuracies, known)
        self._traits = traits
        self._model = GaussianProcess(option_counts, known.shape[1])
        self._model.fit(genomes, 1.0 - accuracies, known)

    def score(self, genomes: Genomes) -> Floats:
        """Predicted accuracies (N,) of genomes (N, genes)."""
        predicted = 1.0 - self._model.median(genomes, self._traits(genomes))
        return np.clip(np.round(predicted, _DECIMALS), 0.0, 1.0)


def held_out_error(
    option_counts: Genomes, genomes: Genomes, accuracies: Floats, traits: Floats
) -> HeldOutError:
    """The error of predictors that are trained on four fifths and judged on the rest, five times."""
    predicted = np.empty(len(genomes))
    for judged in _folds(len(genomes)):
        trained = np.setdiff1d(np.arange(len(genomes)), judged)
        model = GaussianProcess(option_counts, traits.shape[1])
        model.fit(genomes[trained], 1.0 - accuracies[trained], traits[trained])
        predicted[judged] = 1.0 - model.median(genomes[judged], traits[judged])
    constant = len(np.unique(accuracies)) < 2 or len(np.unique(predicted)) < 2
    return HeldOutError(
        networks=len(genomes),
        rmse=float(np.sqrt(np.mean((predicted - accuracies) ** 2))),
        rank_correlation=0.0 if constant else float(stats.spearmanr(predicted, accuracies).statistic),
        spread=float(accuracies.std()),
    )


def _folds(count: int) -> Iterator[Genomes]:
    order = np.random.default_rng(0).permutation(count)
    yield from np.array_split(order, _FOLDS)
