"""A controller that learns which options pay, by the policy gradient.

The controller is one categorical distribution a gene. The published ones are recurrent networks,
which can tie options to each other; they need thousands of evaluations to learn it.

Source: Williams, Simple statistical gradient-following algorithms, 1992; Zoph and Le, Neural
architecture search with reinforcement learning, 2017; Cai et al., ProxylessNAS, 2019, 3.3 (one
distribution a choice).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from edgenas.search.choice_distribution import ChoiceDistribution
from edgenas.search.problem import Genomes
from edgenas.search.scalarization import losses, random_weights
from edgenas.search.strategy import Strategy

LEARNING_RATE = 0.15
ENTROPY_SHARE = 0.02
SLOWEST = 0.25
MOMENTUM = 0.9
WINDOW = 256
"""Rewards are ranks among so many of the latest candidates."""


class Reinforce(Strategy):
    """Samples from a controller and makes what came out better than usual more likely.

    A candidate's reward is its rank among the latest ones, so that the scale of an objective means
    nothing; several objectives are joined by weights that change with every generation. What was
    repaired to keep the limits counts as what the controller chose.
    """

    name: ClassVar[str] = "reinforce"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._controller = ChoiceDistribution(self.variation.counts)
        self._velocity = np.zeros_like(self._controller.logits)

    @property
    def generation_size(self) -> int:
        return int(np.clip(self.evaluations // 30, 8, 32))

    def _propose(self, n: int) -> Genomes:
        drawn = self._controller.sample(self.rng, 2 * n, self._controller.probabilities())
        return self.variation.repair(drawn)

    def _learn(self, start: int) -> None:
        first = max(0, len(self.history) - WINDOW)
        weights = random_weights(self.rng, self.history.objectives.shape[1], 1)[0]
        loss = losses(self.history.objectives[first:], weights)
        order = np.lexsort((loss, self.history.violations[first:]))
        reward = np.empty(len(order))
        reward[order] = np.linspace(1.0, -1.0, len(order))
        fresh = max(start - first, 0)
        chosen = self._controller.one_hot(self.history.genomes[first + fresh :])
        probabilities = self._controller.probabilities()
        ascent = reward[fresh:] @ (chosen - probabilities) / len(chosen)
        ascent += ENTROPY_SHARE * self._controller.entropy_gradient(probabilities)
        self._velocity = MOMENTUM * self._velocity + ascent
        self._controller.logits += self._rate * self._velocity

    @property
    def _rate(self) -> float:
        """Generations are few where evaluations are: each must teach more."""
        generations = self.evaluations / self.generation_size
        return LEARNING_RATE * max(SLOWEST, 120.0 / max(generations, 10.0))

    def _state(self) -> dict[str, Any]:
        return {"logits": self._controller.logits.tolist(), "velocity": self._velocity.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        self._controller.logits = np.array(state["logits"])
        self._velocity = np.array(state["velocity"])
