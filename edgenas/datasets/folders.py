"""Image folders: a sub-folder per class, a flat folder with a list of labels, plain images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgenas.datasets.images import Dataset, FileImages, image_size, shortened
from edgenas.errors import DataError

IMAGE_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".npy"]
)  # fmt: skip
LABELS_FILE = "labels.csv"
LABELS_HINT = (
    f"make one sub-folder per class, or name the classes in {LABELS_FILE} in that folder, with the columns "
    "file and class"
)


def load_class_folders(root: Path) -> Dataset:
    """``root/CLASS/image`` or ``root/train/CLASS/image`` with ``root/test/CLASS/image``.

    Raises:
        DataError: a class is empty, an image is no image, or there are no classes.
    """
    train_root = root / "train" if (root / "train").is_dir() else root
    class_names = tuple(folder.name for folder in _folders(train_root))
    if not class_names:
        has = "images but no labels" if image_files(train_root) else "neither images nor classes"
        raise DataError(f"{root} has {has}", hint=LABELS_HINT)
    train = _read_classes(train_root, class_names, root)
    test_root = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if train_root == root or test_root is None:
        return Dataset(root.name, train, None)
    strange = [folder.name for folder in _folders(test_root) if folder.name not in class_names]
    if strange:
        raise DataError(f"{test_root} has classes that {train_root} has not: {shortened(strange)}")
    return Dataset(root.name, train, _read_classes(test_root, class_names, root))


def load_plain_images(root: Path) -> FileImages:
    """The images directly in ``root``, without labels.

    Raises:
        DataError: there are none, or one is no image.
    """
    files = image_files(root)
    _check(root, files)
    return FileImages(files, root)


def load_labelled_folder(root: Path, labels: Path) -> FileImages:
    """The images that a CSV file lists, in its order.

    Args:
        root: the files' folder; ``root/images`` is looked at too.
        labels: columns ``file`` and ``class``, or ``file`` and ``class_index`` (0, 1, ...; then
            ``class`` or ``name``, where given, name the classes).

    Raises:
        DataError: columns are missing, a file is listed but absent, or present but not listed.
    """
    rows = _read_rows(labels)
    files = [_find(root, row["file"]) for row in rows]
    absent = [row["file"] for row, path in zip(rows, files, strict=True) if path is None]
    if absent:
        raise DataError(
            f"{labels} lists {len(absent)} of {len(rows)} files that are not in {root}: {shortened(absent)}",
            hint=f"put the images into {root} or {root / 'images'}, or take their lines out of {labels}",
        )
    found = [path for path in files if path is not None]
    unlisted = sorted(
        {path for folder in {p.parent for p in found} for path in image_files(folder)} - set(found)
    )
    if unlisted:
        raise DataError(
            f"{len(unlisted)} images have no label in {labels}: {shortened([p.name for p in unlisted])}",
            hint=f"add them to {labels.name} or move them away",
        )
    _check(root, found)
    indices, class_names = _classes(rows, labels)
    return FileImages(found, root, indices, class_names)


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )


def has_class_folders(root: Path) -> bool:
    """True where sub-folders, not the folder itself, hold the images."""
    return bool(_folders(root)) and not image_files(root)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read_classes(folder: Path, class_names: tuple[str, ...], root: Path) -> FileImages:
    files: list[Path] = []
    counts: list[int] = []
    for name in class_names:
        members = image_files(folder / name) if (folder / name).is_dir() else []
        files += members
        counts.append(len(members))
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"{folder} has {len(class_names)} classes; without any image: {shortened(empty)}",
            hint="add images to the folder or remove it",
        )
    _check(folder, files)
    return FileImages(files, root, np.repeat(np.arange(len(class_names)), counts), class_names)


def _check(folder: Path, files: list[Path]) -> None:
    if not files:
        known = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise DataError(f"{folder} has no images", hint=f"put some there; these are read: {known}")
    bad = []
    for path in files:
        try:
            image_size(path)
        except DataError as error:
            bad.append((path, error))
    if bad:
        names = shortened([str(path.relative_to(folder)) for path, _ in bad])
        raise DataError(
            f"{len(bad)} of {len(files)} images in {folder} cannot be decoded: {names} ({bad[0][1].message})",
            hint="repair or remove them",
        )


def _read_rows(labels: Path) -> list[dict[str, str]]:
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the labels {labels}: {error}") from error
    columns = set(reader.fieldnames or ())
    if "file" not in columns or not columns & {"class", "class_index"}:
        raise DataError(
            f"{labels} has the columns {', '.join(reader.fieldnames or ()) or '(none)'}; "
            "needed: file, and class or class_index"
        )
    if not rows:
        raise DataError(f"{labels} lists no images")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(
                f"line {number} of {labels} has not as many columns as its header",
                hint="a name with a comma in it wants quotes",
            )
    return rows


def _find(root: Path, name: str) -> Path | None:
    for path in (root / name, root / "images" / name):
        if path.is_file():
            return path
    return None


def _classes(rows: list[dict[str, str]], labels: Path) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if "class_index" not in rows[0]:
        class_names = tuple(sorted({row["class"] for row in rows}))
        position = {name: i for i, name in enumerate(class_names)}
        return np.array([position[row["class"]] for row in rows], np.int64), class_names
    try:
        indices = np.array([int(row["class_index"]) for row in rows], np.int64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{labels}: class_index must be whole numbers: {error}") from error
    if indices.min() < 0 or indices.max() >= 1_000_000:
        raise DataError(f"{labels}: class_index goes from {indices.min()} to {indices.max()}")
    column = next((name for name in ("class", "name") if name in rows[0]), None)
    names = {int(i): str(i) if column is None else row[column] for i, row in zip(indices, rows, strict=True)}
    return indices, tuple(names.get(i, str(i)) for i in range(int(indices.max()) + 1))
