"""Trains a supernet: the sandwich rule with in-place distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgenas.errors import ArtifactError
from edgenas.records import EpochRecord, TrainResult
from edgenas.search_spaces import SearchSpace, get_space
from edgenas.search_spaces.space import Genomes
from edgenas.training.budget import Budget
from edgenas.training.checkpoint import load_checkpoint
from edgenas.training.examples import Batch, Examples
from edgenas.training.loop import Learner, Loop, accuracy
from edgenas.training.recipe import Recipe
from edgenas.training.supernet import Supernet

CHECKPOINT = "supernet.pt"


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
        logits = self._supernet(self._data.inputs(batch.images, height, width))
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        return loss.detach(), logits.detach().softmax(1)


def subnet_accuracy(supernet: Supernet, genome: Genomes, data: Examples) -> float:
    """Validation accuracy of one network: recalibrated, folded, int8 layers simulated.

    Leaves the network active and calibrated, and the supernet in evaluation mode.
    """
    supernet.eval()
    supernet.set_active(genome)
    _, height, width = supernet.network.input_shape
    supernet.calibrate(data.calibration_batches(height, width))
    return accuracy(supernet, data, height, width)


def train_supernet(
    space: SearchSpace,
    data: Examples,
    *,
    folder: Path,
    budget: Budget,
    seed: int = 0,
    recipe: Recipe | None = None,
) -> tuple[Supernet, TrainResult]:
    """The trained supernet of ``space``; its checkpoint is ``folder/supernet.pt``.

    A finished training is loaded, a killed one goes on at its last epoch.

    Raises:
        ArtifactError: the checkpoint in ``folder`` cannot be read.
        EdgeNASError: training diverged.
    """
    recipe = recipe or Recipe()
    supernet = Supernet(space, seed=seed).to(data.device)
    facts = {"space": space.name, "classes": space.classes, "seed": seed, "data_sha256": data.sha256}
    loop = Loop(
        SandwichLearner(supernet, data, recipe),
        data,
        recipe=recipe,
        budget=budget,
        seed=seed,
        checkpoint=folder / CHECKPOINT,
        identity=space.identity,
        facts=facts,
    )
    epochs = loop.run(f"Training the supernet of {space.name}")
    return supernet, result_of(epochs, space.name, data, folder / CHECKPOINT, "largest")


def load_supernet(path: Path, *, device: torch.device, space: SearchSpace | None = None) -> Supernet:
    """The supernet in the checkpoint ``path``.

    Args:
        space: what it was trained for; found by the name in the checkpoint when None, which a space
            from a user's own file does not have.

    Raises:
        ArtifactError: the file is missing, damaged, or its space has changed since.
    """
    state = load_checkpoint(path)
    if "space" not in state:
        raise ArtifactError(f"{path} holds a network, not a supernet", hint="make one: edgenas train")
    supernet = Supernet(space or get_space(state["space"], classes=state["classes"]))
    try:
        supernet.load_state_dict(state["module"])
    except RuntimeError as error:
        raise ArtifactError(
            f"the space '{state['space']}' is not the one that {path} was trained for", hint="train it again"
        ) from error
    return supernet.to(device).eval()


def result_of(
    epochs: tuple[EpochRecord, ...], space: str, data: Examples, checkpoint: Path, judged_by: str
) -> TrainResult:
    """The record of a finished training."""
    return TrainResult(
        space=space,
        data=data.name,
        checkpoint=str(checkpoint),
        epochs=epochs,
        validation_accuracy=epochs[-1].accuracy[judged_by],
        elapsed_s=epochs[-1].elapsed_s,
    )
