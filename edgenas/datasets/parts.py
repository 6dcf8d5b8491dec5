"""The parts of a data set, and which of them a model has seen.

Whoever trains, quantizes or validates parts the same data in the same way, so that nothing is chosen
or judged by what a network learnt from. A model that EdgeNAS trained says in its metadata which data it
learnt from and how they were parted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, overload

import msgspec
import numpy as np

from edgenas.datasets.images import Dataset, ImageSet, split_rows
from edgenas.datasets.texts import TextDataset, Texts
from edgenas.errors import ModelError
from edgenas.records import Record

TRAINED_ON_KEY = "edgenas.trained_on"
HELD_OUT_SAMPLES = 1000
MOST_VALIDATION_SAMPLES = 2500  # a search scores hundreds of networks on them
TEST_SEED = 0  # the same samples whatever the seed of a training

AnyDataset = TypeVar("AnyDataset", Dataset, TextDataset)
Samples = TypeVar("Samples")
Labelled = TypeVar("Labelled", ImageSet, Texts)
Converted = TypeVar("Converted")


class TrainedOn(Record):
    """What a network learnt from.

    Attributes:
        data_sha256: the data set as it was given.
        seed: of its partition, see ``split_training``.
    """

    data_sha256: str
    seed: int

    def metadata(self) -> dict[str, str]:
        """What ``metadata_props`` of an ONNX model says of it."""
        return {TRAINED_ON_KEY: self.to_json()}


def trained_on(metadata: Mapping[str, str]) -> TrainedOn | None:
    """What EdgeNAS wrote into a model's metadata; None where it trained nothing.

    Raises:
        ModelError: it is not what it should be.
    """
    text = metadata.get(TRAINED_ON_KEY)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=TrainedOn)
    except msgspec.DecodeError as error:
        raise ModelError(f"the model's metadata '{TRAINED_ON_KEY}' is not valid: {error}") from error


def with_test_part(dataset: AnyDataset) -> AnyDataset:
    """The data set itself where it has a test part; else one is taken from its training samples.

    It is a tenth of every class, up to a fifth where that is needed for 1,000 samples, and the same for
    every seed: nothing that is chosen in between may depend on it. The hash stays that of what was given.

    Raises:
        DataError: a class is too small to be parted.
    """
    if dataset.test is not None or dataset.train.labels is None:
        return dataset
    kept, taken = split_rows(dataset.train.labels, _share(len(dataset.train)), TEST_SEED, dataset.class_names)
    train, test = dataset.train.subset(kept), dataset.train.subset(taken)
    if isinstance(dataset, TextDataset):
        assert isinstance(train, Texts) and isinstance(test, Texts), "texts are parted into texts"
        return replace(dataset, train=train, test=test, given_sha256=dataset.sha256)
    assert isinstance(train, ImageSet) and isinstance(test, ImageSet), "images are parted into images"
    return Dataset(dataset.name, train, test, given_sha256=dataset.sha256)


def split_training(
    samples: Labelled, seed: int, class_names: tuple[str, ...] = ()
) -> tuple[Labelled, Labelled]:
    """The samples to train on, and those to choose by.

    The latter are a tenth of every class, up to a fifth where that is needed for 1,000 samples, and about
    2,500 at most: the standard error of an accuracy is then below one point, which is less than what the
    weights of a supernet misjudge a network by.

    Raises:
        DataError: a class is too small to be parted.
    """
    assert samples.labels is not None, "only labelled samples are trained on"
    share = min(_share(len(samples)), MOST_VALIDATION_SAMPLES / len(samples))
    kept, taken = split_rows(samples.labels, share, seed, class_names)
    return samples.subset(kept), samples.subset(taken)


@dataclass(frozen=True)
class DataParts(Generic[Samples]):
    """The samples of a data set by what a model may do with them.

    Attributes:
        train: what is trained on, and calibrated with.
        unseen: what a training held out to choose by; None where the model learnt from other data.
        test: what is judged by; all samples where the data have no test part.
    """

    train: Samples
    unseen: Samples | None
    test: Samples

    def convert(self, work: Callable[[Samples], Converted]) -> DataParts[Converted]:
        """The parts after ``work``, which is done once on parts that are one."""
        train = work(self.train)
        return DataParts(
            train,
            None if self.unseen is None else work(self.unseen),
            train if self.test is self.train else work(self.test),
        )


@overload
def parts_of(dataset: Dataset, seen: TrainedOn | None) -> DataParts[ImageSet]: ...
@overload
def parts_of(dataset: TextDataset, seen: TrainedOn | None) -> DataParts[Texts]: ...
def parts_of(dataset: Any, seen: TrainedOn | None) -> DataParts[Any]:
    """The parts of a data set as the training of a model parted them.

    Args:
        seen: what the model learnt from, if it says so.
    """
    if seen is None or seen.data_sha256 != dataset.sha256:
        return DataParts(dataset.train, None, dataset.test or dataset.train)
    parted = with_test_part(dataset)
    trained, unseen = split_training(parted.train, seen.seed, dataset.class_names)
    assert parted.test is not None, "it has one now"
    return DataParts(trained, unseen, parted.test)


def _share(samples: int) -> float:
    """The share of so many samples that is held out."""
    return float(np.clip(HELD_OUT_SAMPLES / samples, 0.1, 0.2))
