"""Our quantizer beside ONNX Runtime's, NNCF's and neural-compressor's: same models, images and device.

Every method gets the same calibration images: 300 of CIFAR-10's training images or 100 of the
ImageNet sample. Ours divides them into images that calibrate and images that select. Accuracy is on
images that none of them saw, with the device's own kernels; latencies of one model's results are
measured in interleaved rounds of several passes that load their sessions afresh. Everything is
repeated with another draw of calibration images.

    python bench/quantize.py [--quick] [--json OUT] [--seeds N] [--device ID]... [--model NAME]...
                             [--cifar FULL.npz] [--images N] [--stage peers|ours|accuracy|latency|table]

A killed run goes on where it stopped: results are kept beside OUT. A stage alone does its part and
prints no table: peers and accuracy are no timing and may run on a busy machine, ours and latency may
not. The stage "table" shows and writes what is finished so far. The figures are about the whole set of
CIFAR-10; without --cifar its small part is taken.

neural-compressor's ONNX successor wants numpy below 2: an environment of its own is made for it, and
where that fails its rows say why.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from provenance import provenance

from edgenas.datasets import ImageSet, Preprocessing, load_images
from edgenas.device_profiles import load_profile
from edgenas.measuring import Agent, connect
from edgenas.pipeline.quantize import quantize
from edgenas.pipeline.validate import validate
from edgenas.quantization.decision import changes, latency_ratio, paired_p_value
from edgenas.quantization.device_scoring import Answer, Scorer
from edgenas.quantization.inputs import ImageInputs
from edgenas.quantization.trials import TrialStore, key_of
from edgenas.records import NetworkLatency
from edgenas.workspace import Workspace

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DEVICES = ("local", "local-openvino")
CALIBRATION = {"cifar10": 300, "imagenet": 100}
QUICK_SCORING = {"cifar10": 500, "imagenet": 200}
PASSES, ROUNDS = 6, 6
SAME = 0.05  # of the validated latency: what the chosen one may be off
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


def draw(subject: Subject, seed: int, cifar: Path, scoring: int | None) -> Draw:
    """Calibration images by ``seed``; the scoring images, so many or all, never contain one of them."""
    count = CALIBRATION[subject.data]
    generator = np.random.default_rng(seed)
    if subject.data == "cifar10":
        train, test = (load_images(cifar, part=part) for part in ("train", "test"))
        chosen = np.sort(generator.permutation(len(train))[:count])
        return Draw(train.subset(chosen), test.subset(np.arange(len(test))[:scoring]))
    images = load_images(DATA / "imagenet_1000" / "images", labels=DATA / "imagenet_1000" / "labels.csv")
    order = generator.permutation(len(images))
    others = order[count:][:scoring]
    return Draw(images.subset(np.sort(order[:count])), images.subset(np.sort(others)))


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


def _neural_compressor(model: Path, inputs: ImageInputs, output: Path) -> None:
    """Runs in its own environment: it and its numpy do not get along with ours."""
    samples = output.with_name("neural-compressor.npz")
    np.savez(samples, **inputs.batch(np.arange(len(inputs))))
    script = Path(__file__).with_name("neural_compressor_peer.py")
    done = subprocess.run(
        [sys.executable, str(script), str(model), str(samples), str(output)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    samples.unlink()
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "it ended without a word").splitlines()[-1][:200])


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
        "onnx-neural-compressor": _neural_compressor,
    }


# --- one cell ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One model on one device with one draw of calibration images.

    Attributes:
        folder: what the draw makes, shared by the devices.
    """

    subject: Subject
    device: str
    seed: int
    images: Draw
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.subject.name} on {self.device}, draw {self.seed}"

    @property
    def model(self) -> Path:
        return DATA / "models" / self.subject.file

    @property
    def ours(self) -> Path:
        return self.folder / self.device / "ours.onnx"

    def inputs(self, images: ImageSet) -> ImageInputs:
        return ImageInputs("input", images, self.subject.preprocessing, images.labels)


def make_peers(cell: Cell) -> None:
    """Writes what the peers make, or why they do not."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    for name, make in peers().items():
        output = _peer_path(cell, name)
        reason = output.with_suffix(".failed")
        if output.is_file() or reason.is_file():
            continue
        unfinished = output.with_suffix(".unfinished.onnx")
        try:
            make(cell.model, cell.inputs(cell.images.calibration), unfinished)
            unfinished.replace(output)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
            reason.write_text(f"{type(error).__name__}: {error}".splitlines()[0])


def make_ours(cell: Cell) -> None:
    """Quantizes with the command's own function and keeps what it said."""
    said = cell.ours.with_suffix(".json")
    if said.is_file():
        return
    cell.ours.parent.mkdir(parents=True, exist_ok=True)
    data = cell.ours.with_name("calibration.npz")
    calibration = cell.inputs(cell.images.calibration)
    np.savez(data, **calibration.batch(np.arange(len(calibration))), labels=calibration.labels)
    started = time.monotonic()
    result = quantize(
        cell.model, device=cell.device, calibration=data, output=cell.ours, threads=1, seed=cell.seed,
        workspace=Workspace(cell.ours.parent),
    )  # fmt: skip
    facts = {
        "scheme": result.scheme, "selected_latency_ms": result.latency_ms,
        "selected_float_ms": result.float_latency_ms,
        "seconds": round(time.monotonic() - started, 1), "tried": len(result.tried),
    }  # fmt: skip
    data.unlink()
    said.write_text(json.dumps(facts))


