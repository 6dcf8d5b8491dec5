"""Scores networks by training them from scratch; those that fall behind are stopped early."""

from __future__ import annotations

import functools
import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgenas.datasets.texts import TextDataset
from edgenas.errors import DivergedError
from edgenas.progress import track
from edgenas.records import Record
from edgenas.search_spaces import Network, SearchSpace
from edgenas.search_spaces.space import Genomes
from edgenas.training.augmentation import Augmentation, default_augmentation
from edgenas.training.budget import Budget
from edgenas.training.compute import prepare, torch_device
from edgenas.training.examples import Examples
from edgenas.training.folded import FoldedNetwork
from edgenas.training.loading import load_source, load_space
from edgenas.training.loop import accuracy
from edgenas.training.networks import train_network
from edgenas.training.recipe import Recipe
from edgenas.training.scores import ScoreStore
from edgenas.training.workers import Workers

REDUCTION = 3
"""One network in so many goes on to as many times the epochs."""


class Training(Record, kw_only=True):
    """One training as it travels to a worker.

    Attributes:
        network: what to train.
        until_epoch: where to pause; a longer one goes on from there.
        epochs: of the whole schedule.
        data: as ``--data`` takes it; workers elsewhere see it under the same name.
        data_sha256: of the images: a worker that holds others loads them again.
        space: name or file of the space that the network is of.
        folder: where its checkpoint stands, seen by all workers alike.
        seed: of the split, the first weights and the order of the images.
        augmentation: of the training images; what suits the classes when None.
    """

    network: Network
    until_epoch: int
    epochs: int
    data: str
    data_sha256: str
    space: str
    folder: str
    seed: int
    recipe: Recipe = Recipe()
    augmentation: Augmentation | None = None


def trained_accuracy(training: Training) -> float:
    """Validation accuracy 0..1 of a training up to where it pauses, int8 layers simulated.

    It runs on one thread, so that the outcome does not depend on the machine that it runs on. A
    training that diverges is worth 0.
    """
    device = torch_device("auto")
    prepare(device, 1)
    data = _examples(
        training.data, training.data_sha256, training.space, training.seed, training.augmentation
    )
    try:
        trained = train_network(
            training.network,
            data,
            folder=Path(training.folder),
            budget=Budget(epochs=training.epochs),
            seed=training.seed,
            recipe=training.recipe,
            until_epoch=training.until_epoch,
        )
    except DivergedError:
        return 0.0
    _, height, width = training.network.input_shape
    return accuracy(FoldedNetwork(training.network, trained.weights, device=device), data, height, width)


@functools.lru_cache(maxsize=2)
def _examples(data: str, sha256: str, space: str, seed: int, augmentation: Augmentation | None) -> Examples:
    del sha256  # part of the key alone
    source = load_source(data)
    return source.examples(
        load_space(space, source), seed=seed, device=torch_device("auto"), augmentation=augmentation
    )


class TrainingAccuracy:
    """An accuracy source: networks are trained, the worse ones of a generation not to the end.

    All train for a first share of the epochs, the best third for three times as long, and so on; a
    network's score is the accuracy where it was stopped. A score is given once: trainings and scores
    are kept in ``folder`` as they come, and a killed search goes on in the middle of a generation.
    The network of a worker that keeps dying scores 0.

    Args:
        data: as ``--data`` takes it.
        space: name or file of the space; what suits the data when None.
        epochs: of the networks that are trained to the end.
        workers: where the trainings run.
        recipe: how to train; what suits the data when None.

    Source: Jamieson and Talwalkar, Non-stochastic best arm identification (2016), successive halving.
    """

    name = "train"

    def __init__(
        self,
        data: str,
        *,
        space: str | None,
        epochs: int,
        folder: Path,
        seed: int,
        workers: Workers,
        recipe: Recipe | None = None,
    ) -> None:
        self._source = load_source(data)
        self._space = load_space(space, self._source)
        self._space_name = space or self._source.space
        self._data, self._folder, self._workers = data, folder, workers
        self._epochs, self._seed, self._recipe = epochs, seed, recipe or self._source.recipe
        sha256 = self._source.dataset.sha256
        self.identity = _identity(sha256, self._space.identity, epochs, seed, self._recipe)
        self._scores = ScoreStore(folder / "trainings.jsonl", self.identity)

    @property
    def space(self) -> SearchSpace:
        """What its genomes are of."""
        return self._space

    @property
    def epochs(self) -> int:
        """Epochs of a training that is not stopped."""
        return self._epochs

    @property
    def recipe(self) -> Recipe:
        """How networks are trained where nothing else is asked for."""
        return self._recipe

    @property
    def augmentation(self) -> Augmentation | None:
        """What happens to the training images where nothing else is asked for; None: these are texts."""
        if isinstance(self._source.dataset, TextDataset):
            return None
        return default_augmentation(self._source.dataset.class_names)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which networks are compared, ascending; the last are all."""
        shares = (REDUCTION**2, REDUCTION, 1)
        return tuple(dict.fromkeys(max(1, math.ceil(self._epochs / share)) for share in shares))

    def score(self, genomes: Genomes) -> npt.NDArray[np.float64]:
        """Accuracies (N,) of genomes (N, genes)."""
        networks = [self._space.network(genome) for genome in genomes]
        keys = [network.fingerprint() for network in networks]
        new = {
            key: (network, genome)
            for key, network, genome in zip(keys, networks, genomes, strict=True)
            if key not in self._scores.known
        }
        if new:
            self._halve(new)
        return np.array([self._scores.known[key] for key in keys], np.float64)

    def _halve(self, new: dict[str, tuple[Network, Genomes]]) -> None:
        """Trains all of a generation, fewer and fewer of them longer and longer, and keeps the scores."""
        left = list(new)
        reached: dict[str, float] = {}
        for epochs in self.rungs:
            found = self._train({key: new[key] for key in left}, epochs)
            reached |= found
            left = sorted(left, key=lambda key: (-found[key], key))[: math.ceil(len(left) / REDUCTION)]
        for key, (_, genome) in new.items():
            self._scores.add(key, genome, reached[key])
            shutil.rmtree(self._folder / key, ignore_errors=True)

    def _train(self, networks: dict[str, tuple[Network, Genomes]], epochs: int) -> dict[str, float]:
        """Accuracies after ``epochs`` by key; those that an earlier process reached are not trained."""
        known = self._scores.known
        missing = [key for key in networks if f"{key}@{epochs}" not in known]
        if missing:
            whole = [self.training(networks[key][0], self._folder / key) for key in missing]
            trainings = [msgspec.structs.replace(one, until_epoch=epochs) for one in whole]
            with track(f"Training networks to epoch {epochs}", total=len(missing)) as task:
                for index, result in self._workers.run(trained_accuracy, trainings):
                    key = missing[index]
                    self._scores.add(f"{key}@{epochs}", networks[key][1], result or 0.0)
                    task.advance()
        return {key: known[f"{key}@{epochs}"] for key in networks}

    def training(self, network: Network, folder: Path) -> Training:
        """The whole training of a network, with its checkpoint in ``folder``."""
        return Training(
            network=network,
            until_epoch=self._epochs,
            epochs=self._epochs,
            data=self._data,
            data_sha256=self._source.dataset.sha256,
            space=self._space_name,
            folder=str(folder.resolve()),
            seed=self._seed,
            recipe=self._recipe,
        )


def _identity(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]
