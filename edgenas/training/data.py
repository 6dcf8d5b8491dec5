"""Training and validation images as tensors: cut from the train split, at any resolution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from edgenas.datasets import Dataset, ImageSet, default_preprocessing
from edgenas.datasets.parts import split_training
from edgenas.errors import DataError
from edgenas.training.augmentation import Augmentation, augment, default_augmentation, mixup_pairs, resized
from edgenas.training.examples import Batch, Examples

CALIBRATION_IMAGES = 512
EVALUATION_BATCH = 256


class TrainingData(Examples):
    """The train split of a data set, parted into images to train on and images to choose by.

    ``split_training`` parts them; the test split is not touched. Images stay in memory as uint8.

    Args:
        seed: of the partition.
        size: height and width to keep images at where they have different sizes or larger ones.
        augmentation: what suits the classes when None.

    Raises:
        DataError: there are no labels, or a class is too small to be parted.
    """

    validation: ImageSet

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        size: tuple[int, int],
        device: torch.device,
        augmentation: Augmentation | None = None,
    ) -> None:
        if dataset.train.labels is None:
            raise DataError(f"the images of '{dataset.name}' have no labels to train with")
        self.name, self.sha256, self.seed = dataset.name, dataset.sha256, seed
        self.class_names = dataset.class_names
        self.train, self.validation = split_training(dataset.train, seed, dataset.class_names)
        self.augmentation = augmentation or default_augmentation(dataset.class_names)
        self.device = device
        preprocessing = default_preprocessing(dataset, size[0])
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, -1, 1, 1) * preprocessing.scale
        self._std = torch.tensor(preprocessing.std, device=device).view(1, -1, 1, 1) * preprocessing.scale
        height, width, _ = dataset.image_shape
        kept = (height, width) if max(height, width) <= max(size) else size
        self._images = self._tensor(self.train, *kept)
        self._labels = _labels(self.train, device)
        self._fixed: dict[tuple[str, int, int], Tensor] = {}

    def inputs(self, images: Tensor, height: int, width: int) -> Tensor:
        """What a network gets for uint8 images: resized, normalized float32, channels last."""
        values = (resized(images, height, width).float() - self._mean) / self._std
        return values.contiguous(memory_format=torch.channels_last)

    def validation_batches(self, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All validation images as inputs, with their labels (N,), in order."""
        images = self._at("validation", self.validation, height, width)
        labels = _labels(self.validation, self.device)
        for start in range(0, len(images), EVALUATION_BATCH):
            stop = start + EVALUATION_BATCH
            yield self.inputs(images[start:stop], height, width), labels[start:stop]

    def calibration_batches(self, height: int, width: int) -> Iterator[Tensor]:
        """A fixed subset of the training images as inputs, not augmented."""
        count = min(CALIBRATION_IMAGES, len(self.train))
        chosen = np.random.default_rng([self.seed, 1]).permutation(len(self.train))[:count]
        images = self._at("calibration", self.train.subset(chosen), height, width)
        for start in range(0, count, EVALUATION_BATCH):
            yield self.inputs(images[start : start + EVALUATION_BATCH], height, width)

    def _batch(self, indices: Tensor, smoothing: float, generator: np.random.Generator) -> Batch:
        indices = indices.to(self.device)
        blank = self._mean.round().flatten().to(torch.uint8)
        images = augment(self._images[indices], self.augmentation, blank, generator)
        targets = self._targets(indices, smoothing)
        pairs = mixup_pairs(len(indices), self.augmentation.mixup_alpha, generator)
        if pairs is not None:
            partners, weight = pairs[0].to(self.device), pairs[1]
            images = (
                (images.float() * weight + images[partners].float() * (1 - weight)).round().to(torch.uint8)
            )
            targets = targets * weight + targets[partners] * (1 - weight)
        return Batch(images, targets)

    def _at(self, name: str, images: ImageSet, height: int, width: int) -> Tensor:
        key = (name, height, width)
        if key not in self._fixed:
            self._fixed[key] = self._tensor(images, height, width)
        return self._fixed[key]

    def _tensor(self, images: ImageSet, height: int, width: int) -> Tensor:
        return torch.from_numpy(images.array(height, width)).permute(0, 3, 1, 2).to(self.device)


def _labels(images: ImageSet, device: torch.device) -> Tensor:
    assert images.labels is not None, "only labelled images are trained on"
    return torch.from_numpy(images.labels).to(device)
