"""Scores the networks of a space with the weights that a supernet has for them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgenas.errors import ArtifactError
from edgenas.progress import track
from edgenas.search_spaces.space import Genomes, SearchSpace
from edgenas.training.data import TrainingData
from edgenas.training.supernet import Supernet
from edgenas.training.supernets import subnet_accuracy

VERSION = 1


class SupernetAccuracy:
    """An accuracy source: validation accuracy 0..1 with recalibrated batch norms.

    Int8 layers are simulated. A network is scored once: results are appended to ``cache`` as they
    come, and only lines of the same weights and images are used.
    """

    name = "supernet"

    def __init__(self, supernet: Supernet, data: TrainingData, *, cache: Path) -> None:
        self._supernet, self._data, self._cache = supernet, data, cache
        self._source = _fingerprint(supernet, data)
        self._known = _read(cache, self._source)

    @property
    def space(self) -> SearchSpace:
        """What its genomes are of."""
        return self._supernet.space

    def score(self, genomes: Genomes) -> npt.NDArray[np.float64]:
        """Accuracies (N,) of genomes (N, genes)."""
        networks = [self._supernet.space.network(genome).fingerprint() for genome in genomes]
        new = {key: genome for key, genome in zip(networks, genomes, strict=True) if key not in self._known}
        if new:
            with track("Scoring networks", total=len(new)) as task:
                for key, genome in new.items():
                    self._store(key, genome, subnet_accuracy(self._supernet, genome, self._data))
                    task.advance()
        return np.array([self._known[key] for key in networks], np.float64)

    def _store(self, key: str, genome: Genomes, accuracy: float) -> None:
        line = {
            "version": VERSION,
            "source": self._source,
            "network": key,
            "genome": [int(gene) for gene in genome],
            "accuracy": accuracy,
        }
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        with self._cache.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._known[key] = accuracy


def _read(cache: Path, source: str) -> dict[str, float]:
    """What the cache knows about ``source``; the end of a line that a kill cut off is dropped."""
    if not cache.exists():
        return {}
    text = cache.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        cache.write_text(whole, encoding="utf-8")
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        newest = max((line["version"] for line in lines), default=VERSION)
        known = {line["network"]: float(line["accuracy"]) for line in lines if line["source"] == source}
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{cache} is damaged: {error}", hint="delete it; scores are measured again"
        ) from error
    if newest > VERSION:
        raise ArtifactError(f"{cache} has version {newest}, this EdgeNAS reads up to {VERSION}")
    return known


def _fingerprint(supernet: Supernet, data: TrainingData) -> str:
    """Hash of the weights and of what they are scored on."""
    digest = hashlib.sha256(f"{data.sha256} {data.seed}".encode())
    for name, tensor in sorted(supernet.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
