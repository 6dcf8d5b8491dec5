"""Trains a network from the supernet's weights or from scratch, whichever leads after an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from edgenas.search_spaces import Network
from edgenas.training.budget import Budget
from edgenas.training.checkpoint import load_checkpoint
from edgenas.training.examples import Examples
from edgenas.training.networks import CHECKPOINT, Teacher, TrainedNetwork, train_network
from edgenas.training.recipe import Recipe

SCRATCH = "scratch"


def train_from_better_start(
    network: Network,
    data: Examples,
    *,
    inherited: Mapping[str, Tensor],
    folder: Path,
    budget: Budget,
    seed: int = 0,
    recipe: Recipe | None = None,
    teacher: Teacher | None = None,
) -> TrainedNetwork:
    """The trained network; the epoch of the start that lost is part of the budget.

    Weights that many networks shared are a lead after a long supernet training and a handicap after a
    short one: a network learns more slowly from poor weights than from none. One epoch of each tells.
    The teacher has the supernet's weights too, so that it stays with those who start from them.

    Args:
        inherited: the supernet's weights of the network (``Supernet.subnet_state``).
        folder: for ``network.pt``, or ``scratch/network.pt`` where the other start won.

    Source: Ash and Adams, On warm-starting neural network training (2020), for the handicap.
    """
    train = partial(train_network, network, data, budget=budget, seed=seed, recipe=recipe, spent_epochs=1)
    from_supernet = partial(train, folder=folder, state=inherited, teacher=teacher)
    from_scratch = partial(train, folder=folder / SCRATCH)
    first = from_supernet(until_epoch=1)
    if not load_checkpoint(folder / CHECKPOINT)["spent_steps"]:
        return from_supernet()  # the budget is too short for a contest
    scratch = from_scratch(until_epoch=1)
    led = [one.result.epochs[0].accuracy["network"] for one in (first, scratch)]
    return from_supernet() if led[0] >= led[1] else from_scratch()
