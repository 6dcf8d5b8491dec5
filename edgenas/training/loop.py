"""The training loop: the same for supernets and networks, resumable after a kill."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from edgenas.errors import EdgeNASError
from edgenas.progress import Task, track, warn
from edgenas.records import EpochRecord
from edgenas.training.budget import Budget, Spending
from edgenas.training.checkpoint import load_checkpoint, save_checkpoint
from edgenas.training.data import Batch, TrainingData
from edgenas.training.recipe import Recipe


class Learner(ABC):
    """What the loop trains.

    Attributes:
        module: its parameters are trained and its state is kept.
    """

    module: nn.Module

    @abstractmethod
    def backward(self, batch: Batch, generator: np.random.Generator) -> Tensor:
        """Adds the gradients of one batch to the parameters; returns the loss, a scalar."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Validation accuracies 0..1 by what was evaluated."""


class Loop:
    """Trains a learner until the budget is spent and keeps a checkpoint of every epoch.

    Random numbers of an epoch depend on the seed and the epoch only, so that with a budget in
    epochs a killed run ends with the same weights, bit for bit, as one that was never stopped (on
    the same device with the same threads).

    Args:
        identity: everything else that decides the outcome; a checkpoint of another one is not continued.
        facts: plain values to keep in the checkpoint.
    """

    def __init__(
        self,
        learner: Learner,
        data: TrainingData,
        *,
        recipe: Recipe,
        budget: Budget,
        seed: int,
        checkpoint: Path,
        identity: str,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self._learner, self._data, self._recipe, self._seed = learner, data, recipe, seed
        self._path, self._facts = checkpoint, facts or {}
        parts = (identity, recipe, budget, seed, data.sha256, data.seed, data.augmentation)
        self._identity = msgspec.json.encode(parts).decode()
        self._optimizer = recipe.optimizer(learner.module)
        self._budget = budget
        self._spending = Spending(budget, data.steps(recipe.batch_size))
        self._epochs: list[EpochRecord] = []

    def run(self, description: str) -> tuple[EpochRecord, ...]:
        """Trains to the end of the budget; what a checkpoint holds is not done again."""
        self._resume()
        with track(description, total=1.0) as task:
            task.advance(self._spending.fraction)
            while not self._spending.finished:
                self._epoch(task)
        self._learner.module.eval()
        return tuple(self._epochs)

    def _epoch(self, task: Task) -> None:
        generator = np.random.default_rng([self._seed, len(self._epochs)])
        batches = self._data.batches(self._recipe.batch_size, self._recipe.label_smoothing, generator)
        self._learner.module.train()
        self._spending.start()
        losses = self._steps(batches, generator, task)
        self._spending.pause()
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise EdgeNASError(
                f"training diverged in epoch {len(self._epochs) + 1}: the loss is {loss}",
                hint=f"try a smaller learning rate than {self._recipe.learning_rate}",
            )
        self._learner.module.eval()
        record = EpochRecord(
            epoch=len(self._epochs) + 1,
            loss=loss,
            accuracy=self._learner.evaluate(),
            elapsed_s=self._spending.cpu_seconds,
        )
        self._epochs.append(record)
        self._save()
        noted = ", ".join(f"{name} {value:.1%}" for name, value in record.accuracy.items())
        task.advance(0.0, note=f"epoch {record.epoch}: loss {loss:.3f}, {noted}")

    def _steps(self, batches: Iterable[Batch], generator: np.random.Generator, task: Task) -> list[Tensor]:
        losses = []
        for batch in batches:
            before = self._spending.fraction
            losses.append(self._step(batch, generator, self._recipe.learning_rate_at(before)))
            self._spending.step += 1
            task.advance(self._spending.fraction - before)
            if self._spending.finished:
                break
        return losses

    def _step(self, batch: Batch, generator: np.random.Generator, learning_rate: float) -> Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._learner.backward(batch, generator)
        nn.utils.clip_grad_norm_(self._learner.module.parameters(), self._recipe.gradient_norm)
        self._optimizer.step()
        return loss

    def _save(self) -> None:
        save_checkpoint(
            self._path,
            {
                **self._facts,
                "identity": self._identity,
                "module": self._learner.module.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "step": self._spending.step,
                "cpu_seconds": self._spending.cpu_seconds,
                "epochs": [record.to_dict() for record in self._epochs],
            },
        )

    def _resume(self) -> None:
        if not self._path.exists():
            return
        state = load_checkpoint(self._path)
        if state.get("identity") != self._identity:
            warn(f"{self._path} was trained with other settings or data: training starts anew")
            return
        self._learner.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        steps = self._data.steps(self._recipe.batch_size)
        self._spending = Spending(self._budget, steps, step=state["step"], cpu_seconds=state["cpu_seconds"])
        self._epochs = msgspec.convert(state["epochs"], list[EpochRecord])


def accuracy(network: Callable[[Tensor], Tensor], data: TrainingData, height: int, width: int) -> float:
    """Share of the validation images that ``network`` (inputs to logits) classifies correctly."""
    correct = 0
    with torch.inference_mode():
        for inputs, labels in data.validation_batches(height, width):
            correct += int((network(inputs).argmax(1) == labels).sum())
    return correct / len(data.validation)