def validate_ours(cell: Cell) -> None:
    """Measures what was chosen as the last stage of a run does, in a process that knows nothing of it."""
    said = cell.ours.with_suffix(".validated.json")
    if said.is_file():
        return
    found = validate(
        cell.ours, device=cell.device, reference=cell.model, threads=1, workspace=Workspace(cell.folder)
    )
    said.write_text(json.dumps({"validated_latency_ms": found.latency_ms}))


class Measured:
    """A cell's files on its device; every answer is kept, so that nothing is asked twice."""

    def __init__(self, cell: Cell, agent: Agent) -> None:
        store = TrialStore(cell.folder / cell.device / "bench.jsonl")
        self._cell, self._scorer = cell, Scorer(agent, store, cell.model, 1)
        made = {name: _peer_path(cell, name) for name in peers()}
        self.files = {"float": cell.model, OURS: cell.ours}
        self.files |= {name: path for name, path in made.items() if path.is_file()}
        self.failures = {
            name: path.with_suffix(".failed").read_text() for name, path in made.items() if not path.is_file()
        }

    def __enter__(self) -> Measured:
        return self

    def __exit__(self, *_: object) -> None:
        self._scorer.__exit__(None, None, None)

    def accuracy(self) -> dict[str, Answer]:
        scoring = self._cell.inputs(self._cell.images.scoring)
        return {name: self._scorer.score(path, scoring, name=name) for name, path in self.files.items()}

    def latency(self) -> list[list[NetworkLatency]]:
        """Passes of the files in their order."""
        return [
            self._scorer.latencies(
                list(self.files.values()), purpose=f"bench pass {number}", rounds=ROUNDS, paired=True
            )
            for number in range(PASSES)
        ]

    def rows(self) -> list[dict[str, Any]]:
        answers, passes = self.accuracy(), self.latency()
        float_passes, our_passes = (_rounds(passes, position) for position in (0, 1))
        assert float_passes is not None and our_passes is not None, "float and ours run on every device"
        labels, ours = self._cell.images.scoring.labels, answers[OURS].score
        assert labels is not None and ours is not None
        rows = []
        for position, (name, path) in enumerate(self.files.items()):
            mine, score = _rounds(passes, position), answers[name].score
            row: dict[str, Any] = {"method": name, "size_bytes": path.stat().st_size}
            if mine is None or score is None:
                failed = next((one[position].error for one in passes if one[position].error), None)
                rows.append({**row, "error": failed or answers[name].error})
                continue
            against = latency_ratio(our_passes, mine, comparisons=len(self.files))
            lost, won = changes(score.predictions, ours.predictions, labels)
            ms, float_ms = (float(np.median(np.concatenate(one))) for one in (mine, float_passes))
            rows.append({
                **row, "latency_ms": ms, "speed": float_ms / ms, "rounds_ms": [list(one) for one in mine],
                "accuracy": float(np.mean(np.array(score.predictions) == labels)), "images": len(labels),
                "ours_only_right": lost, "it_only_right": won, "p_value": paired_p_value(lost, won),
                "latency_over_ours": [against.ratio, against.low, against.high],
            })  # fmt: skip
        return [*rows, *({"method": name, "error": reason} for name, reason in self.failures.items())]


def _peer_path(cell: Cell, name: str) -> Path:
    return cell.folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"


def _rounds(passes: list[list[NetworkLatency]], position: int) -> list[tuple[float, ...]] | None:
    found = [one[position].statistics for one in passes]
    rounds = [statistics.rounds_ms for statistics in found if statistics is not None]
    return rounds if len(rounds) == len(passes) else None


