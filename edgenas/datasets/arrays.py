"""Data sets that come as arrays: ``.npz`` files and IDX folders (MNIST's format)."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenas.datasets.images import ArrayImages, Dataset, Pixels
from edgenas.errors import DataError

IDX_TYPES: dict[int, np.dtype[Any]] = {
    8: np.dtype("u1"),
    9: np.dtype("i1"),
    11: np.dtype(">i2"),
    12: np.dtype(">i4"),
}
NPZ_HINT = "keys x_train, y_train and, for a test, x_test, y_test; images uint8 (N, H, W, C), labels (N,)"


def load_npz(path: Path) -> Dataset:
    """``x_train, y_train[, x_test, y_test][, class_names]`` with images uint8 NHWC or NHW.

    Raises:
        DataError: the file is damaged, or keys, types or shapes are not these.
    """
    arrays = _read_npz(path)
    if "x_train" not in arrays:
        raise DataError(f"{path} has the keys {', '.join(arrays) or '(none)'}, not x_train", hint=NPZ_HINT)
    if "y_train" not in arrays:
        raise DataError(f"{path} has images but no labels: y_train is missing", hint=NPZ_HINT)
    names = tuple(str(name) for name in arrays.get("class_names", ()))
    train = _checked(path, "train", arrays["x_train"], arrays["y_train"])
    test = None
    if "x_test" in arrays and "y_test" in arrays:
        test = _checked(path, "test", arrays["x_test"], arrays["y_test"])
    return dataset_of_arrays(path.stem, train, test, names, source=path)


def load_idx(folder: Path) -> Dataset:
    """``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte`` (and ``t10k-``/``test-``), also ``.gz``.

    Raises:
        DataError: a file is missing or damaged.
    """
    train = _read_idx_part(folder, ("train",))
    if train is None:
        raise DataError(f"{folder} has no IDX file train-images-idx3-ubyte (or .gz)")
    return dataset_of_arrays(folder.name, train, _read_idx_part(folder, ("t10k", "test")), (), source=folder)


def is_idx_folder(folder: Path) -> bool:
    """True where a file of the folder is named like IDX images."""
    return _idx_file(folder, "train", "images") is not None


def dataset_of_arrays(
    name: str,
    train: tuple[Pixels, NDArray[np.int64]],
    test: tuple[Pixels, NDArray[np.int64]] | None,
    class_names: tuple[str, ...],
    *,
    source: Path | str,
) -> Dataset:
    """A data set of checked arrays; classes without names are called by their numbers.

    Raises:
        DataError: a class has no training image, or a label has no name.
    """
    classes = len(class_names) or int(max(part[1].max() for part in (train, test) if part is not None)) + 1
    class_names = class_names or tuple(str(i) for i in range(classes))
    for images, labels in filter(None, (train, test)):
        if labels.min() < 0 or labels.max() >= classes or len(images) != len(labels):
            raise DataError(
                f"{source}: {len(images)} images have {len(labels)} labels from {labels.min()} to "
                f"{labels.max()}; there are {classes} classes"
            )
    empty = sorted(set(range(classes)) - set(np.unique(train[1]).tolist()))
    if empty:
        raise DataError(
            f"{source}: no training image of class {', '.join(class_names[i] for i in empty[:5])}"
        )
    return Dataset(
        name,
        ArrayImages(*train, class_names),
        ArrayImages(*test, class_names) if test is not None else None,
    )


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            if isinstance(opened, np.ndarray):
                raise DataError(f"{path} is one array, not an .npz file", hint=NPZ_HINT)
            return {name: opened[name] for name in opened.files}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", hint=NPZ_HINT) from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # numpy's own words for some of these advise to load pickles, which nobody should.
        raise DataError(f"{path} is damaged, or holds Python objects", hint=NPZ_HINT) from error


def _checked(
    path: Path, part: str, images: NDArray[Any], labels: NDArray[Any]
) -> tuple[Pixels, NDArray[np.int64]]:
    labels = labels.reshape(len(labels), -1) if labels.ndim else labels
    shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if images.dtype != np.uint8 or not shaped or images.size == 0:
        raise DataError(f"{path}: x_{part} is {images.dtype} {images.shape}", hint=NPZ_HINT)
    if labels.dtype.kind not in "iu" or labels.ndim != 2 or labels.shape[1] != 1:
        raise DataError(f"{path}: y_{part} is {labels.dtype} {labels.shape}", hint=NPZ_HINT)
    if len(labels) != len(images):
        raise DataError(f"{path}: {len(images)} images in x_{part}, {len(labels)} labels in y_{part}")
    return images, labels[:, 0].astype(np.int64)


def _read_idx_part(folder: Path, names: tuple[str, ...]) -> tuple[Pixels, NDArray[np.int64]] | None:
    for name in names:
        images, labels = _idx_file(folder, name, "images"), _idx_file(folder, name, "labels")
        if images is None:
            continue
        if labels is None:
            raise DataError(f"{images} has no labels beside it: {name}-labels-idx1-ubyte is missing")
        pixels, classes = read_idx(images), read_idx(labels)
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or classes.ndim != 1 or pixels.size == 0:
            raise DataError(f"{images} holds {pixels.dtype} {pixels.shape}, {labels} {classes.shape}")
        return pixels, classes.astype(np.int64)
    return None


def _idx_file(folder: Path, part: str, kind: str) -> Path | None:
    return next((p for p in sorted(folder.glob(f"{part}-{kind}*idx*")) if p.is_file()), None)


def read_idx(path: Path) -> NDArray[Any]:
    """One IDX file as an array.

    Raises:
        DataError: the file is damaged.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES:
        raise DataError(f"{path} is not an IDX file")
    dtype, dimensions = IDX_TYPES[data[2]], data[3]
    if len(data) < 4 + 4 * dimensions:
        raise DataError(f"{path} is damaged: it ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(data[4 : 4 + 4 * dimensions], ">u4"))
    expected = 4 + 4 * dimensions + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DataError(f"{path} is damaged: {len(data)} bytes, its header says {expected}")
    return np.frombuffer(data, dtype, offset=4 + 4 * dimensions).reshape(shape)
