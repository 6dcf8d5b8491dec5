"""Trains one network: a winner from the supernet's weights, or any network from scratch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.records import EpochRecord, TrainResult
from edgenas.search_spaces import Network
from edgenas.search_spaces.torch_builder import build_torch, folded_weights
from edgenas.training.budget import Budget
from edgenas.training.compute import mixed_precision
from edgenas.training.examples import Batch, Examples
from edgenas.training.loop import Learner, Loop, accuracy
from edgenas.training.recipe import Recipe
from edgenas.training.supernets import result_of

CHECKPOINT = "network.pt"


@dataclass(frozen=True)
class Teacher:
    """A calibrated network (inputs to logits), its resolution and its validation accuracy 0..1.

    ``fingerprint`` is of its architecture: another teacher is another training.
    """

    network: Callable[[Tensor], Tensor]
    height: int
    width: int
    accuracy: float
    fingerprint: str


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained module in evaluation mode and its weights by the keys of ``build_onnx``."""

    network: Network
    module: nn.Module
    weights: Mapping[str, npt.NDArray[np.float32]]
    result: TrainResult


class NetworkLearner(Learner):
    """Learns from the labels and, until it is overtaken, from a teacher's soft output.

    A student that has become as accurate as its teacher would be held back by it: the largest
    network of a supernet that was trained for a short time is soon worse than a small one of its own.

    Source: Hinton et al., Distilling the knowledge in a neural network (2015), at temperature 1.
    """

    def __init__(
        self, module: nn.Module, network: Network, data: Examples, recipe: Recipe, teacher: Teacher | None
    ) -> None:
        self.module, self._data, self._recipe, self._teacher = module, data, recipe, teacher
        self._overtaken = False
        _, self._height, self._width = network.input_shape

    def backward(self, batch: Batch, generator: np.random.Generator) -> Tensor:
        del generator
        inputs = self._data.inputs(batch.images, self._height, self._width)
        with mixed_precision(self._data.device):
            logits = self.module(inputs)
        loss = F.cross_entropy(logits.float(), self._targets(batch))
        loss.backward()
        return loss.detach()

    def evaluate(self) -> dict[str, float]:
        return {"network": accuracy(self.module, self._data, self._height, self._width)}

    def look_back(self, epochs: Sequence[EpochRecord]) -> None:
        best = max((record.accuracy["network"] for record in epochs), default=0.0)
        self._overtaken = self._teacher is not None and best >= self._teacher.accuracy

    def _targets(self, batch: Batch) -> Tensor:
        teacher, share = self._teacher, self._recipe.distillation
        if teacher is None or self._overtaken or not share:
            return batch.targets
        with torch.inference_mode():
            inputs = self._data.inputs(batch.images, teacher.height, teacher.width)
            soft = teacher.network(inputs).softmax(1)
        return batch.targets * (1.0 - share) + soft.clone() * share


def train_network(
    network: Network,
    data: Examples,
    *,
    folder: Path,
    budget: Budget,
    seed: int = 0,
    recipe: Recipe | None = None,
    state: Mapping[str, Tensor] | None = None,
    teacher: Teacher | None = None,
    until_epoch: int | None = None,
    spent_epochs: int = 0,
) -> TrainedNetwork:
    """The trained network; its checkpoint is ``folder/network.pt``.

    A finished training is loaded, a killed one goes on at its last epoch.

    Args:
        state: weights to start from (``Supernet.subnet_state``); drawn from ``seed`` when None.
        teacher: whose soft output to learn from beside the labels.
        until_epoch: pauses after so many epochs of the budget; the next call goes on from there.
        spent_epochs: epochs of the budget that are spent elsewhere, where it has at least four as many.

    Raises:
        ArtifactError: the checkpoint in ``folder`` cannot be read.
        EdgeNASError: training diverged.
    """
    recipe = recipe or Recipe()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_torch(network)
    if state is not None:
        module.load_state_dict(dict(state))
    module.to(data.device)
    loop = Loop(
        NetworkLearner(module, network, data, recipe, teacher),
        data,
        recipe=recipe,
        budget=budget,
        seed=seed,
        checkpoint=folder / CHECKPOINT,
        identity=f"{network.fingerprint()} {_digest(state)} {_identity(teacher)}",
        facts={"network": network.to_json()},
        spent_epochs=spent_epochs,
    )
    epochs = loop.run(f"Training {network.name}", until_epoch=until_epoch)
    return TrainedNetwork(
        network=network,
        module=module,
        weights=folded_weights(module, network),
        result=result_of(epochs, network.name, data, folder / CHECKPOINT, "network"),
    )


def _identity(teacher: Teacher | None) -> str:
    return "untaught" if teacher is None else f"{teacher.fingerprint} {teacher.accuracy!r}"


def _digest(state: Mapping[str, Tensor] | None) -> str:
    """Hash of the weights that a training starts from."""
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(state or {}):
        assert state is not None, "an empty mapping has no names"
        digest.update(name.encode() + state[name].cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
