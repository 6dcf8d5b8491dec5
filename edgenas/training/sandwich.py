"""Trains a supernet on its whole space: the sandwich rule with in-place distillation."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from edgenas.search_spaces.space import Genomes
from edgenas.training.compute import mixed_precision
from edgenas.training.examples import Batch, Examples
from edgenas.training.loop import Learner
from edgenas.training.recipe import Recipe
from edgenas.training.scoring import subnet_accuracy
from edgenas.training.supernet import Supernet


class SandwichLearner(Learner):
    """Every step trains the largest, the smallest and some random networks.

    The largest learns from the labels, the others from what the largest says, each at its own
    resolution.

    Source: Yu and Huang, Universally slimmable networks (2019); Yu et al., BigNAS (2020).
    """

    def __init__(self, supernet: Supernet, data: Examples, recipe: Recipe) -> None:
        self.module = self._supernet = supernet
        self._data, self._recipe = data, recipe

    def backward(self, batch: Batch, generator: np.random.Generator) -> Tensor:
        space = self._supernet.space
        loss, targets = self._learn(batch, space.largest(), batch.targets)
        for genome in (space.smallest(), *space.sample(generator, self._recipe.random_subnets)):
            self._learn(batch, genome, targets)
        return loss

    def evaluate(self) -> dict[str, float]:
        space = self._supernet.space
        ends = {"smallest": space.smallest(), "largest": space.largest()}
        return {name: subnet_accuracy(self._supernet, genome, self._data) for name, genome in ends.items()}

    def _learn(self, batch: Batch, genome: Genomes, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the gradients of one network; returns its loss and what it says, both detached."""
        self._supernet.set_active(genome)
        _, height, width = self._supernet.network.input_shape
        inputs = self._data.inputs(batch.images, height, width)
        with mixed_precision(self._data.device):
            logits = self._supernet(inputs).float()
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        return loss.detach(), logits.detach().softmax(1)
