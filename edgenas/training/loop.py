"""The training loop: the same for supernets and networks, resumable after a kill."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from edgenas.errors import DivergedError
from edgenas.progress import Task, track, warn
from edgenas.records import EpochRecord
from edgenas.training.budget import Budget, Clock, StepBudget, load_step_budget, save_step_budget
from edgenas.training.checkpoint import VERSION, load_checkpoint, save_checkpoint
from edgenas.training.examples import Batch, Examples
from edgenas.training.recipe import Recipe

# Trial steps that a budget in CPU seconds is priced with. The first ones are slow: buffers are
# allocated and kernels chosen. Networks that a step samples cost more or less, hence several.
WARM_UP_STEPS, FEWEST_TRIALS, MOST_TRIALS = 3, 4, 16
TRIAL_SHARE = 0.04  # of the budget, unless the fewest take more


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

    def look_back(self, epochs: Sequence[EpochRecord]) -> None:  # noqa: B027 (few learners need it)
        """Told of all finished epochs before the next one, after a kill too; most have no use for them."""


class Loop:
    """Trains a learner until the budget is spent and keeps a checkpoint of every epoch.

    Random numbers of an epoch depend on the seed and the epoch only, and a budget in CPU seconds is
    converted to steps once, so that a killed run ends with the same weights, bit for bit, as one that
    was never stopped (on the same device with the same threads).

    Args:
        identity: everything else that decides the outcome; a checkpoint of another one is not continued.
        facts: plain values to keep in the checkpoint.
        spent_epochs: epochs of the budget that are spent elsewhere, where it has at least four as many.
    """

    def __init__(
        self,
        learner: Learner,
        data: Examples,
        *,
        recipe: Recipe,
        budget: Budget,
        seed: int,
        checkpoint: Path,
        identity: str,
        facts: dict[str, Any] | None = None,
        spent_epochs: int = 0,
    ) -> None:
        self._learner, self._data, self._recipe, self._seed = learner, data, recipe, seed
        self._path, self._facts = checkpoint, facts or {}
        self._spent_steps = spent_epochs * data.steps(recipe.batch_size)
        parts = (
            VERSION, identity, recipe, budget, seed, data.sha256, data.seed, data.augmentation, spent_epochs,
        )  # fmt: skip
        self._identity = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
        self._optimizer = recipe.optimizer(learner.module)
        self._budget = budget
        self._step, self._steps = 0, 0
        self._clock = Clock()
        self._epochs: list[EpochRecord] = []

    def run(self, description: str, *, until_epoch: int | None = None) -> tuple[EpochRecord, ...]:
        """Trains to the end of the budget; what a checkpoint holds is not done again.

        With ``until_epoch`` it pauses after so many epochs; the next run goes on from there.
        """
        if not self._resumed():
            affordable = self._affordable_steps()
            if affordable < 4 * self._spent_steps:
                self._spent_steps = 0
            self._steps = affordable - self._spent_steps
        with track(description, total=1.0) as task:
            task.advance(self._fraction)
            while self._step < self._steps and len(self._epochs) < (until_epoch or math.inf):
                self._epoch(task)
        self._learner.module.eval()
        return tuple(self._epochs)

    @property
    def _fraction(self) -> float:
        """Share of the budget that is spent, 0..1."""
        return self._step / self._steps

    def _affordable_steps(self) -> int:
        """Steps of the whole training."""
        if self._budget.epochs is not None:
            return self._budget.epochs * self._data.steps(self._recipe.batch_size)
        path = self._path.with_suffix(".steps.json")
        found = load_step_budget(path, self._identity)
        if found is None:
            found = self._priced()
            save_step_budget(path, found)
        self._clock = Clock(found.cpu_seconds)
        return found.steps

    def _priced(self) -> StepBudget:
        """The steps that fit into the budget's CPU seconds, by trial steps that leave no trace."""
        assert self._budget.cpu_seconds is not None, "epochs need no price"
        before = copy.deepcopy(self._learner.module.state_dict())
        generator = np.random.default_rng([self._seed, 0, 1])
        batches = self._endless_batches(generator)
        self._learner.module.train()
        clock, trials_s = Clock(), list[float]()
        with clock.running():
            while len(trials_s) < WARM_UP_STEPS + FEWEST_TRIALS or (
                len(trials_s) < WARM_UP_STEPS + MOST_TRIALS
                and clock.cpu_seconds < TRIAL_SHARE * self._budget.cpu_seconds
            ):
                started = clock.cpu_seconds
                self._learn(next(batches), generator, self._recipe.learning_rate_at(0.0))
                trials_s.append(clock.cpu_seconds - started)
        self._learner.module.load_state_dict(before)
        self._optimizer = self._recipe.optimizer(self._learner.module)
        step_s = max(float(np.mean(trials_s[WARM_UP_STEPS:])), 1e-6)
        return StepBudget(
            identity=self._identity,
            steps=max(1, round((self._budget.cpu_seconds - clock.cpu_seconds) / step_s)),
            step_cpu_seconds=step_s,
            cpu_seconds=clock.cpu_seconds,
        )

    def _endless_batches(self, generator: np.random.Generator) -> Iterator[Batch]:
        recipe = self._recipe
        return itertools.chain.from_iterable(
            self._data.batches(recipe.batch_size, recipe.label_smoothing, generator)
            for _ in itertools.count()
        )

    def _epoch(self, task: Task) -> None:
        generator = np.random.default_rng([self._seed, len(self._epochs)])
        batches = self._data.batches(self._recipe.batch_size, self._recipe.label_smoothing, generator)
        self._learner.look_back(self._epochs)
        self._learner.module.train()
        with self._clock.running():
            losses = self._learn_all(batches, generator, task)
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise DivergedError(
                f"training diverged in epoch {len(self._epochs) + 1}: the loss is {loss}",
                hint=f"try a smaller learning rate than {self._recipe.learning_rate}",
            )
        self._learner.module.eval()
        record = EpochRecord(
            epoch=len(self._epochs) + 1,
            loss=loss,
            accuracy=self._learner.evaluate(),
            elapsed_s=self._clock.cpu_seconds,
        )
        self._epochs.append(record)
        self._save()
        noted = ", ".join(f"{name} {value:.1%}" for name, value in record.accuracy.items())
        task.advance(0.0, note=f"epoch {record.epoch}: loss {loss:.3f}, {noted}")

    def _learn_all(
        self, batches: Iterable[Batch], generator: np.random.Generator, task: Task
    ) -> list[Tensor]:
        """The losses of an epoch's steps, or of those that are left."""
        losses = []
        for batch in itertools.islice(batches, self._steps - self._step):
            losses.append(self._learn(batch, generator, self._recipe.learning_rate_at(self._fraction)))
            self._step += 1
            task.advance(1 / self._steps)
        return losses

    def _learn(self, batch: Batch, generator: np.random.Generator, learning_rate: float) -> Tensor:
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
                "step": self._step,
                "steps": self._steps,
                "spent_steps": self._spent_steps,
                "cpu_seconds": self._clock.cpu_seconds,
                "epochs": [record.to_dict() for record in self._epochs],
            },
        )

    def _resumed(self) -> bool:
        """Whether a checkpoint of this very training was there to go on from."""
        if not self._path.exists():
            return False
        state = load_checkpoint(self._path)
        if state.get("identity") != self._identity:
            warn(f"{self._path} was trained with other settings or data: training starts anew")
            return False
        self._learner.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._step, self._steps, self._clock = state["step"], state["steps"], Clock(state["cpu_seconds"])
        self._epochs = msgspec.convert(state["epochs"], list[EpochRecord])
        return True


def accuracy(network: Callable[[Tensor], Tensor], data: Examples, height: int, width: int) -> float:
    """Share of the validation examples that ``network`` (inputs to logits) classifies correctly."""
    correct = 0
    with torch.inference_mode():
        for inputs, labels in data.validation_batches(height, width):
            correct += int((network(inputs).argmax(1) == labels).sum())
    return correct / data.held_out
