"""Peak memory of calibrating with 10,000 images beside 100: calibration streams, so they are to be alike.

    python bench/calibration_memory.py [--quick] [--json OUT] [--seeds N]

Each count runs in a process of its own, once from an image folder and once from an array file of
floats; what is compared is the largest resident set of the process. The model is MLPerf Tiny's ResNet-8.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from provenance import provenance

from edgenas.agent.environment import resident_bytes

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "models" / "resnet8_cifar10.onnx"
COUNTS = (100, 10_000)
SIZE = 32
LIMIT = 1.3


def write_samples(source: str, count: int, folder: Path, seed: int) -> Path:
    """Random images: an array file in one piece of whole floats, or a folder of PNG files."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    if source == "array file":
        np.savez(folder / "samples.npz", input=pixels.transpose(0, 3, 1, 2).astype(np.float32))
        return folder / "samples.npz"
    from PIL import Image

    (folder / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "images" / f"{number:05d}.png", compress_level=1)
    return folder / "images"


def calibrated_bytes(samples: Path) -> int:
    """Calibrates in this process; returns its largest resident set."""
    from edgenas.quantization.calibration import calibrate
    from edgenas.quantization.model_checks import load_model
    from edgenas.quantization.preparation import prepare
    from edgenas.quantization.samples import PreprocessingOptions, load_inputs

    model = load_model(MODEL)
    inputs = load_inputs(model, samples, PreprocessingOptions(scale=1.0))
    found = calibrate(prepare(model), inputs)
    assert found.samples == len(inputs)
    # Not getrusage's: a process inherits the largest set of the one that started it.
    return resident_bytes("VmHWM")


def measure(source: str, count: int, seed: int) -> int:
    with tempfile.TemporaryDirectory(prefix="edgenas-bench-") as folder:
        samples = write_samples(source, count, Path(folder), seed)
        command = [sys.executable, __file__, "--calibrate", str(samples)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 images instead of 10,000")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="repetitions")
    parser.add_argument("--calibrate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.calibrate:
        print(calibrated_bytes(options.calibrate))
        return 0
    if not MODEL.is_file():
        sys.exit(f"the models of development are not here: {MODEL}")
    rows = []
    for source in ("array file", "image folder"):
        few, many = COUNTS[0], 1000 if options.quick else COUNTS[1]
        seeds = range(1 if options.quick else options.seeds)
        peaks = {count: [measure(source, count, seed) for seed in seeds] for count in (few, many)}
        ratio = float(np.median(peaks[many]) / np.median(peaks[few]))
        rows.append({"source": source, "images": many, "ratio": round(ratio, 3), "peak_bytes": peaks})
        print(
            f"{source:14s} {few} images {np.median(peaks[few]) / 1e6:7.1f} MB, {many} images "
            f"{np.median(peaks[many]) / 1e6:7.1f} MB: {ratio:.2f}x (limit {LIMIT})"
        )
    if options.json:
        environment = provenance("onnx", "onnxruntime", "numpy")
        options.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
