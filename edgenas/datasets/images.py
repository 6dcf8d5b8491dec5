"""Sets of labelled images: in memory, or read from files as they are asked for."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgenas.datasets.infer import decode_image, fit
from edgenas.errors import DataError

Indices = Sequence[int] | NDArray[np.int64]
Pixels = NDArray[np.uint8]
T = TypeVar("T")


class ImageSet(ABC):
    """Images of any sizes, RGB uint8 ``(H, W, 3)`` each, with or without labels.

    Attributes:
        labels: int64 ``(N,)`` indices into ``class_names``; None for plain images.
        class_names: empty for plain images.
    """

    def __init__(self, labels: NDArray[np.int64] | None, class_names: tuple[str, ...]) -> None:
        self.labels = labels
        self.class_names = class_names

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def images(self, indices: Indices) -> Pixels | list[Pixels]:
        """The images at ``indices``: one array ``(N, H, W, 3)`` where sizes agree, else a list.

        Raises:
            DataError: a file cannot be decoded; it is named.
        """

    @abstractmethod
    def subset(self, indices: Indices) -> ImageSet:
        """The images at ``indices`` in that order, without copying pixels."""

    @abstractmethod
    def update_hash(self, digest: Any) -> None:
        """Feeds everything that makes this set what it is into a ``hashlib`` object."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of most of the images."""

    @cached_property
    def sha256(self) -> str:
        """Hash of the pixels (or files), their order, the labels and the class names."""
        digest = hashlib.sha256(repr((len(self), self.class_names)).encode())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        self.update_hash(digest)
        return digest.hexdigest()

    def array(self, height: int, width: int, *, resize: str = "squash") -> Pixels:
        """All images at one size, uint8 ``(N, height, width, 3)``: what training keeps in memory."""
        resized = np.empty((len(self), height, width, 3), np.uint8)
        for start in range(0, len(self), 256):
            found = self.images(np.arange(start, min(start + 256, len(self))))
            for offset, block in enumerate([found] if isinstance(found, np.ndarray) else found):
                batch = block if isinstance(found, np.ndarray) else block[None]
                at = start + offset
                resized[at : at + len(batch)] = fit(batch, height, width, resize)
        return resized

    def labels_for(self, class_names: Sequence[str]) -> NDArray[np.int64]:
        """The labels as indices into a model's own ``class_names``, matched by name.

        Raises:
            DataError: there are no labels, or a class of these images is not one of the model's.
        """
        if self.labels is None:
            raise DataError(
                "these images have no labels",
                hint="name them in a file labels.csv with the columns file and class",
            )
        if not class_names or tuple(class_names) == self.class_names:
            return self.labels
        position = {name: i for i, name in enumerate(class_names)}
        strange = [name for name in self.class_names if name not in position]
        if strange:
            raise DataError(
                f"the images have the classes {shortened(strange)}, the model knows {shortened(class_names)}",
                hint="the classes of the data must be named like the model's labels",
            )
        return np.array([position[name] for name in self.class_names], np.int64)[self.labels]


