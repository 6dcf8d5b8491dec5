"""Accuracies learnt from a few hundred scored networks, so that thousands more cost nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from edgenas.records import Record
from edgenas.search.problem import Floats, Genomes
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
    """

    name = "predictor"

    def __init__(self, option_counts: Genomes, genomes: Genomes, accuracies: Floats) -> None:
        self.error = held_out_error(option_counts, genomes, accuracies)
        self._model = GaussianProcess(option_counts)
        self._model.fit(genomes, 1.0 - accuracies)

    def score(self, genomes: Genomes) -> Floats:
        """Predicted accuracies (N,) of genomes (N, genes)."""
        return np.clip(np.round(1.0 - self._model.median(genomes), _DECIMALS), 0.0, 1.0)


def held_out_error(option_counts: Genomes, genomes: Genomes, accuracies: Floats) -> HeldOutError:
    """The error of predictors that are trained on four fifths and judged on the rest, five times."""
    predicted = np.empty(len(genomes))
    for judged in _folds(len(genomes)):
        trained = np.setdiff1d(np.arange(len(genomes)), judged)
        model = GaussianProcess(option_counts)
        model.fit(genomes[trained], 1.0 - accuracies[trained])
        predicted[judged] = 1.0 - model.median(genomes[judged])
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
