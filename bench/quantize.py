"""Our quantizer beside ONNX Runtime's and NNCF's on the same models, images and device.

Every method gets the same calibration images: 300 of CIFAR-10's training images or 100 of the
ImageNet sample. Ours divides them into images that calibrate and images that select. Accuracy is on
images that none of them saw, with the device's own kernels; latencies of one model's results are
measured in one interleaved run. Everything is repeated with another draw of calibration images.

    python bench/quantize.py [--quick] [--json OUT] [--seeds N] [--device ID]... [--model NAME]...
                             [--cifar FULL.npz]

A killed run goes on where it stopped: results are kept beside OUT.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from provenance import provenance

from edgenas.datasets import ImageSet, Preprocessing, load_images
from edgenas.device_profiles import load_profile
from edgenas.errors import EdgeNASError
from edgenas.measuring import connect
from edgenas.pipeline.quantize import quantize
from edgenas.quantization.decision import changes, paired_p_value
from edgenas.quantization.device_scoring import Scorer, latency_of
from edgenas.quantization.inputs import ImageInputs
from edgenas.quantization.trials import TrialStore, key_of
from edgenas.workspace import Workspace

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DEVICES = ("local", "local-openvino")
CALIBRATION = {"cifar10": 300, "imagenet": 100}
ROUNDS = 30
OURS = "edgenas"


@dataclass(frozen=True)
class Subject:
    """A trained model, its images and how they become its input."""

    name: str
    file: str
    data: str
    preprocessing: Preprocessing


def _imagenet(size: int, mean: float, std: float) -> Preprocessing:
    return Preprocessing(height=size, width=size, mean=(mean,) * 3, std=(std,) * 3)


SUBJECTS = (
    Subject(
        "resnet20", "resnet20_cifar10.onnx", "cifar10",
        Preprocessing(height=32, width=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
    Subject(
        "resnet8", "resnet8_cifar10.onnx", "cifar10",
        Preprocessing(height=32, width=32, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0),
    ),
    Subject("efficientnet-lite0", "efficientnet_lite0.onnx", "imagenet", _imagenet(224, 0.498, 0.502)),
    Subject("proxyless-w0.25", "proxyless-w0.25-r112_imagenet.onnx", "imagenet", _imagenet(112, 0.5, 0.5)),
)  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """Images of one repetition."""

    calibration: ImageSet
    scoring: ImageSet


def draw(subject: Subject, seed: int, cifar: Path, quick: bool) -> Draw:
    """Calibration images by ``seed``; the scoring images never contain one of them."""
    count = CALIBRATION[subject.data]
    generator = np.random.default_rng(seed)
    if subject.data == "cifar10":
        train, test = (load_images(cifar, part=part) for part in ("train", "test"))
        chosen = np.sort(generator.permutation(len(train))[:count])
        return Draw(train.subset(chosen), test.subset(np.arange(500 if quick else len(test))))
    images = load_images(DATA / "imagenet_1000" / "images", labels=DATA / "imagenet_1000" / "labels.csv")
    order = generator.permutation(len(images))
    scoring = order[count : count + 200] if quick else order[count:]
    return Draw(images.subset(np.sort(order[:count])), images.subset(np.sort(scoring)))


# --- the peers -------------------------------------------------------------------------------------


class _Reader:
    """ONNX Runtime's calibration data reader over our inputs."""

    def __init__(self, inputs: ImageInputs) -> None:
        self._batches: Iterator[dict[str, Any]] = inputs.batches(1)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def _onnxruntime(**options: Any) -> Callable[[Path, ImageInputs, Path], None]:
    def make(model: Path, inputs: ImageInputs, output: Path) -> None:
        from onnxruntime.quantization import quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared = output.with_name("prepared.onnx")
        quant_pre_process(str(model), str(prepared))
        quantize_static(str(prepared), str(output), _Reader(inputs), **options)

    return make


def _nncf(preset: str) -> Callable[[Path, ImageInputs, Path], None]:
    def make(model: Path, inputs: ImageInputs, output: Path) -> None:
        import nncf

        dataset = nncf.Dataset(list(inputs.batches(1)), lambda feed: feed)
        chosen = nncf.QuantizationPreset(preset)
        quantized = nncf.quantize(onnx.load(str(model)), dataset, preset=chosen, subset_size=len(inputs))
        onnx.save(quantized, str(output))

    return make