class ArrayImages(ImageSet):
    """Images of one size in one array.

    Args:
        pixels: uint8 ``(N, H, W, 3)``, or ``(N, H, W)`` and ``(N, H, W, 1)`` for grey ones.
        rows: which of them belong to this set; all when omitted.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: NDArray[np.int64] | None = None,
        class_names: tuple[str, ...] = (),
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(labels, class_names)
        self._pixels = pixels if pixels.ndim == 4 else pixels[..., None]
        self._rows = np.arange(len(pixels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self._pixels.shape[1], self._pixels.shape[2], 3)

    def images(self, indices: Indices) -> Pixels:
        found = self._pixels[self._rows[np.asarray(indices, np.int64)]]
        return found if found.shape[3] == 3 else np.repeat(found, 3, axis=3)

    def subset(self, indices: Indices) -> ArrayImages:
        chosen = np.asarray(indices, np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return ArrayImages(self._pixels, labels, self.class_names, self._rows[chosen])

    def update_hash(self, digest: Any) -> None:
        digest.update(repr(self._pixels.shape[1:]).encode())
        for start in range(0, len(self), 1024):
            digest.update(np.ascontiguousarray(self._pixels[self._rows[start : start + 1024]]))


class FileImages(ImageSet):
    """Images in files, decoded when they are asked for.

    Args:
        files: one path per image.
        root: what the files' names are relative to in the hash, so that a moved folder keeps its own.
    """

    def __init__(
        self,
        files: Sequence[Path],
        root: Path,
        labels: NDArray[np.int64] | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__(labels, class_names)
        self.files = tuple(files)
        self._root = root

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        sizes = Counter(image_size(path) for path in self.files[:500])
        (height, width), _ = sizes.most_common(1)[0]
        return (height, width, 3)

    def images(self, indices: Indices) -> Pixels | list[Pixels]:
        found = [read_image(self.files[int(i)]) for i in indices]
        return np.stack(found) if len({image.shape for image in found}) == 1 else found

    def subset(self, indices: Indices) -> FileImages:
        chosen = np.asarray(indices, np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return FileImages([self.files[int(i)] for i in chosen], self._root, labels, self.class_names)

    def update_hash(self, digest: Any) -> None:
        for path in self.files:
            digest.update(path.relative_to(self._root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(_file(path, Path.read_bytes)).digest())


class Dataset:
    """Images to train on and, where the data has them, images to test on.

    Attributes:
        image_shape: height, width and channels (3: grey images are repeated) of most images.

    Args:
        given_sha256: of the data set that these parts were made of.
    """

    def __init__(
        self, name: str, train: ImageSet, test: ImageSet | None, *, given_sha256: str | None = None
    ) -> None:
        self.name = name
        self._given_sha256 = given_sha256
        self.train = train
        self.test = test
        self.class_names = train.class_names
        self.image_shape = train.image_shape

    @cached_property
    def sha256(self) -> str:
        """Hash of both parts' contents as they were given; the name and the place do not count."""
        if self._given_sha256 is not None:
            return self._given_sha256
        parts = [self.train.sha256, self.test.sha256 if self.test else ""]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def split(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Two parts that share no image; see ``split_rows``. Plain images count as one class.

    Raises:
        DataError: a class has fewer than two images.
    """
    labels = np.zeros(len(images), np.int64) if images.labels is None else images.labels
    kept, taken = split_rows(labels, fraction, seed, images.class_names)
    return images.subset(kept), images.subset(taken)


def split_rows(
    labels: NDArray[np.int64], fraction: float, seed: int, class_names: Sequence[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ascending rows of two parts that share none; the second holds ``fraction`` of every class.

    Each class gives its share rounded, at least one and never its last sample.

    Raises:
        DataError: a class has fewer than two samples.
    """
    generator = np.random.default_rng(seed)
    taken = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            name = f"class '{class_names[label]}'" if class_names else "the set"
            raise DataError(f"{name} has one sample; a split needs two or more of each class")
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        taken[generator.permutation(members)[:count]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def read_image(path: Path) -> Pixels:
    """The pixels of one file, RGB uint8 ``(H, W, 3)``.

    Raises:
        DataError: the file cannot be read or decoded; it is named.
    """
    return _file(path, lambda path: decode_image(path.read_bytes()))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of one file, from its header alone where the format has one.

    Raises:
        DataError: the file cannot be read or is no image; it is named.
    """
    from PIL import Image, UnidentifiedImageError

    def size(path: Path) -> tuple[int, int]:
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except UnidentifiedImageError:
            return decode_image(path.read_bytes()).shape[:2]
        except (SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(str(error)) from error

    return _file(path, size)


def _file(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        reason = str(error).partition(" <_io.")[0]  # Pillow names the object that it read from
        raise DataError(f"{path} is not an image that can be decoded: {reason}") from error


def shortened(names: Sequence[object], most: int = 5) -> str:
    """The first names of a list and how many more there are, for messages."""
    shown = ", ".join(str(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
