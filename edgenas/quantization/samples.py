"""From what a user gave as ``--calibration`` or ``--data`` to a model's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from edgenas.datasets import (
    ImageSet,
    Preprocessing,
    labels_from_model,
    load_image_parts,
    preprocessing_from_model,
)
from edgenas.datasets.parts import DataParts, parts_of, trained_on
from edgenas.datasets.texts import Texts, is_text, load_texts
from edgenas.datasets.tokenizer import tokenizer_from_metadata
from edgenas.errors import DataError, ModelError, UsageError
from edgenas.quantization.inputs import ArrayInputs, ImageInputs, Inputs, is_keyed_by_inputs, load_arrays
from edgenas.quantization.model_checks import input_types, real_inputs
from edgenas.quantization.reference_run import check_feed
from edgenas.records import Record

OUTSIDE = 0.02  # of the range in training: what resampling may overshoot


class PreprocessingOptions(Record):
    """What the user said about how images become inputs; None: the model's metadata, else a default."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    input_size: tuple[int, int] | None = None
    resize: Literal["squash", "crop"] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    channels: Literal["rgb", "bgr", "gray"] | None = None


def parse_options(
    *, mean: str | Sequence[float] | None, std: str | Sequence[float] | None, scale: float | None,
    input_size: str | Sequence[int] | int | None, resize: str | None, layout: str | None,
    channels: str | None,
) -> PreprocessingOptions:  # fmt: skip
    """Options as they come from the command line (``0.5,0.5,0.5``, ``224x224``) or from Python.

    Raises:
        UsageError: one of them is not what it should be.
    """
    values = {
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "scale": scale,
        "input_size": _size(input_size),
        "resize": resize,
        "layout": layout,
        "channels": channels,
    }
    try:
        return msgspec.convert(values, PreprocessingOptions)
    except msgspec.ValidationError as error:
        raise UsageError(f"the preprocessing options are not valid: {error}") from error


def load_inputs(
    model: onnx.ModelProto, spec: str | Path, options: PreprocessingOptions, *,
    labels: Path | None = None, part: Literal["train", "test"] = "train",
) -> Inputs:  # fmt: skip
    """Samples for ``model`` from images, texts or, keyed by its inputs' names, from an ``.npz`` file.

    Raises:
        DataError: nothing usable is there, or it does not fit the model.
        UsageError: the preprocessing does not fit the model.
    """
    parts = load_parts(model, spec, options, labels=labels)
    return parts.test if part == "test" else parts.train


def load_parts(
    model: onnx.ModelProto, spec: str | Path, options: PreprocessingOptions, *, labels: Path | None = None
) -> DataParts[Inputs]:
    """Samples as ``load_inputs`` gives them, by what the model may do with them.

    Raises:
        DataError: nothing usable is there, or it does not fit the model.
        UsageError: the preprocessing does not fit the model.
    """
    names = [value.name for value in real_inputs(model)]
    found: DataParts[Inputs]
    if is_keyed_by_inputs(Path(spec), names):
        arrays = load_arrays(Path(spec), input_types(model))
        found = DataParts(arrays, None, arrays)
    elif is_text(spec):
        found = _text_parts(model, Path(spec))
    elif len(names) != 1:
        raise DataError(
            f"the model has the inputs {', '.join(names)}; images feed one",
            hint="give an .npz file with an array for each input, keyed by its name",
        )
    else:
        images = load_image_parts(spec, labels=labels, seen=trained_on(_metadata(model)))
        found = images.convert(lambda part: image_inputs(model, part, options))
    check_feed(found.train.batch([0]), model)
    return found


def _text_parts(model: onnx.ModelProto, path: Path) -> DataParts[Inputs]:
    """Texts of a ``.tsv`` for a model with one input of token numbers, split by the model's vocabulary.

    Raises:
        DataError: the file is no table of texts, or has classes that the model does not know.
        ModelError: the model's metadata hold no vocabulary.
    """
    tokenizer = tokenizer_from_metadata(_metadata(model))
    values = real_inputs(model)
    if tokenizer is None or len(values) != 1:
        raise ModelError(
            "texts were given, but the model's metadata hold no vocabulary to split them with",
            hint="give an .npz file with an array for each input, keyed by its name",
        )
    dataset = load_texts(path, tokenizer=tokenizer, class_names=labels_from_model(model))
    tokens = values[0].type.tensor_type.shape.dim[1].dim_value

    def numbers(texts: Texts) -> Inputs:
        return ArrayInputs({values[0].name: tokenizer.encode(texts.texts, tokens)}, texts.labels)

    return parts_of(dataset, trained_on(_metadata(model))).convert(numbers)


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def image_inputs(model: onnx.ModelProto, images: ImageSet, options: PreprocessingOptions) -> ImageInputs:
    """Images for a model with one input, labels in the model's own order of classes.

    Raises:
        DataError: there are no images, or their classes are not the model's.
    """
    if len(images) == 0:
        raise DataError("there are no images")
    preprocessing = resolve(model, options)
    labels = images.labels_for(labels_from_model(model)) if images.labels is not None else None
    return ImageInputs(real_inputs(model)[0].name, images, preprocessing, labels)


