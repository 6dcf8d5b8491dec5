"""How an image becomes a network's input, and how a model file carries that with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgenas.datasets.images import Dataset, ImageSet, Pixels
from edgenas.datasets.infer import fit, prepare
from edgenas.errors import DataError, ModelError, UsageError
from edgenas.files import replaced
from edgenas.records import Record

PREPROCESSING_KEY = "edgenas.preprocessing"
LABELS_KEY = "edgenas.labels"
STATISTICS_IMAGES = 4096
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}


class Preprocessing(Record, forbid_unknown_fields=True):
    """``(x / scale - mean) / std`` at ``height`` x ``width``.

    ``mean`` and ``std`` have one value per channel in the order that the network sees; ``resize``
    is bicubic with antialiasing and either squashes or crops the centre to the aspect ratio first.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    resize: Literal["squash", "crop"] = "squash"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    channels: Literal["rgb", "bgr", "gray"] = "rgb"

    def __post_init__(self) -> None:
        count = CHANNELS[self.channels]
        if len(self.mean) != count or len(self.std) != count:
            raise UsageError(
                f"{self.channels} images have {count} channels; mean has {len(self.mean)} values, "
                f"std has {len(self.std)}",
                hint=f"give {count} values to --mean and to --std",
            )
        positive = (self.height, self.width, self.scale, *self.std)
        if not all(np.isfinite(value) and value > 0 for value in positive):
            raise UsageError("height, width, scale and std must be positive numbers")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image as the network gets it."""
        count = CHANNELS[self.channels]
        wide = (self.height, self.width, count)
        return wide if self.layout == "NHWC" else (count, self.height, self.width)


def default_preprocessing(dataset: Dataset, size: int) -> Preprocessing:
    """Squashed to ``size`` x ``size``, normalised by the training images' own mean and deviation.

    Taken from evenly spaced training images (at most 4,096), to four decimals.
    """
    indices = np.unique(np.linspace(0, len(dataset.train) - 1, STATISTICS_IMAGES).round().astype(np.int64))
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    for image in _one_by_one(dataset.train, indices):
        values = image.reshape(-1, 3).astype(np.float64) / 255.0
        total, squares, pixels = total + values.sum(0), squares + (values**2).sum(0), pixels + len(values)
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-6))
    return Preprocessing(
        height=size,
        width=size,
        mean=tuple(round(float(value), 4) for value in mean),
        std=tuple(round(float(value), 4) for value in deviation),
    )


def _one_by_one(images: ImageSet, indices: NDArray[np.int64]) -> Iterator[Pixels]:
    for start in range(0, len(indices), 64):
        yield from images.images(indices[start : start + 64])


def preprocess(images: Sequence[Pixels] | Pixels, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The network's input for RGB images: float32 ``(N, C, h, w)``, or ``(N, h, w, C)`` for NHWC.

    Args:
        images: uint8 ``(N, H, W, 3)``, or a list of ``(H, W, 3)`` of any sizes.
    """
    return prepare(images, preprocessing.to_dict())


def resize(images: Pixels, height: int, width: int, how: str = "squash") -> Pixels:
    """Images uint8 ``(N, H, W, C)`` as uint8 ``(N, height, width, C)``, bicubic with antialiasing."""
    return fit(images, height, width, how)


def write_batches(
    images: ImageSet, preprocessing: Preprocessing, folder: Path, shard_size: int
) -> list[Path]:
    """Writes the preprocessed images as ``inputs-00000.npy``, ... of ``shard_size`` images each.

    Memory is bounded by one shard. A file appears under its name only when it is whole.

    Raises:
        DataError: there are no images, or one cannot be decoded.
    """
    if len(images) == 0:
        raise DataError("there are no images to preprocess")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, start in enumerate(range(0, len(images), shard_size)):
        indices = np.arange(start, min(start + shard_size, len(images)))
        path = folder / f"inputs-{number:05d}.npy"
        with replaced(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, preprocess(images.images(indices), preprocessing))
        paths.append(path)
    return paths


def preprocessing_metadata(preprocessing: Preprocessing, class_names: Sequence[str]) -> dict[str, str]:
    """What ``metadata_props`` of an ONNX model says so that it can be used without this package."""
    return {
        PREPROCESSING_KEY: preprocessing.to_json(),
        LABELS_KEY: msgspec.json.encode(list(class_names)).decode(),
    }


def preprocessing_from_model(model: str | os.PathLike[str] | Any) -> Preprocessing | None:
    """The preprocessing that EdgeNAS wrote into a model (path or ``ModelProto``); None without.

    Raises:
        ModelError: the file is not a readable ONNX model, or its metadata is not what it should be.
    """
    text = _metadata(model).get(PREPROCESSING_KEY)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Preprocessing)
    except (msgspec.DecodeError, UsageError) as error:
        raise ModelError(f"the model's metadata '{PREPROCESSING_KEY}' is not valid: {error}") from error


def labels_from_model(model: str | os.PathLike[str] | Any) -> tuple[str, ...]:
    """The class names that EdgeNAS wrote into a model; empty without.

    Raises:
        ModelError: the file is not a readable ONNX model, or its metadata is not what it should be.
    """
    try:
        return msgspec.json.decode(_metadata(model).get(LABELS_KEY, "[]"), type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise ModelError(f"the model's metadata '{LABELS_KEY}' is not valid: {error}") from error


def _metadata(model: str | os.PathLike[str] | Any) -> dict[str, str]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if isinstance(model, str | os.PathLike):
        try:
            model = onnx.load(os.fspath(model), load_external_data=False)
        except OSError as error:
            raise ModelError(f"cannot read {os.fspath(model)}: {error.strerror or error}") from error
        except DecodeError as error:
            raise ModelError(f"{os.fspath(model)} is not an ONNX model: {error}") from error
    return {entry.key: entry.value for entry in model.metadata_props}
