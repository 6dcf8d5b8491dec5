"""Nothing is chosen or judged by samples that a network learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.datasets import ArrayImages, Dataset, load_dataset, load_parted, preprocessing_metadata
from edgenas.datasets.parts import TrainedOn, parts_of, split_training, trained_on, with_test_part
from edgenas.datasets.preprocessing import default_preprocessing
from edgenas.datasets.texts import TextDataset
from edgenas.datasets.tokenizer import text_metadata
from edgenas.errors import ModelError
from edgenas.quantization.division import divide
from edgenas.quantization.samples import PreprocessingOptions, load_parts
from edgenas.search_spaces import build_onnx, get_space


def numbered(count: int, classes: int = 4) -> Dataset:
    """Images of one pixel whose value is their number."""
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    return Dataset(
        "numbers", ArrayImages(pixels, np.arange(count) % classes, tuple("abcdefgh"[:classes])), None
    )


def numbers(images: object) -> set[int]:
    assert isinstance(images, ArrayImages)
    return set(images.images(np.arange(len(images)))[:, 0, 0, 0].tolist())


def labels_of(samples: Any) -> list[int]:
    found: list[int] = samples.labels.tolist()
    return found


@given(count=st.integers(24, 255), classes=st.integers(1, 6), seed=st.integers(0, 99))
def test_parts_share_no_sample_and_lose_none(count: int, classes: int, seed: int) -> None:
    dataset = numbered(count, classes)
    parts = parts_of(dataset, TrainedOn(data_sha256=dataset.sha256, seed=seed))
    train, unseen, test = (numbers(part) for part in (parts.train, parts.unseen, parts.test))
    assert not train & unseen and not train & test and not unseen & test
    assert train | unseen | test == set(range(count))
    assert min(len(part) for part in (train, unseen, test)) >= classes


@given(seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)))
def test_the_test_part_is_the_same_for_every_seed(seeds: tuple[int, int]) -> None:
    dataset = numbered(120)
    found = [parts_of(dataset, TrainedOn(data_sha256=dataset.sha256, seed=seed)) for seed in seeds]
    assert numbers(found[0].test) == numbers(found[1].test)
    assert with_test_part(dataset).sha256 == dataset.sha256


def test_other_data_are_all_unseen() -> None:
    dataset = numbered(100)
    parts = parts_of(dataset, TrainedOn(data_sha256=numbered(101).sha256, seed=0))
    assert parts.unseen is None
    assert numbers(parts.train) == numbers(parts.test) == set(range(100))


def test_many_samples_keep_a_small_part_to_choose_by() -> None:
    kept, chosen = split_training(
        ArrayImages(np.zeros((40_000, 1, 1, 3), np.uint8), np.arange(40_000) % 10), seed=0
    )
    assert len(chosen) == 2500
    assert len(kept) == 37_500


def test_a_quantizer_selects_by_what_training_held_out(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (200, 32, 32, 3)).astype(np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, x_train=images, y_train=np.arange(200) % 10)
    dataset = load_dataset(path)
    parted = load_parted(path, vocabulary=0)
    space = get_space("dense-32px")
    seen = TrainedOn(data_sha256=dataset.sha256, seed=3)
    metadata = {
        **preprocessing_metadata(default_preprocessing(dataset, 32), dataset.class_names),
        **seen.metadata(),
    }
    model = build_onnx(space.network(space.largest()), metadata=metadata)
    found = load_parts(model, path, PreprocessingOptions())
    assert found.unseen is not None
    assert isinstance(parted, Dataset)
    trained, held_out = split_training(parted.train, 3)  # as TrainingData parts them
    assert parted.test is not None
    for part, expected in ((found.train, trained), (found.unseen, held_out), (found.test, parted.test)):
        assert labels_of(part) == labels_of(expected)
    parts = divide(found.train, found.unseen, seed=0)
    assert sorted(labels_of(parts.selection)) == sorted(labels_of(held_out))
    selected = parts.selection.batch(range(len(parts.selection)))["input"]
    known = {row.tobytes() for row in found.train.batch(range(len(found.train)))["input"]}
    assert not known & {row.tobytes() for row in selected}


def test_texts_are_parted_like_images(tmp_path: Path) -> None:
    path = tmp_path / "reviews.tsv"
    rows = [f"text number{index} is here\t{'good' if index % 2 else 'bad'}" for index in range(60)]
    path.write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    parted = load_parted(path, vocabulary=100)
    assert isinstance(parted, TextDataset)
    assert parted.test is not None
    space = get_space("text-encoder", classes=2)
    seen = TrainedOn(data_sha256=parted.sha256, seed=1)
    metadata = {**text_metadata(parted.tokenizer, parted.class_names), **seen.metadata()}
    found = load_parts(
        build_onnx(space.network(space.largest()), metadata=metadata), path, PreprocessingOptions()
    )
    trained, held_out = split_training(parted.train, 1)
    assert found.unseen is not None
    assert [len(part) for part in (found.train, found.unseen, found.test)] == [
        len(trained), len(held_out), len(parted.test),
    ]  # fmt: skip
    assert not set(trained.texts) & set(held_out.texts) and not set(trained.texts) & set(parted.test.texts)


def test_damaged_metadata_are_named() -> None:
    model = onnx.ModelProto()
    model.metadata_props.add(key="edgenas.trained_on", value="{")
    with pytest.raises(ModelError, match=r"edgenas\.trained_on"):
        trained_on({entry.key: entry.value for entry in model.metadata_props})
