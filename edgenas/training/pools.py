"""Trains a supernet on a pool of networks only: those that a latency limit leaves."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgenas.search_spaces import macs
from edgenas.search_spaces.space import Genomes
from edgenas.training.compute import mixed_precision
from edgenas.training.examples import Batch, Examples
from edgenas.training.loop import Learner
from edgenas.training.recipe import Recipe
from edgenas.training.scoring import subnet_accuracy
from edgenas.training.supernet import Supernet


class PoolLearner(Learner):
    """Every step trains a few networks of the pool, drawn anew, from the labels.

    The sandwich of the largest and the smallest network spends most of a step on two networks that
    no limit in between will ever choose. Where the limit is known before training, the same time
    trains several times as many networks that may win.

    Args:
        pool: genomes (N, genes), each as likely as another.

    Source: Guo et al., Single path one-shot (2020), for uniform sampling; You et al., GreedyNAS
    (2020), for training only what may be chosen.
    """

    def __init__(self, supernet: Supernet, data: Examples, recipe: Recipe, pool: Genomes) -> None:
        self.module = self._supernet = supernet
        self._data, self._recipe, self._pool = data, recipe, pool
        self._judged = _middle(supernet, pool)

    def backward(self, batch: Batch, generator: np.random.Generator) -> Tensor:
        count = self._recipe.pool_networks
        drawn = self._pool[generator.integers(0, len(self._pool), count)]
        return torch.stack([self._learn(batch, genome, 1.0 / count) for genome in drawn]).sum()

    def evaluate(self) -> dict[str, float]:
        return {"middle": subnet_accuracy(self._supernet, self._judged, self._data)}

    def _learn(self, batch: Batch, genome: Genomes, share: float) -> Tensor:
        """Adds a share of the gradients of one network; returns as much of its loss, detached."""
        self._supernet.set_active(genome)
        _, height, width = self._supernet.network.input_shape
        inputs = self._data.inputs(batch.images, height, width)
        with mixed_precision(self._data.device):
            logits = self._supernet(inputs)
        loss = F.cross_entropy(logits.float(), batch.targets) * share
        loss.backward()
        return loss.detach()


def _middle(supernet: Supernet, pool: Genomes) -> Genomes:
    """The network of median MACs: what the progress of training is told by."""
    counts = [macs(supernet.space.network(genome)) for genome in pool]
    median: Genomes = pool[int(np.argsort(counts, kind="stable")[len(counts) // 2])]
    return median
