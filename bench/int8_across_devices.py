"""The same int8 models on x86 and ARM processors, and what `edgenas quantize` chooses for each.

ResNet-8 of MLPerf Tiny is quantized with the types and granularities that the quantizer looks at
first; every file is made once and scored on this machine, on an x86 processor of 2013 (AVX2 without
VNNI, emulated by qemu-user where that is installed) and on a virtual ARM board, on the same CIFAR-10
test images, with each processor's own kernels. Then the quantizer chooses for each real or virtual
device from the same calibration images. Latencies of the board are virtual milliseconds: counted
instructions; those of the emulated x86 mean nothing and are not shown. A killed run goes on where it
stopped.

    python bench/int8_across_devices.py [--quick] [--json OUT] [--seeds N] [--device ID]...
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from provenance import provenance

from edgenas.datasets import Preprocessing, load_images
from edgenas.device_profiles import load_profile
from edgenas.measuring import connect
from edgenas.pipeline.device_setup import device_start
from edgenas.pipeline.quantize import quantize
from edgenas.quantization.device_scoring import Scorer, latency_of
from edgenas.quantization.inputs import ImageInputs
from edgenas.quantization.quantizer import Quantizer
from edgenas.quantization.schemes import first_schemes
from edgenas.quantization.trials import TrialStore
from edgenas.units import unit_of
from edgenas.workspace import Workspace

HERE = Path(__file__).parent
DATA = HERE.resolve().parents[1] / "shared" / "data"
MODEL = DATA / "models" / "resnet8_cifar10.onnx"
OLD_X86 = "x86-without-vnni"
EMULATOR = "qemu-x86_64"
DEVICES = ("local", OLD_X86, "virtual-a72")
PREPROCESSING = Preprocessing(height=32, width=32, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
CALIBRATION, SCORING = 100, 200
QUICK_CALIBRATION, QUICK_SCORING = 40, 40


class Images:
    """Inputs by purpose; calibration images are training images, scoring images test images."""

    def __init__(self, seed: int, *, quick: bool) -> None:
        train, test = (load_images(DATA / "cifar10_small.npz", part=part) for part in ("train", "test"))
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.permutation(len(train))[: QUICK_CALIBRATION if quick else CALIBRATION])
        scored = test.subset(np.arange(QUICK_SCORING if quick else SCORING))
        self.calibration = ImageInputs("input", train.subset(chosen), PREPROCESSING, train.labels[chosen])
        self.scoring = ImageInputs("input", scored, PREPROCESSING, scored.labels)


def add_old_x86(folder: Path) -> None:
    """A device whose agent runs on an emulated Haswell, which has AVX2 and no VNNI."""
    python = folder / "old-x86-python"
    python.write_text(f'#!/bin/sh\nexec {EMULATOR} -cpu Haswell {sys.executable} "$@"\n')
    python.chmod(0o755)
    profiles = Workspace(folder).device_profiles
    profiles.mkdir(parents=True, exist_ok=True)
    (profiles / f"{OLD_X86}.toml").write_text(
        f'description = "Haswell, emulated"\nconnection = "local"\npython = "{python.resolve()}"\n'
    )


def made(images: Images, folder: Path) -> dict[str, Path]:
    """The float model and one file for each scheme, the same for every device."""
    loaded = onnx.load(str(MODEL))
    loaded.graph.ClearField("value_info")
    quantizer = Quantizer(loaded, images.calibration)
    files = {"float": MODEL}
    for scheme in first_schemes():
        files[scheme.name] = folder / f"{scheme.name}.onnx"
        if not files[scheme.name].is_file():
            onnx.save(quantizer.quantize(scheme), str(files[scheme.name]))
    return files


def scored(device: str, files: dict[str, Path], images: Images, folder: Path) -> dict[str, dict[str, Any]]:
    """Accuracy, classes and latency of every file on one device."""
    profile = load_profile(device, Workspace(folder))
    store = TrialStore(folder / f"{device}.trials.jsonl")
    rows: dict[str, dict[str, Any]] = {}
    with connect(profile) as agent, Scorer(agent, store, MODEL, 1) as scorer:
        latencies: dict[str, float | None] = dict.fromkeys(files)
        if device != OLD_X86:
            measured = scorer.latencies(list(files.values()), purpose="bench", rounds=12)
            latencies = dict(zip(files, map(latency_of, measured), strict=True))
        for name, path in files.items():
            answer = scorer.score(path, images.scoring, name=name)
            classes = list(answer.score.predictions) if answer.score else None
            rows[name] = {
                "latency_ms": latencies[name],
                "virtual_clock": agent.environment.virtual_clock,
                "classes": classes,
                "accuracy": None if classes is None else float(np.mean(classes == images.scoring.labels)),
                "error": answer.error,
            }
        rows["environment"] = agent.environment.to_dict()
    return rows


def chosen(device: str, images: Images, folder: Path) -> dict[str, Any]:
    """What the quantizer chooses on one device, with every trial and its reason."""
    data, kept = folder / "calibration.npz", folder / f"{device}.choice.json"
    if not kept.is_file():
        everything = images.calibration.batch(np.arange(len(images.calibration)))
        np.savez(data, **everything, labels=images.calibration.labels)
        result = quantize(
            MODEL, device=device, calibration=data, output=folder / device / "chosen.onnx", threads=1,
            workspace=Workspace(folder),
        )  # fmt: skip
        kept.write_text(result.to_json())
    return {key: value for key, value in json.loads(kept.read_text()).items() if "output" not in key}


def show(results: dict[str, Any]) -> None:
    scores = results["scores"]
    for device, rows in scores.items():
        found = rows["environment"]
        processor = "Haswell, emulated: AVX2 without VNNI" if device == OLD_X86 else found["cpu_model"]
        unit = "virtual ms: counted instructions" if found["virtual_clock"] else "ms"
        print(f"{device}: {processor}, {found['runtime']} {found['runtime_version']}, {unit}")
    print(f"\n{results['scoring_images']} images; in brackets the share given the class that the first gives")
    print(f"{'scheme':28}" + "".join(f"{device:>34}" for device in scores))
    first = next(iter(scores.values()))
    for name in (one for one in first if one != "environment"):
        print(f"{name:28}" + "".join(f"{_cell(rows[name], first[name]):>34}" for rows in scores.values()))
    for device, choice in results["choices"].items():
        reason = next((t["reason"] for t in choice["tried"] if t["scheme"] == choice["scheme"]), "")
        print(f"\n{device} chooses {choice['scheme']}: {reason}")
        for warning in choice["warnings"]:
            print(f"  {warning}")


def summary(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each file and device, and what each device's quantizer chose."""
    scores = results["scores"]
    first = next(iter(scores.values()))
    rows = [
        {"scheme": name, "device": device, "accuracy": row["accuracy"],
         "same class as the first": float(np.mean(np.equal(row["classes"], first[name]["classes"]))),
         "latency": _latency(row["latency_ms"], virtual=row["virtual_clock"])}
        for name in first if name != "environment"
        for device, row in ((one, scores[one][name]) for one in scores)
        if row["classes"] is not None
    ]  # fmt: skip
    return rows + [
        {"scheme": f"chosen: {choice['scheme']}", "device": device, "accuracy": choice["accuracy"],
         "same class as the first": None,
         "latency": _latency(choice["latency_ms"], virtual=choice["virtual_clock"])}
        for device, choice in results["choices"].items()
    ]  # fmt: skip


