"""From what a user typed after ``--data`` to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgenas.datasets import folders
from edgenas.datasets.arrays import is_idx_folder, load_idx, load_npz
from edgenas.datasets.images import Dataset, ImageSet
from edgenas.datasets.named import NAMED
from edgenas.datasets.parts import DataParts, TrainedOn, parts_of, with_test_part
from edgenas.datasets.texts import TextDataset, is_text, load_texts
from edgenas.errors import DataError

DATA_HINT = (
    "give an image folder (a sub-folder per class), an .npz file with x_train and y_train, an IDX folder, "
    f"a .tsv file of texts, or one of: {', '.join(sorted(NAMED))}"
)


def load_dataset(spec: str | Path, *, labels: Path | None = None) -> Dataset:
    """The labelled images that ``spec`` names.

    Args:
        spec: an ``.npz`` file, a folder (classes as sub-folders, IDX, or flat with a list of labels)
            or a named set. A file or folder of that name comes before a named set.
        labels: a CSV file with the columns ``file`` and ``class`` or ``class_index`` for a flat folder.

    Raises:
        DataError: nothing is there, it is empty or unreadable, or images and labels do not fit.
    """
    path = _existing(spec, labels)
    if path is None:
        return NAMED[str(spec)]()
    if path.is_file():
        return load_npz(path)
    listed = _labels_file(path, labels)
    if listed is not None:
        return Dataset(path.name, folders.load_labelled_folder(path, listed), None)
    return load_idx(path) if is_idx_folder(path) else folders.load_class_folders(path)


def load_parted(spec: str | Path, *, vocabulary: int) -> Dataset | TextDataset:
    """The labelled images or texts that ``spec`` names, with a test part in any case.

    Args:
        vocabulary: the most tokens of a vocabulary that is learnt from texts.

    Raises:
        DataError: nothing usable is there.
    """
    if is_text(spec):
        return with_test_part(load_texts(spec, vocabulary=vocabulary))
    dataset = load_dataset(spec)
    if len(dataset.class_names) == 1:
        raise DataError(
            f"all images of '{spec}' are of one class: {dataset.class_names[0]}",
            hint="there is something to learn where there are two classes or more",
        )
    return with_test_part(dataset)


def load_images(
    spec: str | Path, *, labels: Path | None = None, part: Literal["train", "test"] = "train"
) -> ImageSet:
    """Images to calibrate with or to validate on: as ``load_dataset``, or a folder of plain images.

    Args:
        part: which images of a data set that has both; its train images where it has no test.

    Raises:
        DataError: nothing is there, it is empty or unreadable, or images and labels do not fit.
    """
    parts = load_image_parts(spec, labels=labels)
    return parts.test if part == "test" else parts.train


def load_image_parts(
    spec: str | Path, *, labels: Path | None = None, seen: TrainedOn | None = None
) -> DataParts[ImageSet]:
    """The parts of what ``spec`` names, a folder of plain images too.

    Args:
        seen: what the model that they are for learnt from, if it says so.

    Raises:
        DataError: nothing is there, it is empty or unreadable, or images and labels do not fit.
    """
    path = _existing(spec, labels)
    if path is not None and path.is_dir() and _labels_file(path, labels) is None and _is_plain(path):
        images = folders.load_plain_images(path)
        return DataParts(images, None, images)
    return parts_of(load_dataset(spec, labels=labels), seen)


def _is_plain(path: Path) -> bool:
    return not is_idx_folder(path) and not folders.has_class_folders(path)


def _existing(spec: str | Path, labels: Path | None) -> Path | None:
    """The path that ``spec`` names; None for a named set."""
    path = Path(spec)
    if not path.exists():
        if str(spec) in NAMED and labels is None:
            return None
        raise DataError(f"there is no data at '{spec}'", hint=DATA_HINT)
    if path.is_file() and path.suffix != ".npz":
        raise DataError(f"'{spec}' is not an .npz file or a folder", hint=DATA_HINT)
    if path.is_file() and labels is not None:
        raise DataError(f"{path} has its own labels", hint="leave --labels out; it is for image folders")
    try:
        empty = path.is_dir() and next(path.iterdir(), None) is None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if empty:
        raise DataError(f"the folder {path} is empty", hint=DATA_HINT)
    return path


def _labels_file(path: Path, labels: Path | None) -> Path | None:
    found = labels if labels is not None else path / folders.LABELS_FILE
    return found if labels is not None or found.is_file() else None
