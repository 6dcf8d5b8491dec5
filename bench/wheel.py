"""Builds the wheel, installs it without extras in an empty environment, and runs what must run there.

    python bench/wheel.py [--quick] [--json OUT] [--seeds N]

The environment is made in a temporary folder outside the tree and has no torch. ``--quick`` profiles
for five seconds instead of thirty; more seeds run the commands again with other data.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
PREPARE = """
import importlib.util, pathlib, sys
import numpy
import edgenas
from edgenas.search_spaces import build_onnx, get_space

assert importlib.util.find_spec("torch") is None, "torch is installed"
assert pathlib.Path(sys.prefix) in pathlib.Path(edgenas.__file__).parents, "not the installed package"
rng = numpy.random.default_rng(int(sys.argv[1]))
space = get_space("dense-demo")
model = build_onnx(space.network(space.sample(rng, 1)[0]), precision=False)
pathlib.Path("model.onnx").write_bytes(model.SerializeToString())
images = rng.integers(0, 256, (200, 48, 48, 3)).astype("uint8")
labels = numpy.arange(200) % 10
numpy.savez("images.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
"""


def commands(profile_s: int) -> list[list[str]]:
    """What must run without torch."""
    device = ["--device", "local", "--threads", "1"]
    return [
        ["--help"],
        ["device", "check", "local"],
        ["profile", *device, "--space", "dense-demo", "--precision", "fp32", "--time-limit", f"{profile_s}s"],
        ["predict", "model.onnx", *device],
        ["quantize", "model.onnx", *device, "--calibration", "images.npz", "--output", "quantized.onnx"],
    ]


def installed(folder: Path) -> Path:
    """The folder of scripts of an environment that has the wheel and what it needs, nothing more."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT],
        check=True,
    )
    wheel = next(folder.glob("*.whl"))
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / "bin"
    constraints = ["--constraint", ROOT / "constraints.txt"]
    subprocess.run([scripts / "pip", "install", "--quiet", *constraints, wheel], check=True)
    return scripts


def run_all(scripts: Path, folder: Path, seed: int, profile_s: int) -> list[dict[str, Any]]:
    """Every command in an empty workspace: its exit code, seconds and last line."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([scripts / "python", "-c", PREPARE, str(seed)], cwd=folder, env=environment, check=True)
    rows = []
    for words in commands(profile_s):
        started = time.monotonic()
        done = subprocess.run(
            [scripts / "edgenas", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = (done.stdout.strip() or done.stderr.strip()).replace(f"{folder}/", "").splitlines()
        rows.append(
            {
                "seed": seed,
                "command": " ".join(["edgenas", *words]),
                "exit_code": done.returncode,
                "elapsed_s": round(time.monotonic() - started, 2),
                "last_line": said[-1].strip() if said else "",
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgenas-wheel-") as name:
        folder = Path(name)
        scripts = installed(folder)
        for seed in range(options.seeds):
            rows += run_all(scripts, folder / f"workspace-{seed}", seed, 5 if options.quick else 30)
    print(f"{'exit':>4} {'s':>6}  command")
    for row in rows:
        print(f"{row['exit_code']:>4} {row['elapsed_s']:>6.1f}  {row['command']}\n{'':>13}{row['last_line']}")
    if options.json:
        result = {"environment": provenance("onnxruntime", "onnx", "numpy"), "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(row["exit_code"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