def _latency(latency_ms: float | None, *, virtual: bool) -> str:
    return "-" if latency_ms is None else f"{latency_ms:.3f} {unit_of(virtual=virtual)}"


def _cell(row: dict[str, Any], first: dict[str, Any]) -> str:
    if row["classes"] is None:
        return "failed"
    latency = row["latency_ms"]
    shown = "" if latency is None else f" {_latency(latency, virtual=row['virtual_clock'])}"
    same = "" if row is first else f" ({np.mean(np.equal(row['classes'], first['classes'])):.1%})"
    return f"{row['accuracy']:.2%}{same}{shown}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "int8_across_devices.json")
    parser.add_argument("--seeds", type=int, default=1, help="the seed of the calibration images is one less")
    parser.add_argument("--device", action="append")
    parser.add_argument("--workspace", type=Path, default=Path("runs") / "int8_across_devices")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the models and images of development are not here: {DATA}")
    images = Images(arguments.seeds - 1, quick=arguments.quick)
    folder = arguments.workspace / f"{'quick' if arguments.quick else 'full'}-{arguments.seeds - 1}"
    folder.mkdir(parents=True, exist_ok=True)
    files = made(images, folder)
    results: dict[str, Any] = {
        "bench": "int8_across_devices",
        "environment": provenance("numpy", "onnx", "onnxruntime"),
        "calibration_images": len(images.calibration),
        "scoring_images": len(images.scoring),
        "labels": images.scoring.labels.tolist(),
        "scores": {},
        "choices": {},
    }
    wanted = arguments.device or [one for one in DEVICES if one != OLD_X86 or shutil.which(EMULATOR)]
    if OLD_X86 in wanted:
        add_old_x86(folder)
    for device in wanted:
        if load_profile(device, Workspace(folder)).virtual:
            device_start(device)
        results["scores"][device] = scored(device, files, images, folder)
        if device != OLD_X86:
            results["choices"][device] = chosen(device, images, folder)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    results["summary"] = summary(results)
    arguments.json.write_text(json.dumps(results, indent=1))
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
