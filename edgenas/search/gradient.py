"""Architecture weights that descend the gradient of predicted objectives and of expected latency.

Every gene has a softmax over its options. What was evaluated trains a Gaussian process, whose mean
is a smooth function of the one-hot codes and therefore of the probabilities, too; a latency table
gives the expected latency and its gradient exactly. The weights descend the sum of both; candidates
are drawn from where they end.

Source: Liu et al., DARTS, 2019 (relaxation); Cai et al., ProxylessNAS, 2019, 3.2 (expected latency).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from edgenas.search.choice_distribution import ChoiceDistribution
from edgenas.search.expectation import SAMPLES, expectation_of
from edgenas.search.problem import Floats, Genomes
from edgenas.search.scalarization import random_weights
from edgenas.search.strategy import Strategy
from edgenas.search.surrogate import GaussianProcess

STEPS = 80
STEP_SIZE = 0.15
START_SPREAD = 1.0
OVERRUN_WEIGHT = 20.0
ENTROPY_WEIGHT = 0.003
DRAWS = 4
"""Candidates drawn from one descent: its summit and what stands around it."""
FITTED_TO = 400


class GradientDescent(Strategy):
    """Descends from several random starts a generation; the first candidates are random.

    With several objectives every descent has weights of its own.
    """

    name: ClassVar[str] = "gradient"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._choices = ChoiceDistribution(self.variation.counts)
        self._models = {column: GaussianProcess(self.variation.counts) for column in self.problem.learnt}
        sample = self.problem.space.sample(np.random.default_rng(0), SAMPLES * len(self._choices.logits))
        self._expected = {
            name: expectation_of(metric, self._choices, sample)
            for name, metric in self.problem.metrics.items()
        }

    @property
    def generation_size(self) -> int:
        return int(np.clip(self.evaluations // 12, 4, 16))

    def _propose(self, n: int) -> Genomes:
        if len(self.history) < max(8, min(self.evaluations // 8, 40)):
            return self.variation.sample(n + n // 4)
        scales = self._fit()
        descents = -(-n // DRAWS) + 1
        weights = random_weights(self.rng, len(self.problem.objectives), descents)
        ends = [self._descend(one, scales) for one in weights]
        drawn = [self._choices.sample(self.rng, 2 * DRAWS, p) for p in ends]
        return self.variation.repair(np.concatenate([self._summits(ends), *drawn]))

    def _summits(self, ends: list[Floats]) -> Genomes:
        """The likeliest genome of every descent."""
        genes = [[int(np.argmax(p)) for p in np.split(end, self._choices.starts[1:])] for end in ends]
        return np.array(genes, np.int64)

    def _fit(self) -> Floats:
        """Fits the models to the best and latest candidates; returns the scale (M,) of each objective."""
        rows = np.arange(len(self.history))
        if len(rows) > FITTED_TO:
            best = np.argsort(self.history.objectives[:, 0], kind="stable")[: FITTED_TO // 2]
            rows = np.union1d(best, rows[-FITTED_TO // 2 :])
        objectives = self.history.objectives[rows]
        for column, model in self._models.items():
            model.fit(self.history.genomes[rows], objectives[:, column])
        return np.asarray(objectives.std(axis=0) + 1e-12)

    def _descend(self, weights: Floats, scales: Floats) -> Floats:
        """Probabilities (options,) where a descent by Adam ends."""
        logits = START_SPREAD * self.rng.normal(size=len(self._choices.logits))
        mean, square = np.zeros_like(logits), np.zeros_like(logits)
        for step in range(1, STEPS + 1):
            probabilities = self._choices.probabilities(logits)
            slope = self._choices.through_softmax(probabilities, self._slope(probabilities, weights / scales))
            slope -= ENTROPY_WEIGHT * self._choices.entropy_gradient(probabilities)
            mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope**2
            logits -= STEP_SIZE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
        return self._choices.probabilities(logits)

    def _slope(self, probabilities: Floats, weights: Floats) -> Floats:
        """The gradient of weighted objectives and overrun limits by the probabilities."""
        total = np.zeros_like(probabilities)
        for column, (name, weight) in enumerate(zip(self.problem.objectives, weights, strict=True)):
            if column in self._models:
                total += weight * self._models[column].relaxed_gradient(probabilities)
            else:
                total += weight * self._expected[name].expected(probabilities)[1]
        for limit in self.problem.limits:
            value, slope = self._expected[limit.metric].expected(probabilities)
            if value > limit.maximum:
                total += OVERRUN_WEIGHT * slope / limit.maximum
        return total

    def _state(self) -> dict[str, Any]:
        return {"models": [model.state() for model in self._models.values()]}

    def _restore(self, state: dict[str, Any]) -> None:
        for model, saved in zip(self._models.values(), state["models"], strict=True):
            model.restore(saved)
