"""What trainings need of the data that they learn from, whether images or texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
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

    @abstractmethod
    def __len__(self) -> int:
        """How many examples are trained on."""

    @property
    @abstractmethod
    def held_out(self) -> int:
        """How many examples there are to choose by."""

    @abstractmethod
    def batches(
        self, batch_size: int, label_smoothing: float, generator: np.random.Generator
    ) -> Iterator[Batch]:
        """One epoch of augmented batches in random order; a last, smaller one is left out."""

    @abstractmethod
    def inputs(self, images: Tensor, height: int, width: int) -> Tensor:
        """What a network gets for the examples of a batch."""

    @abstractmethod
    def validation_batches(self, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples to choose by as inputs, with their labels (N,), in order."""

    @abstractmethod
    def calibration_batches(self, height: int, width: int) -> Iterator[Tensor]:
        """A fixed subset of the training examples as inputs, not augmented."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def steps(self, batch_size: int) -> int:
        """Batches of one epoch."""
        return len(self) // min(batch_size, len(self))