def peers() -> dict[str, Callable[[Path, ImageInputs, Path], None]]:
    """Name -> function that writes a quantized model."""
    from onnxruntime.quantization import QuantType

    u8s8 = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    return {
        "onnxruntime default": _onnxruntime(),
        "onnxruntime u8s8": _onnxruntime(**u8s8),
        "onnxruntime per channel": _onnxruntime(**u8s8, per_channel=True),
        "onnxruntime per channel, reduced range": _onnxruntime(**u8s8, per_channel=True, reduce_range=True),
        "onnxruntime u8u8": _onnxruntime(activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8),
        "nncf default": _nncf("performance"),
        "nncf mixed": _nncf("mixed"),
    }


# --- one cell ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One model on one device with one draw of calibration images."""

    subject: Subject
    device: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.subject.name} on {self.device}, draw {self.seed}"


def _ours(cell: Cell, images: Draw, model: Path, folder: Path) -> dict[str, Any]:
    """Quantizes with the command's own function; returns what it said."""
    data = folder / "calibration.npz"
    labels = images.calibration.labels
    np.savez(data, input=ImageInputs("input", images.calibration, cell.subject.preprocessing).batch(
        np.arange(len(images.calibration)))["input"], labels=labels)  # fmt: skip
    result = quantize(
        model, device=cell.device, calibration=data, output=folder / "ours.onnx", threads=1,
        seed=cell.seed, workspace=Workspace(folder),
    )  # fmt: skip
    return {"scheme": result.scheme, "selected_latency_ms": result.latency_ms}


def run_cell(cell: Cell, images: Draw, folder: Path) -> list[dict[str, Any]]:
    """One row for each method."""
    folder.mkdir(parents=True, exist_ok=True)
    model = DATA / "models" / cell.subject.file
    notes = {OURS: _ours(cell, images, model, folder)}
    calibration = ImageInputs("input", images.calibration, cell.subject.preprocessing)
    files = {"float": model, OURS: folder / "ours.onnx"}
    failures: dict[str, str] = {}
    for name, make in peers().items():
        output = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
        if not output.is_file():
            try:
                make(model, calibration, output)
            except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
                failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
        files[name] = output
    rows = _measured(cell, images, files, folder)
    failed = [{"method": name, "error": reason} for name, reason in failures.items()]
    return [{**row, **notes.get(row["method"], {})} for row in rows + failed]


def _measured(cell: Cell, images: Draw, files: dict[str, Path], folder: Path) -> list[dict[str, Any]]:
    scoring = ImageInputs("input", images.scoring, cell.subject.preprocessing, images.scoring.labels)
    profile = load_profile(cell.device, Workspace(folder))
    store = TrialStore(folder / f"{cell.device}.trials.jsonl")
    with connect(profile) as agent, Scorer(agent, store, files["float"], 1) as scorer:
        latencies = scorer.latencies(list(files.values()), purpose="bench", rounds=ROUNDS)
        answers = {name: scorer.score(path, scoring, name=name) for name, path in files.items()}
    predictions = {n: a.score.predictions for n, a in answers.items() if a.score is not None}
    float_ms = latency_of(latencies[0])
    rows = []
    for (name, path), latency in zip(files.items(), latencies, strict=True):
        row: dict[str, Any] = {"method": name, "size_bytes": path.stat().st_size}
        ms = latency_of(latency)
        if ms is None or float_ms is None or name not in predictions:
            rows.append({**row, "error": latency.error or answers[name].error})
            continue
        statistics = latency.statistics
        assert statistics is not None and scoring.labels is not None
        lost, won = changes(predictions[name], predictions[OURS], scoring.labels)
        rows.append({
            **row, "latency_ms": ms, "speed": float_ms / ms, "rounds_ms": statistics.rounds_ms,
            "accuracy": float(np.mean(np.array(predictions[name]) == scoring.labels)),
            "images": len(scoring), "ours_only_right": lost, "it_only_right": won,
            "p_value": paired_p_value(lost, won),
            "latency_ratio_interval": _ratio_interval(statistics.rounds_ms, latencies[1]),
        })  # fmt: skip
    return rows


