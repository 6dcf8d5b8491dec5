"""Trains a weight-sharing supernet."""

from __future__ import annotations

import os
from pathlib import Path

from edgenas.datasets import load_dataset
from edgenas.datasets.texts import is_text
from edgenas.records import TrainResult
from edgenas.search_spaces import get_space
from edgenas.workspace import Workspace

DEFAULT_CPU_SECONDS = 1200.0


def train(
    *,
    space: str,
    data: str,
    folder: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    cpu_seconds: float | None = None,
    torch_device: str = "auto",
    seed: int = 0,
    workspace: Workspace | None = None,
) -> TrainResult:
    """The supernet of a space in ``supernet.pt``; killed at any moment it goes on at its last epoch.

    Args:
        space: the search space.
        data: labelled images or texts; their test part is not touched.
        folder: where the checkpoint goes; ``runs/train-SPACE-DATA`` when omitted.
        epochs: how long to train, or
        cpu_seconds: how long in CPU time of all threads; 1,200 s when neither is given.
        torch_device: ``auto`` (the GPU where torch sees one), ``cpu`` or ``cuda``.
        seed: of the first weights, the split, the order of the images and the sampled networks.
        workspace: where runs are; the current folder when omitted.

    Raises:
        UnknownNameError: no such space.
        DataError: the data cannot be used.
        UsageError: a budget that is not one positive number, or no such torch device.
    """
    if not is_text(data):  # torch takes seconds to load: wrong names are told before
        get_space(space, classes=len(load_dataset(data).class_names))

    from edgenas import training
    from edgenas.training.loading import load_source, load_space

    budget = training.Budget(
        epochs=epochs,
        cpu_seconds=DEFAULT_CPU_SECONDS if epochs is None and cpu_seconds is None else cpu_seconds,
    )
    source = load_source(data)
    searched = load_space(space, source)
    device = training.torch_device(torch_device)
    training.prepare(device)
    examples = source.examples(searched, seed=seed, device=device)
    default = (workspace or Workspace()).runs / f"train-{searched.name}-{source.dataset.name}"
    where = Path(folder) if folder is not None else default
    _, result = training.train_supernet(
        searched, examples, folder=where, budget=budget, seed=seed, recipe=source.recipe
    )
    return result
