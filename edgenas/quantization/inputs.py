"""What is fed to a model to calibrate or score it, in batches, so that memory stays bounded."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgenas.datasets import ImageSet, Preprocessing, preprocess
from edgenas.errors import DataError
from edgenas.quantization.array_file import ArrayFile, StoredArray

Batch = dict[str, npt.NDArray[Any]]
Rows: TypeAlias = npt.NDArray[Any] | StoredArray  # in memory, or on disk

ALIKE = {"f": "f", "i": "iu", "u": "iu", "b": "b"}  # kinds of numbers that may stand for one another
HASHED_ROWS = 64  # at once, so that hashing stays within bounded memory


class Inputs(ABC):
    """Samples for all inputs of one model, with labels where they are known."""

    labels: npt.NDArray[np.int64] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
        """The arrays of these samples by input name, the samples along axis 0."""

    def targets(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
        """What is known of these samples beside the inputs, for a metric: their labels, at least."""
        return {} if self.labels is None else {"labels": self.labels[np.asarray(indices, np.int64)]}

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
    """Ready arrays by input name, the samples along axis 0; they may lie on disk.

    Args:
        labels: class of each sample, where known.
        targets: what else is known of each sample, for a metric.
        chosen: which samples these are; all where None.
        dtypes: what the arrays are fed as; what they are where None.
        source: the file that the arrays are read from, kept alive.
    """

    def __init__(
        self, arrays: Mapping[str, Rows], labels: npt.NDArray[np.int64] | None = None, *,
        targets: Mapping[str, Rows] | None = None, chosen: npt.NDArray[np.int64] | None = None,
        dtypes: Mapping[str, np.dtype[Any]] | None = None, source: ArrayFile | None = None,
    ) -> None:  # fmt: skip
        known: dict[str, Rows] = {**({} if labels is None else {"labels": labels}), **(targets or {})}
        counts = {name: len(array) for name, array in {**arrays, **known}.items()}
        if len(set(counts.values())) != 1:
            raise DataError(f"the arrays have different numbers of samples: {counts}")
        self._arrays, self._known, self._all_labels = dict(arrays), known, labels
        self._dtypes = dtypes or {name: array.dtype for name, array in arrays.items()}
        self._source = source
        self._sha256: str | None = None
        self._chosen = np.arange(next(iter(counts.values()))) if chosen is None else chosen
        self.labels = None if labels is None else labels[self._chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
        rows = _rows(self._arrays, self._chosen[np.asarray(indices, np.int64)])
        return {name: array.astype(self._dtypes[name], copy=False) for name, array in rows.items()}

    def targets(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
        return _rows(self._known, self._chosen[np.asarray(indices, np.int64)])

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> ArrayInputs:
        chosen = self._chosen[np.asarray(indices, np.int64)]
        return ArrayInputs(
            self._arrays, self._all_labels, targets=self._known, chosen=chosen, dtypes=self._dtypes
        )

    @property
    def sha256(self) -> str:
        if self._sha256 is None:
            digest = hashlib.sha256()
            for name in sorted(self._arrays):
                array = self._arrays[name]
                digest.update(repr((name, array.dtype.str, (len(self), *array.shape[1:]))).encode())
                for start in range(0, len(self), HASHED_ROWS):
                    rows = self._chosen[start : start + HASHED_ROWS]
                    digest.update(np.ascontiguousarray(array[rows]).tobytes())
            self._sha256 = digest.hexdigest()
        return self._sha256

    @property
    def description(self) -> str:
        """Name, type and shape of each input, for people."""
        return ", ".join(f"{name} {array.dtype} {array.shape[1:]}" for name, array in self._arrays.items())


def _rows(arrays: Mapping[str, Rows], rows: npt.NDArray[np.int64]) -> Batch:
    return {name: np.ascontiguousarray(array[rows]) for name, array in arrays.items()}


def load_arrays(path: Path, wanted: Mapping[str, np.dtype[Any]]) -> ArrayInputs:
    """The arrays of an ``.npz`` file keyed by the model's input names, as what the model wants.

    ``labels`` may stand beside them, and any other array with a row for each sample: a metric gets it.

    Args:
        wanted: type of each input.

    Raises:
        DataError: the file is damaged, or an input is missing or of another kind.
    """
    file = ArrayFile(path)
    missing = [name for name in wanted if name not in file.names]
    if missing:
        raise DataError(
            f"{path} has {', '.join(sorted(file.names))}; the model also wants {', '.join(missing)}",
            hint="an .npz file for a model with several inputs is keyed by their names",
        )
    arrays: dict[str, Rows] = {name: file.array(name) for name in wanted}
    empty = [name for name, array in arrays.items() if array.ndim == 0 or len(array) == 0]
    if empty:
        raise DataError(f"{path} has no samples for the input {empty[0]}")
    for name, array in arrays.items():
        if array.dtype.kind not in ALIKE.get(wanted[name].kind, wanted[name].kind):
            raise DataError(f"the model's input '{name}' is {wanted[name]}, {path} has {array.dtype}")
    count = len(next(iter(arrays.values())))
    labels = file.array("labels")[np.arange(count)].astype(np.int64) if "labels" in file.names else None
    others: dict[str, Rows] = {
        name: file.array(name) for name in file.names if name not in {*wanted, "labels"}
    }
    targets = {name: array for name, array in others.items() if array.ndim and len(array) == count}
    return ArrayInputs(arrays, labels, targets=targets, dtypes=wanted, source=file)


def is_keyed_by_inputs(path: Path, names: Sequence[str]) -> bool:
    """Whether ``path`` is an ``.npz`` file with an array for one of the model's inputs."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        return bool(set(ArrayFile(path).names) & set(names))
    except DataError:
        return False
