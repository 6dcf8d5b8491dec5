"""Data sets that go by a name: those that an installed package carries, or that the cache holds."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgenas.datasets.arrays import dataset_of_arrays, load_npz
from edgenas.datasets.images import Dataset, Pixels, split
from edgenas.datasets.infer import resize
from edgenas.errors import DataError
from edgenas.workspace import cache_folder

DIGITS_SIZE = 48
DIGITS_TEST_SHARE = 0.25
DIGITS_SEED = 0
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR10_RECORD = 1 + 3 * 32 * 32


def load_digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits (8x8) at 48x48, a quarter of each class for the test.

    Enlarged because latency at 8x8 means nothing; the split is the same every time.
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    small = np.clip(np.round(bunch.images * (255.0 / 16.0)), 0, 255).astype(np.uint8)
    large = resize(small[..., None], DIGITS_SIZE, DIGITS_SIZE)
    names = tuple(str(digit) for digit in range(10))
    whole = dataset_of_arrays(
        "digits", (large, bunch.target.astype(np.int64)), None, names, source="scikit-learn's digits"
    )
    train, test = split(whole.train, DIGITS_TEST_SHARE, DIGITS_SEED)
    return Dataset("digits", train, test)


def load_cifar10() -> Dataset:
    """CIFAR-10 from the cache: ``cifar10.npz`` or its authors' ``cifar-10-binary.tar.gz``.

    Raises:
        DataError: neither is there, or it is damaged.
    """
    folder = cache_folder() / "datasets"
    if (folder / "cifar10.npz").is_file():
        found = load_npz(folder / "cifar10.npz")
        return Dataset("cifar10", found.train, found.test)
    archive = folder / "cifar-10-binary.tar.gz"
    if not archive.is_file():
        raise DataError(
            f"'cifar10' is not in {folder}",
            hint=f"download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz to {archive}",
        )
    train = [_cifar_batch(archive, f"data_batch_{i}.bin") for i in range(1, 6)]
    merged = np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])
    return dataset_of_arrays(
        "cifar10", merged, _cifar_batch(archive, "test_batch.bin"), CIFAR10_CLASSES, source=archive
    )


def _cifar_batch(archive: Path, name: str) -> tuple[Pixels, NDArray[np.int64]]:
    """One batch: records of a label byte and 3 x 32 x 32 pixels. Source: the data set's own page."""
    try:
        with tarfile.open(archive) as opened:
            file = opened.extractfile(f"cifar-10-batches-bin/{name}")
            data = file.read() if file is not None else b""
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise DataError(f"cannot read {name} from {archive}: {error}") from error
    if not data or len(data) % CIFAR10_RECORD:
        raise DataError(f"{archive}: {name} has {len(data)} bytes, not a multiple of {CIFAR10_RECORD}")
    records = np.frombuffer(data, np.uint8).reshape(-1, CIFAR10_RECORD)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), records[:, 0].astype(np.int64)


NAMED = {"digits": load_digits, "cifar10": load_cifar10}