def resolve(model: onnx.ModelProto, options: PreprocessingOptions) -> Preprocessing:
    """The preprocessing: options first, then the model's metadata, then ``x / 255``.

    Raises:
        ModelError: the input is not that of an image.
        UsageError: the options do not fit together.
    """
    given = {k: v for k, v in msgspec.structs.asdict(options).items() if v is not None}
    size = given.pop("input_size", None)
    known = preprocessing_from_model(model)
    start = known.to_dict() if known is not None else _declared(model, given)
    merged = {**start, **given}
    if size is not None:
        merged["height"], merged["width"] = size
    return msgspec.convert(merged, Preprocessing)


def _declared(model: onnx.ModelProto, given: dict[str, object]) -> dict[str, object]:
    """What the input's shape tells; grey where it has one channel."""
    value = real_inputs(model)[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if len(shape) != 4:
        raise ModelError(
            f"the input '{value.name}' has {len(shape)} dimensions; images have four",
            hint="give an .npz file with an array for each input, keyed by its name",
        )
    layout = given.get("layout") or ("NHWC" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW")
    height, width, count = shape[1:] if layout == "NHWC" else (*shape[2:], shape[1])
    channels = given.get("channels") or ("gray" if count == 1 else "rgb")
    zeros = [0.0] * (1 if channels == "gray" else 3)
    ones = [1.0] * len(zeros)
    return {
        "height": height, "width": width, "layout": layout, "channels": channels, "mean": zeros, "std": ones,
    }  # fmt: skip


def trained_range(model: onnx.ModelProto) -> tuple[float, float] | None:
    """The values that images had in training, by the model's metadata; None where it does not say."""
    known = preprocessing_from_model(model)
    if known is None:
        return None
    ends = [(end / known.scale - np.array(known.mean)) / np.array(known.std) for end in (0.0, 255.0)]
    return float(np.min(ends)), float(np.max(ends))


def suspicious(inputs: Inputs, expected: tuple[float, float] | None = None, checked: int = 64) -> list[str]:
    """What looks wrong about calibration samples, in sentences for the user.

    Args:
        expected: lowest and highest value in training, see ``trained_range``.
    """
    found = []
    chosen = np.unique(np.linspace(0, len(inputs) - 1, min(checked, len(inputs))).astype(np.int64))
    for name, array in inputs.batch(chosen).items():
        flat = array.reshape(len(array), -1)
        if array.dtype.kind == "f":
            found += _suspicious_values(name, flat, expected)
    if inputs.labels is not None and len(inputs) > 1 and len(np.unique(inputs.labels)) == 1:
        found.append("all calibration samples are of one class")
    return found


def _suspicious_values(
    name: str, flat: npt.NDArray[np.float32], expected: tuple[float, float] | None
) -> list[str]:
    found, low, high = [], float(flat.min()), float(flat.max())
    constant = int(np.sum(flat.min(axis=1) == flat.max(axis=1)))
    if constant and flat.shape[1] > 1:
        found.append(f"{constant} of {len(flat)} calibration samples for '{name}' are constant")
    if len(flat) > 1 and (flat == flat[0]).all():
        found.append(f"all calibration samples for '{name}' are the same")
    if expected is not None:
        margin = OUTSIDE * (expected[1] - expected[0])
        if low < expected[0] - margin or high > expected[1] + margin:
            found.append(
                f"calibration samples for '{name}' reach from {low:.3g} to {high:.3g}; the network was "
                f"trained on {expected[0]:.3g} to {expected[1]:.3g}"
            )
    elif max(abs(low), abs(high)) > 1000:
        found.append(
            f"calibration samples for '{name}' reach {max(abs(low), abs(high)):.3g}: is --scale right?"
        )
    return found


def spread(inputs: Inputs, count: int, seed: int) -> tuple[Inputs, Inputs]:
    """``count`` samples drawn at random, balanced over the classes where there are labels, and the rest."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(inputs))
    if inputs.labels is not None:
        rank = np.empty(len(order), np.int64)  # how many of the same class come before
        for label in np.unique(inputs.labels):
            members = order[inputs.labels[order] == label]
            rank[members] = np.arange(len(members))
        order = order[np.argsort(rank[order], kind="stable")]
    chosen, rest = np.sort(order[:count]), np.sort(order[count:])
    return inputs.subset(chosen), inputs.subset(rest)


def describe(inputs: Inputs) -> str:
    """How the samples become inputs, for people."""
    if isinstance(inputs, ImageInputs):
        p = inputs.preprocessing
        normalised = f"(x / {p.scale:g} - {list(p.mean)}) / {list(p.std)}"
        return f"{p.height}x{p.width} {p.channels} {p.layout}, {normalised}, {p.resize}"
    assert isinstance(inputs, ArrayInputs)
    return inputs.description


def _numbers(option: str, value: str | Sequence[float] | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(float(part) for part in parts)
    except ValueError as error:
        raise UsageError(f"{option} '{value}' is not a list of numbers such as 0.5,0.5,0.5") from error


def _size(value: str | Sequence[int] | int | None) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, int):
        return value, value
    try:
        parts = [int(p) for p in (value.lower().split("x") if isinstance(value, str) else value)]
    except ValueError:
        parts = []
    if len(parts) == 1:
        parts = parts * 2
    if len(parts) != 2 or min(parts) < 1:
        raise UsageError(f"--input-size '{value}' is not a size such as 224 or 224x192")
    return parts[0], parts[1]
