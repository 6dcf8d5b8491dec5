"""Trains a weight-sharing supernet."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np

from edgenas.datasets import load_parted
from edgenas.datasets.texts import is_text
from edgenas.files import write_atomically
from edgenas.pipeline.latency import compiled_latency
from edgenas.pipeline.limits import networks_near
from edgenas.pipeline.search_reach import refuse_unreachable
from edgenas.records import Record, TrainResult
from edgenas.search_spaces import Genomes, SearchSpace, get_space
from edgenas.workspace import Workspace

DEFAULT_CPU_SECONDS = 1200.0


def train(
    *,
    space: str,
    data: str,
    folder: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    cpu_seconds: float | None = None,
    latency_ms: float | None = None,
    device: str | None = None,
    threads: int | None = None,
    torch_device: str = "auto",
    seed: int = 0,
    workspace: Workspace | None = None,
) -> TrainResult:
    """The supernet of a space in ``supernet.pt``; killed at any moment it goes on at its last epoch.

    Without a limit the whole space is trained by the sandwich rule. With one only networks that the
    device's table puts just below it are, which a search under that limit is served far better by.

    Args:
        space: the search space.
        data: labelled images or texts; their test part is not touched.
        folder: where the checkpoint goes; ``runs/train-SPACE-DATA`` when omitted, with the limit and the
            seed where they are given.
        epochs: how long to train, or
        cpu_seconds: how long in CPU time of all threads; 1,200 s when neither is given.
        latency_ms: a limit that the search will have.
        device: whose latency is limited; the workspace's default when omitted.
        threads: threads that latencies are for; what the table has most of when None.
        torch_device: ``auto`` (the GPU where torch sees one), ``cpu`` or ``cuda``.
        seed: of the first weights, the split, the order of the images and the sampled networks.
        workspace: where runs and tables are; the current folder when omitted.

    Raises:
        BudgetNotMetError: no network of the space keeps the limit.
        TableError: the device has no table, or it knows nothing of the space.
        UnknownNameError: no such space.
        DataError: the data cannot be used.
        UsageError: a budget that is not one positive number, or no such torch device.
    """
    workspace = workspace or Workspace()
    if not is_text(data):  # torch takes seconds to load: wrong names are told before
        get_space(space, classes=len(load_parted(data, vocabulary=0).class_names))

    from edgenas import training
    from edgenas.training.loading import load_source, load_space

    budget = training.Budget(
        epochs=epochs,
        cpu_seconds=DEFAULT_CPU_SECONDS if epochs is None and cpu_seconds is None else cpu_seconds,
    )
    source = load_source(data)
    searched = load_space(space, source)
    default = _default_folder(searched.name, source.dataset.name, latency_ms, seed)
    where = Path(folder) if folder is not None else workspace.runs / default
    pool = None
    if latency_ms is not None:
        named = workspace.device_or_default(device)
        pool = _pool(
            searched, latency_ms, where, device=named, threads=threads, seed=seed, workspace=workspace
        )
    processor = training.torch_device(torch_device)
    training.prepare(processor)
    examples = source.examples(searched, seed=seed, device=processor)
    _, result = training.train_supernet(
        searched, examples, folder=where, budget=budget, seed=seed, recipe=source.recipe, pool=pool
    )
    return result


def _default_folder(space: str, data: str, latency_ms: float | None, seed: int) -> str:
    """A name of its own for whatever would begin the training of another anew."""
    parts = ("train", space, data, latency_ms and f"{latency_ms:g}ms", seed and f"seed{seed}")
    return "-".join(part for part in parts if part)


class _Pool(Record):
    """The networks that a supernet is trained for.

    They are kept beside its checkpoint: predictions change a little with every measurement that the
    table gets, and a training that goes on must not begin anew for that.
    """

    identity: str
    genomes: tuple[tuple[int, ...], ...]
    version: int = 1


def _pool(
    space: SearchSpace,
    latency_ms: float,
    folder: Path,
    *,
    device: str,
    threads: int | None,
    seed: int,
    workspace: Workspace,
) -> Genomes:
    """The networks that the limit leaves: those of an earlier call, or what the table says now."""
    path = folder / "supernet.pool.json"
    identity = f"{space.identity} {device} {threads} {latency_ms!r} {seed}"
    found = _kept(path)
    if found is None or found.identity != identity:
        refuse_unreachable(
            space, device=device, latency_ms=latency_ms, threads=threads, seed=seed, workspace=workspace
        )
        latency = compiled_latency(space, device, threads=threads, workspace=workspace)
        near = networks_near(space, latency, latency_ms, seed=seed)
        found = _Pool(identity=identity, genomes=tuple(tuple(row) for row in near.tolist()))
        write_atomically(path, msgspec.json.encode(found))
    return np.array(found.genomes, np.int64)


def _kept(path: Path) -> _Pool | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Pool)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # what is damaged is drawn anew
