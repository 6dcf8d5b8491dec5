"""What is fed to a model to calibrate or score it, in batches, so that memory stays bounded."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.datasets import ImageSet, Preprocessing, preprocess
from edgenas.errors import DataError

Batch = dict[str, npt.NDArray[Any]]

UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)  # what a damaged .npz raises


class Inputs(ABC):
    """Samples for all inputs of one model, with labels where they are known."""

    labels: npt.NDArray[np.int64] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
        """The arrays of these samples by input name, the samples along axis 0."""

    @abstractmethod
    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Inputs:
        """These samples alone."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hash of the content."""

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, ``size`` at a time (the last may be fewer)."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))


class ImageInputs(Inputs):
    """Images for a model with one input.

    Args:
        name: of the input.
        labels: indices into the model's classes; None for plain images.
    """

    def __init__(
        self, name: str, images: ImageSet, preprocessing: Preprocessing,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.images, self.preprocessing, self.labels = name, images, preprocessing, labels

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
        return {self.name: preprocess(self.images.images(np.asarray(indices)), self.preprocessing)}

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> ImageInputs:
        chosen = np.asarray(indices, np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return ImageInputs(self.name, self.images.subset(chosen), self.preprocessing, labels)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(self.images.sha256.encode())
        digest.update(self.preprocessing.to_json().encode())
        return digest.hexdigest()


class ArrayInputs(Inputs):
    """Ready arrays by input name, the samples along axis 0."""

    def __init__(
        self, arrays: Mapping[str, npt.NDArray[Any]], labels: npt.NDArray[np.int64] | None = None
    ) -> None:
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) != 1:
            raise DataError(f"the inputs have different numbers of samples: {counts}")
        self.arrays, self.labels = dict(arrays), labels

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
        chosen = np.asarray(indices, np.int64)
        return {name: np.ascontiguousarray(array[chosen]) for name, array in self.arrays.items()}

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> ArrayInputs:
        chosen = np.asarray(indices, np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return ArrayInputs({name: array[chosen] for name, array in self.arrays.items()}, labels)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            digest.update(repr((name, self.arrays[name].dtype.str, self.arrays[name].shape)).encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()


def load_arrays(path: Path, wanted: Sequence[str]) -> ArrayInputs:
    """The arrays of an ``.npz`` file keyed by the model's input names; ``labels`` may stand beside them.

    Raises:
        DataError: the file is damaged, or an input is missing.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
    except UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error}") from error
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise DataError(
            f"{path} has {', '.join(sorted(arrays))}; the model also wants {', '.join(missing)}",
            hint="an .npz file for a model with several inputs is keyed by their names",
        )
    empty = [name for name in wanted if arrays[name].ndim == 0 or len(arrays[name]) == 0]
    if empty:
        raise DataError(f"{path} has no samples for the input {empty[0]}")
    labels = arrays["labels"].astype(np.int64) if "labels" in arrays else None
    return ArrayInputs({name: arrays[name] for name in wanted}, labels)


def is_keyed_by_inputs(path: Path, names: Sequence[str]) -> bool:
    """Whether ``path`` is an ``.npz`` file with an array for one of the model's inputs."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            return bool(set(opened.files) & set(names))
    except UNREADABLE:
        return False
