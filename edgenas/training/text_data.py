"""Training and validation texts as token numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from edgenas.datasets.infer_text import UNKNOWN
from edgenas.datasets.parts import split_training
from edgenas.datasets.texts import TextDataset, Texts
from edgenas.records import Record
from edgenas.training.data import CALIBRATION_IMAGES, EVALUATION_BATCH
from edgenas.training.examples import Batch, Examples
from edgenas.training.recipe import Recipe


class TextAugmentation(Record):
    """``dropped_share`` of the tokens of a training text become unknown ones, anew in every epoch.

    Source: Iyyer et al., Deep unordered composition rivals syntactic methods (2015), word dropout.
    """

    dropped_share: float = 0.1


class TextRecipe(Recipe):
    """AdamW in the place of stochastic gradient descent, which hardly moves rare tokens' vectors.

    Source: Loshchilov and Hutter, Decoupled weight decay (2019).
    """

    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    gradient_norm: float = 1.0
    label_smoothing: float = 0.05

    def optimizer(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer for all parameters of ``module``; vectors and scales do not decay."""
        named = list(module.named_parameters())
        groups = [
            {"params": [p for _, p in named if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate)


class TextData(Examples):
    """The training texts of a data set, parted as images are; the test texts are not touched.

    Args:
        seed: of the partition.
        tokens: the most that a network reads; longer texts are cut.
    """

    validation: Texts

    def __init__(
        self,
        dataset: TextDataset,
        *,
        seed: int,
        tokens: int,
        device: torch.device,
        augmentation: TextAugmentation | None = None,
    ) -> None:
        self.name, self.sha256, self.seed = dataset.name, dataset.sha256, seed
        self.class_names, self.device = dataset.class_names, device
        self.augmentation = augmentation or TextAugmentation()
        self._unknown = dataset.tokenizer.vocabulary.index(UNKNOWN)
        trained, self.validation = split_training(dataset.train, seed, dataset.class_names)
        self._numbers, self._chosen = (
            torch.from_numpy(dataset.tokenizer.encode(part.texts, tokens)).to(device)
            for part in (trained, self.validation)
        )
        self._labels = torch.from_numpy(trained.labels).to(device)

    def inputs(self, images: Tensor, height: int, width: int) -> Tensor:
        """The first ``width`` token numbers (N, width) of texts."""
        assert height == 1, "a text is one row of tokens"
        return images[:, :width]

    def validation_batches(self, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        labels = torch.from_numpy(self.validation.labels).to(self.device)
        for start in range(0, len(labels), EVALUATION_BATCH):
            stop = start + EVALUATION_BATCH
            yield self.inputs(self._chosen[start:stop], height, width), labels[start:stop]

    def calibration_batches(self, height: int, width: int) -> Iterator[Tensor]:
        for start in range(0, min(CALIBRATION_IMAGES, len(self)), EVALUATION_BATCH):
            yield self.inputs(self._numbers[start : start + EVALUATION_BATCH], height, width)

    def _batch(self, indices: Tensor, smoothing: float, generator: np.random.Generator) -> Batch:
        indices = indices.to(self.device)
        numbers = self._numbers[indices]
        drawn = torch.from_numpy(generator.random(numbers.shape)).to(self.device)
        dropped = (drawn < self.augmentation.dropped_share) & (numbers != 0)
        return Batch(torch.where(dropped, self._unknown, numbers), self._targets(indices, smoothing))
