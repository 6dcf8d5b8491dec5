"""Bayesian optimization by Optuna: tree-structured Parzen estimators, or Gaussian processes.

Every generation asks a freshly seeded sampler over the trials so far, so that a search which goes on
from disk proposes what it would have.

Source: Akiba et al., Optuna, 2019; Bergstra et al., Algorithms for hyper-parameter optimization,
2011 (TPE).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from edgenas.errors import UsageError
from edgenas.search.problem import Genomes
from edgenas.search.strategy import Strategy

STARTUP = 16


class OptunaStrategy(Strategy):
    """What both samplers share: genes as categorical parameters, limits by repair."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._optuna = _optuna()
        counts = self.variation.counts.tolist()
        self._parameters = {
            f"{gene:04d}": self._optuna.distributions.CategoricalDistribution(range(count))
            for gene, count in enumerate(counts)
        }
        objectives = len(self.problem.objectives)
        self._study = self._optuna.create_study(directions=["minimize"] * objectives)
        self._told = 0

    @abstractmethod
    def _sampler(self, seed: int) -> Any:
        """The Optuna sampler to ask."""

    def _propose(self, n: int) -> Genomes:
        if len(self.history) < STARTUP:
            return self.variation.sample_by_rejection(n + n // 4)
        self._add_trials()
        self._study.sampler = self._sampler(int(self.rng.integers(2**31)))
        asked = min(n, self.generation_size)  # each costs a fit; who wants more gets random ones besides
        trials = [self._study.ask(self._parameters) for _ in range(asked)]
        for trial in trials:  # the answers come as trials of their own, with what repair made of them
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        drawn = [[trial.params[name] for name in self._parameters] for trial in trials]
        return self.variation.repair(np.array(drawn, np.int64), rounds=300)

    def _add_trials(self) -> None:
        for row in range(self._told, len(self.history)):
            genome = self.history.genomes[row].tolist()
            self._study.add_trial(
                self._optuna.create_trial(
                    params=dict(zip(self._parameters, genome, strict=True)),
                    distributions=self._parameters,
                    values=self.history.objectives[row].tolist(),
                )
            )
        self._told = len(self.history)


class Bayesian(OptunaStrategy):
    """Optuna's TPE: models good and bad candidates, proposes what the good ones are likelier to hold."""

    name: ClassVar[str] = "bayesian"

    @property
    def generation_size(self) -> int:
        return 8

    def _sampler(self, seed: int) -> Any:
        return self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, constant_liar=True, multivariate=True
        )


class BayesianGP(OptunaStrategy):
    """Optuna's Gaussian process: the most economical with evaluations, seconds for each; needs torch."""

    name: ClassVar[str] = "bayesian-gp"

    @property
    def generation_size(self) -> int:
        return 4

    def _sampler(self, seed: int) -> Any:
        try:
            return self._optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
        except ImportError as error:
            raise UsageError(
                "the strategy 'bayesian-gp' needs torch, which is not installed",
                hint='pip install "edgenas[train]", or --strategy bayesian',
            ) from error


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UsageError(
            "the strategy 'bayesian' needs the package optuna, which is not installed",
            hint='pip install "edgenas[optuna]"',
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