def _ratio_interval(rounds_ms: tuple[float, ...], ours: Any) -> tuple[float, float]:
    """95 % interval of its latency over ours, from resampled rounds."""
    if ours.statistics is None:
        return (float("nan"), float("nan"))
    generator = np.random.default_rng(0)
    theirs, mine = np.array(rounds_ms), np.array(ours.statistics.rounds_ms)
    ratios = [
        np.median(generator.choice(theirs, len(theirs))) / np.median(generator.choice(mine, len(mine)))
        for _ in range(500)
    ]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def beaten_by(rows: list[dict[str, Any]]) -> list[str]:
    """Methods that are significantly both faster and more accurate than ours."""
    return [
        row["method"]
        for row in rows
        if "error" not in row and row["method"] != OURS and row["latency_ratio_interval"][1] < 1.0
        and row["p_value"] < 0.05 and row["it_only_right"] > row["ours_only_right"]
    ]  # fmt: skip


# --- the table -----------------------------------------------------------------------------------------


def show(cell: Cell, rows: list[dict[str, Any]]) -> None:
    print(f"\n{cell.name}")
    for row in rows:
        if "error" in row:
            print(f"  {row['method']:42s} failed: {str(row['error'])[:60]}")
            continue
        print(
            f"  {row['method']:42s} {row['accuracy']:.4f}  {row['latency_ms']:8.3f} ms  {row['speed']:5.2f}x  "
            f"{row['size_bytes'] / 1e6:6.2f} MB  against ours p = {row['p_value']:.2g}  {row.get('scheme', '')}"
        )
    print(f"  both faster and more accurate than ours: {', '.join(beaten_by(rows)) or 'none'}")


def summary(cells: list[dict[str, Any]]) -> None:
    """Mean and spread over the draws."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        for row in cell["rows"]:
            if "error" not in row:
                groups.setdefault((cell["model"], cell["device"], row["method"]), []).append(row)
    print("\nover the draws: accuracy mean (lowest..highest), speed against float")
    for (model, device, method), rows in groups.items():
        accuracy, speed = ([row[key] for row in rows] for key in ("accuracy", "speed"))
        print(
            f"  {model:20s} {device:15s} {method:42s} {np.mean(accuracy):.4f} "
            f"({min(accuracy):.4f}..{max(accuracy):.4f})  {np.mean(speed):.2f}x"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small model, one draw, few images")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="draws of calibration images")
    parser.add_argument("--device", action="append", help=f"default: {' and '.join(DEVICES)}")
    parser.add_argument("--model", action="append", choices=[s.name for s in SUBJECTS])
    parser.add_argument("--cifar", type=Path, default=DATA / "cifar10_small.npz", help="all of CIFAR-10")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the models and images of development are not here: {DATA}")
    wanted = options.model or (["resnet8"] if options.quick else [s.name for s in SUBJECTS])
    seeds = range(1 if options.quick else options.seeds)
    kept = (
        options.json.with_suffix(".cells")
        if options.json
        else Path(tempfile.mkdtemp(prefix="edgenas-bench-"))
    )
    cells = []
    for subject in (s for s in SUBJECTS if s.name in wanted):
        for seed in seeds:
            images = draw(subject, seed, options.cifar, options.quick)
            devices = options.device or DEVICES
            cells += [_kept_cell(Cell(subject, device, seed), images, kept) for device in devices]
    summary(cells)
    if options.json:
        environment = provenance("onnx", "onnxruntime", "openvino", "nncf", "numpy")
        text = json.dumps({"environment": environment, "cells": cells}, indent=1)
        options.json.write_text(text + "\n")
    return 0


def _kept_cell(cell: Cell, images: Draw, kept: Path) -> dict[str, Any]:
    """The cell's rows: read where they are there, else made and written."""
    key = key_of(cell.name, images.calibration.sha256, images.scoring.sha256)
    path = kept / f"{key}.json"
    if not path.is_file():
        try:
            rows = run_cell(cell, images, kept / key)
        except EdgeNASError as error:
            rows = [{"method": OURS, "error": error.message}]
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(rows))
        unfinished.replace(path)
    rows = json.loads(path.read_text())
    show(cell, rows)
    return {"model": cell.subject.name, "device": cell.device, "draw": cell.seed, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
