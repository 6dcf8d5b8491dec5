"""What trainings need of the data that they learn from, whether images or texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Augmented examples, uint8 images (N, C, H, W) or token numbers (N, tokens), and their target
    probabilities (N, classes)."""

    images: Tensor
    targets: Tensor


class Examples(ABC):
    """A labelled data set parted into examples to train on and examples to choose by.

    Attributes:
        seed: of the partition.
        augmentation: a record of what happens to examples in training.
        device: where batches are.
    """

    name: str
    sha256: str
    seed: int
    class_names: tuple[str, ...]
    augmentation: Any
    device: torch.device
    validation: Sized
    _labels: Tensor  # class numbers (N,) of the training examples

    @abstractmethod
    def _batch(self, indices: Tensor, smoothing: float, generator: np.random.Generator) -> Batch:
        """The augmented training examples of ``indices`` (N,)."""

    @abstractmethod
    def inputs(self, images: Tensor, height: int, width: int) -> Tensor:
        """What a network gets for the examples of a batch."""

    @abstractmethod
    def validation_batches(self, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples to choose by as inputs, with their labels (N,), in order."""

    @abstractmethod
    def calibration_batches(self, height: int, width: int) -> Iterator[Tensor]:
        """A fixed subset of the training examples as inputs, not augmented."""

    def __len__(self) -> int:
        """How many examples are trained on."""
        return len(self._labels)

    @property
    def held_out(self) -> int:
        """How many examples there are to choose by."""
        return len(self.validation)

    def batches(
        self, batch_size: int, label_smoothing: float, generator: np.random.Generator
    ) -> Iterator[Batch]:
        """One epoch of augmented batches in random order; a last, smaller one is left out."""
        order = generator.permutation(len(self))
        size = min(batch_size, len(self))
        for start in range(0, len(self) - size + 1, size):
            yield self._batch(torch.from_numpy(order[start : start + size]), label_smoothing, generator)

    def _targets(self, indices: Tensor, smoothing: float) -> Tensor:
        """Smoothed probabilities (N, classes) of training examples."""
        targets = F.one_hot(self._labels[indices], self.classes).float()
        return targets * (1.0 - smoothing) + smoothing / self.classes

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def steps(self, batch_size: int) -> int:
        """Batches of one epoch."""
        return len(self) // min(batch_size, len(self))
