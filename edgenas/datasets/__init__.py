"""Labelled images from files, folders and named sets, and how they become a network's input."""

from edgenas.datasets.images import ArrayImages, Dataset, FileImages, ImageSet, split
from edgenas.datasets.loading import load_dataset, load_image_parts, load_images, load_parted
from edgenas.datasets.named import NAMED
from edgenas.datasets.preprocessing import (
    LABELS_KEY,
    PREPROCESSING_KEY,
    Preprocessing,
    default_preprocessing,
    labels_from_model,
    preprocess,
    preprocessing_from_model,
    preprocessing_metadata,
    resize,
    write_batches,
)

__all__ = [
    "LABELS_KEY",
    "NAMED",
    "PREPROCESSING_KEY",
    "ArrayImages",
    "Dataset",
    "FileImages",
    "ImageSet",
    "Preprocessing",
    "default_preprocessing",
    "labels_from_model",
    "load_dataset",
    "load_image_parts",
    "load_images",
    "load_parted",
    "preprocess",
    "preprocessing_from_model",
    "preprocessing_metadata",
    "resize",
    "split",
    "write_batches",
]
