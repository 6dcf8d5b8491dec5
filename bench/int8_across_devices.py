"""The same int8 models on an x86 and an ARM processor, and what `edgenas quantize` chooses for each.

ResNet-8 of MLPerf Tiny is quantized with the types and granularities that the quantizer looks at
first; every file is made once and scored on this machine and on a virtual ARM board, on the same
CIFAR-10 test images, with each device's own kernels. Then the quantizer chooses for each device from
the same calibration images. Latencies of the board are virtual milliseconds: counted instructions. A
killed run goes on where it stopped.

    python bench/int8_across_devices.py [--quick] [--json OUT] [--seeds N] [--device ID]...
"""

from __future__ import annotations

import argparse
import json
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
from edgenas.workspace import Workspace

HERE = Path(__file__).parent
DATA = HERE.resolve().parents[1] / "shared" / "data"
MODEL = DATA / "models" / "resnet8_cifar10.onnx"
DEVICES = ("local", "virtual-a72")
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
        latencies = scorer.latencies(list(files.values()), purpose="bench", rounds=12)
        for (name, path), latency in zip(files.items(), latencies, strict=True):
            answer = scorer.score(path, images.scoring, name=name)
            classes = list(answer.score.predictions) if answer.score else None
            rows[name] = {
                "latency_ms": latency_of(latency),
                "virtual_clock": agent.environment.virtual_clock,
                "classes": classes,
                "accuracy": None if classes is None else float(np.mean(classes == images.scoring.labels)),
                "error": answer.error or latency.error,
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
    return json.loads(kept.read_text())


def show(results: dict[str, Any]) -> None:
    devices = list(results["scores"])
    for device in devices:
        found = results["scores"][device]["environment"]
        unit = "virtual ms: counted instructions" if found["virtual_clock"] else "ms"
        print(f"{device}: {found['cpu_model']}, {found['runtime']} {found['runtime_version']}, {unit}")
    print(
        f"\n{'scheme':26}" + "".join(f"{device + ' accuracy':>24}{'latency':>16}" for device in devices),
        end="",
    )
    print(f"{'same class':>12}")
    first, second = (results["scores"][device] for device in devices[:2])
    for name in (one for one in first if one != "environment"):
        cells = ""
        for device in devices:
            row = results["scores"][device][name]
            unit = "virtual ms" if row["virtual_clock"] else "ms"
            cells += f"{_percent(row['accuracy']):>24}{_ms(row['latency_ms'], unit):>16}"
        classes = [one[name]["classes"] for one in (first, second)]
        same = None if None in classes else float(np.mean(np.array(classes[0]) == np.array(classes[1])))
        print(f"{name:26}{cells}{_percent(same):>12}")
    for device in devices:
        choice = results["choices"][device]
        reason = next((t["reason"] for t in choice["tried"] if t["scheme"] == choice["scheme"]), "")
        print(f"\n{device} chooses {choice['scheme']}: {reason}")
        for warning in choice["warnings"]:
            print(f"  {warning}")


def _percent(share: float | None) -> str:
    return "failed" if share is None else f"{share:.2%}"


def _ms(latency: float | None, unit: str) -> str:
    return "-" if latency is None else f"{latency:.3f} {unit}"


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
    for device in arguments.device or DEVICES:
        if load_profile(device, Workspace(folder)).virtual:
            device_start(device)
        results["scores"][device] = scored(device, files, images, folder)
        results["choices"][device] = chosen(device, images, folder)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=1))
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
