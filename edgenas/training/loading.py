"""From ``--data`` and a space to the examples that the space's networks learn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgenas.datasets import Dataset, load_parted
from edgenas.datasets.texts import TextDataset
from edgenas.errors import UsageError
from edgenas.search_spaces import SearchSpace, default_space, get_space
from edgenas.search_spaces.text_encoder import VOCABULARY, TextEncoder
from edgenas.training.augmentation import Augmentation
from edgenas.training.data import TrainingData
from edgenas.training.examples import Examples
from edgenas.training.recipe import Recipe
from edgenas.training.text_data import TextData, TextRecipe


@dataclass(frozen=True)
class Source:
    """A data set and what suits it.

    Attributes:
        space: the space that is searched where none is asked for.
        recipe: how networks learn from it.
    """

    dataset: Dataset | TextDataset
    space: str
    recipe: Recipe

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.dataset.class_names)

    def examples(
        self,
        space: SearchSpace,
        *,
        seed: int,
        device: torch.device,
        augmentation: Augmentation | None = None,
    ) -> Examples:
        """The training part for the networks of ``space``.

        Raises:
            UsageError: the space reads images and these are texts, or the other way round; or there are
                more tokens than the networks know.
        """
        largest = space.network(space.largest())
        dataset = self.dataset
        if isinstance(dataset, TextDataset):
            _check_vocabulary(dataset, space.name, largest.vocabulary)
            return TextData(dataset, seed=seed, tokens=largest.input_shape[2], device=device)
        if largest.vocabulary:
            raise UsageError(
                f"the space '{space.name}' reads texts, '{dataset.name}' holds images",
                hint=f"--space {self.space}, or --data with a .tsv file",
            )
        return TrainingData(
            dataset, seed=seed, size=largest.input_shape[1:], device=device, augmentation=augmentation
        )


def load_source(data: str) -> Source:
    """What ``--data`` names, with a test part in any case.

    Raises:
        DataError: nothing usable is there.
    """
    return source_of(load_parted(data, vocabulary=VOCABULARY))


def source_of(dataset: Dataset | TextDataset) -> Source:
    """A data set with the space and the recipe that suit it."""
    if isinstance(dataset, TextDataset):
        return Source(dataset, TextEncoder.name, TextRecipe())
    return Source(dataset, default_space(min(dataset.image_shape[:2])), Recipe())


def load_space(name: str | None, source: Source) -> SearchSpace:
    """The space of that name, or the one that suits the data, with as many outputs as there are classes."""
    return get_space(name or source.space, classes=source.classes)


def _check_vocabulary(dataset: TextDataset, space: str, known: int) -> None:
    if not known:
        raise UsageError(
            f"the space '{space}' reads images, '{dataset.name}' holds texts",
            hint=f"--space {TextEncoder.name}",
        )
    if len(dataset.tokenizer) > known:
        raise UsageError(
            f"the vocabulary of '{dataset.name}' has {len(dataset.tokenizer)} tokens, the networks of "
            f"'{space}' know {known}",
            hint=f"shorten vocab.txt to its first {known} lines, or remove it: one is learnt then",
        )
