"""Scores of a supernet's networks in other processes, which load the supernet once each."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from edgenas.records import Record
from edgenas.training.compute import prepare, torch_device
from edgenas.training.examples import Examples
from edgenas.training.loading import load_source, load_space
from edgenas.training.scoring import subnet_accuracy
from edgenas.training.supernet import Supernet
from edgenas.training.supernets import load_supernet


class SupernetFile(Record, kw_only=True):
    """Where a supernet and its images are, as every worker sees them.

    Attributes:
        checkpoint: what ``train`` left.
        sha256: of the checkpoint: a worker that holds another one loads it again.
        space: the space's name or file; None takes the name in the checkpoint.
        data: as ``load_dataset`` takes it.
        seed: of the split of the images.
        threads: of torch. Sums in another order move simulated int8 values to the next integer, so
            that a score can differ by a few images; all workers use as many threads as the search.
    """

    checkpoint: str
    sha256: str
    space: str | None
    data: str
    seed: int
    threads: int


class Subnet(Record, kw_only=True):
    """One network of a supernet, by its genome."""

    supernet: SupernetFile
    genome: tuple[int, ...]


def score_subnet(subnet: Subnet) -> float:
    """Validation accuracy 0..1 of one network; the supernet is loaded once a process."""
    supernet, data = _kept(subnet.supernet)
    return subnet_accuracy(supernet, np.array(subnet.genome, np.int64), data)


@functools.lru_cache(maxsize=1)
def _kept(file: SupernetFile) -> tuple[Supernet, Examples]:
    return load(file)


def load(file: SupernetFile) -> tuple[Supernet, Examples]:
    """The supernet and the examples that it is scored on."""
    device = torch_device("auto")
    prepare(device, file.threads)
    source = load_source(file.data)
    asked = load_space(file.space, source) if file.space is not None else None
    supernet = load_supernet(Path(file.checkpoint), device=device, space=asked)
    return supernet, source.examples(supernet.space, seed=file.seed, device=device)
