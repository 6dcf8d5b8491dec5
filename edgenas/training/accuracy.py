"""Scores the networks of a space with the weights that a supernet has for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgenas.progress import track
from edgenas.search_spaces.space import Genomes, SearchSpace
from edgenas.training.examples import Examples
from edgenas.training.scores import ScoreStore
from edgenas.training.scoring import subnet_accuracy
from edgenas.training.subnets import Subnet, SupernetFile, score_subnet
from edgenas.training.supernet import Supernet
from edgenas.training.workers import Workers


class SupernetAccuracy:
    """An accuracy source: validation accuracy 0..1 with recalibrated batch norms.

    Int8 layers are simulated. A network is scored once: results are appended to ``cache`` as they
    come, and only lines of the same weights and images are used.

    Args:
        supernet: whose weights.
        data: whose validation images.
        cache: the file of scores.
        workers: who scores ``file``'s networks in the place of this process, if anybody.
        file: the same supernet and images as workers find them.
    """

    name = "supernet"

    def __init__(
        self,
        supernet: Supernet,
        data: Examples,
        *,
        cache: Path,
        workers: Workers | None = None,
        file: SupernetFile | None = None,
    ) -> None:
        self._supernet, self._data = supernet, data
        self._workers, self._file = workers, file
        self._scores = ScoreStore(cache, _fingerprint(supernet, data))

    @property
    def space(self) -> SearchSpace:
        """What its genomes are of."""
        return self._supernet.space

    def score(self, genomes: Genomes) -> npt.NDArray[np.float64]:
        """Accuracies (N,) of genomes (N, genes)."""
        networks = [self._supernet.space.network(genome).fingerprint() for genome in genomes]
        known = self._scores.known
        new = {key: genome for key, genome in zip(networks, genomes, strict=True) if key not in known}
        if new:
            keys = list(new)
            with track("Scoring networks", total=len(new)) as task:
                for index, accuracy in self._measured(list(new.values())):
                    self._scores.add(keys[index], new[keys[index]], accuracy)
                    task.advance()
        return np.array([known[key] for key in networks], np.float64)

    def _measured(self, genomes: Sequence[Genomes]) -> Iterator[tuple[int, float]]:
        """Index and accuracy of each genome as it comes; 0 where a worker kept dying of it."""
        if self._workers is None or self._file is None:
            for index, genome in enumerate(genomes):
                yield index, subnet_accuracy(self._supernet, genome, self._data)
            return
        subnets = [Subnet(supernet=self._file, genome=tuple(map(int, genome))) for genome in genomes]
        for index, accuracy in self._workers.run(score_subnet, subnets):
            yield index, accuracy or 0.0


def _fingerprint(supernet: Supernet, data: Examples) -> str:
    """Hash of the weights and of what they are scored on."""
    digest = hashlib.sha256(f"{data.sha256} {data.seed}".encode())
    for name, tensor in sorted(supernet.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