def beaten_by(rows: list[dict[str, Any]]) -> list[str]:
    """Methods that are significantly both faster and more accurate than ours."""
    return [
        row["method"]
        for row in rows
        if "error" not in row and row["method"] != OURS and row["latency_over_ours"][2] < 1.0
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
        if row["method"] == OURS:
            print(f"  {'':42s} {selected(row)}")
    print(f"  both faster and more accurate than ours: {', '.join(beaten_by(rows)) or 'none'}")


def off(row: dict[str, Any]) -> float:
    """How far the latency by which a scheme was chosen is above what validation measured, as a ratio."""
    return float(row["selected_latency_ms"] / row["validated_latency_ms"] - 1.0)


def selected(row: dict[str, Any]) -> str:
    ms, later_ms = row["selected_latency_ms"], row["validated_latency_ms"]
    return f"chosen at {ms:.3f} ms, validated at {later_ms:.3f} ms: {100 * off(row):+.1f} %"


def selections(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """What was chosen, and how right the latency was by which it was, also where no peer was compared."""
    known = [(cell, said) for cell in cells if (said := facts_of(cell)) is not None]
    found = [
        {"model": cell.subject.name, "device": cell.device, "draw": cell.seed, **said, "off": off(said)}
        for cell, said in known
    ]
    if found:
        within = sum(abs(one["off"]) <= SAME for one in found)
        largest = max(abs(one["off"]) for one in found)
        print(f"\nchosen against validated latency: within {SAME:.0%} in {within} of {len(found)} cells, "
              f"at most {largest:.1%} off")  # fmt: skip
    return found


def facts_of(cell: Cell) -> dict[str, Any] | None:
    """What ``quantize`` and ``validate`` said; None before both did."""
    paths = [cell.ours.with_suffix(suffix) for suffix in (".json", ".validated.json")]
    if not all(path.is_file() for path in paths):
        return None
    return {key: value for path in paths for key, value in json.loads(path.read_text()).items()}


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over the draws; prints them too."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        for row in cell["rows"]:
            if "error" not in row:
                groups.setdefault((cell["model"], cell["device"], row["method"]), []).append(row)
    print("\nover the draws: accuracy mean (lowest..highest), speed against float")
    found = []
    for (model, device, method), rows in groups.items():
        accuracy, speed = ([row[key] for row in rows] for key in ("accuracy", "speed"))
        print(
            f"  {model:20s} {device:15s} {method:42s} {np.mean(accuracy):.4f} "
            f"({min(accuracy):.4f}..{max(accuracy):.4f})  {np.mean(speed):.2f}x"
        )
        found.append({
            "model": model, "device": device, "method": method, "draws": len(rows),
            "accuracy": float(np.mean(accuracy)), "lowest": min(accuracy), "highest": max(accuracy),
            "speed": float(np.mean(speed)),
            "chosen_latency_off": max(abs(off(row)) for row in rows) if method == OURS else None,
            "size_mb": float(np.mean([r["size_bytes"] for r in rows])) / 1e6,
            "beats_ours_in_both": sum(method in beaten_by(c["rows"]) for c in cells
                                      if (c["model"], c["device"]) == (model, device)),
        })  # fmt: skip
    return found


STAGES = ("peers", "ours", "accuracy", "latency", "table")


def run_cell(cell: Cell, stage: str | None) -> dict[str, Any] | None:
    """Does a stage of a cell; without one all of them, and returns the cell's result."""
    finished = cell.folder / cell.device / "rows.json"
    if not finished.is_file():
        if stage == "table":
            return None
        if stage in (None, "peers"):
            make_peers(cell)
        if stage in (None, "ours"):
            make_ours(cell)
        if stage in ("peers", "ours"):
            return None
        if stage in (None, "latency"):
            validate_ours(cell)
        with (
            connect(load_profile(cell.device, Workspace(cell.folder))) as agent,
            Measured(cell, agent) as all_,
        ):
            if stage is not None:
                all_.accuracy() if stage == "accuracy" else all_.latency()
                return None
            rows = all_.rows()
        said = facts_of(cell)
        assert said is not None, "both were asked"
        rows = [{**row, **(said if row["method"] == OURS else {})} for row in rows]
        unfinished = finished.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(rows))
        unfinished.replace(finished)
    rows = json.loads(finished.read_text())
    show(cell, rows)
    return {"model": cell.subject.name, "device": cell.device, "draw": cell.seed, "rows": rows}


def cells_of(options: argparse.Namespace, kept: Path) -> Iterator[Cell]:
    wanted = options.model or (["resnet8"] if options.quick else [s.name for s in SUBJECTS])
    for subject in (s for s in SUBJECTS if s.name in wanted):
        for seed in range(1 if options.quick else options.seeds):
            scoring = options.images or (QUICK_SCORING[subject.data] if options.quick else None)
            images = draw(subject, seed, options.cifar, scoring)
            key = key_of(images.calibration.sha256, images.scoring.sha256)[:12]
            folder = kept / f"{subject.name}-{seed}-{key}"
            for device in options.device or DEVICES:
                yield Cell(subject, device, seed, images, folder)


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
    parser.add_argument("--images", type=int, help="score so many images instead of all (slow boards)")
    parser.add_argument("--stage", choices=STAGES, help="do this part alone")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the models and images of development are not here: {DATA}")
    scratch = Path(tempfile.mkdtemp(prefix="edgenas-bench-")) if options.json is None else None
    kept = scratch or options.json.with_suffix(".cells")
    asked = list(cells_of(options, kept))
    found = [run_cell(cell, options.stage) for cell in asked]
    cells = [cell for cell in found if cell is not None]
    if options.stage not in (None, "table"):
        return 0
    rows, chosen = summary(cells), selections(asked)
    if options.json:
        environment = provenance("onnx", "onnxruntime", "openvino", "nncf", "numpy")
        result = {"environment": environment, "summary": rows, "selected": chosen, "cells": cells}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
