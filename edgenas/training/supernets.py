"""Trains supernets and loads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from edgenas.errors import ArtifactError
from edgenas.records import EpochRecord, TrainResult
from edgenas.search_spaces import SearchSpace, get_space
from edgenas.search_spaces.space import Genomes
from edgenas.training.budget import Budget
from edgenas.training.checkpoint import load_checkpoint
from edgenas.training.examples import Examples
from edgenas.training.loop import Learner, Loop
from edgenas.training.pools import PoolLearner
from edgenas.training.recipe import Recipe
from edgenas.training.sandwich import SandwichLearner
from edgenas.training.supernet import Supernet

CHECKPOINT = "supernet.pt"


def train_supernet(
    space: SearchSpace,
    data: Examples,
    *,
    folder: Path,
    budget: Budget,
    seed: int = 0,
    recipe: Recipe | None = None,
    pool: Genomes | None = None,
) -> tuple[Supernet, TrainResult]:
    """The trained supernet of ``space``; its checkpoint is ``folder/supernet.pt``.

    A finished training is loaded, a killed one goes on at its last epoch.

    Args:
        pool: genomes (N, genes) to train, where a limit leaves no others; the whole space by the
            sandwich rule when None.

    Raises:
        ArtifactError: the checkpoint in ``folder`` cannot be read.
        EdgeNASError: training diverged.
    """
    recipe = recipe or Recipe()
    supernet = Supernet(space, seed=seed).to(data.device)
    facts = {"space": space.name, "classes": space.classes, "seed": seed, "data_sha256": data.sha256}
    learner: Learner
    if pool is None:
        learner, judged_by, identity = SandwichLearner(supernet, data, recipe), "largest", space.identity
    else:
        learner, judged_by = PoolLearner(supernet, data, recipe, pool), "middle"
        identity = space.identity + hashlib.sha256(pool.tobytes()).hexdigest()
    loop = Loop(
        learner,
        data,
        recipe=recipe,
        budget=budget,
        seed=seed,
        checkpoint=folder / CHECKPOINT,
        identity=identity,
        facts=facts,
    )
    epochs = loop.run(f"Training the supernet of {space.name}")
    return supernet, result_of(epochs, space.name, data, folder / CHECKPOINT, judged_by)


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
