"""Quantizes one model with onnx-neural-compressor, in an environment of its own.

    python bench/neural_compressor_peer.py MODEL.onnx SAMPLES.npz OUTPUT.onnx

Makes ``.venv-neural-compressor`` where it is not there yet. ``bench/quantize.py`` calls this.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ENVIRONMENT = Path(__file__).resolve().parents[1] / ".venv-neural-compressor"
WANTED = ["onnx-neural-compressor==1.0", "numpy<2", "scipy", "prettytable"]  # it does not name the last two


def interpreter() -> Path:
    """The environment's Python, made on the first call."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "ready").is_file():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *WANTED], check=True)
        (ENVIRONMENT / "ready").touch()
    return python


def quantize(model: str, samples: str, output: str) -> None:
    """Runs inside the environment."""
    import numpy as np
    import onnx
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import QuantFormat, config
    from onnx_neural_compressor.quantization import quantize as peer

    class Reader(data_reader.CalibrationDataReader):
        def __init__(self) -> None:
            arrays = dict(np.load(samples))
            count = len(next(iter(arrays.values())))
            self._feeds = [{name: a[i : i + 1] for name, a in arrays.items()} for i in range(count)]
            self.rewind()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._next, None)

        def rewind(self) -> None:
            self._next = iter(self._feeds)

    wanted = config.StaticQuantConfig(calibration_data_reader=Reader(), quant_format=QuantFormat.QDQ)
    with tempfile.TemporaryDirectory() as folder:  # it keeps the weights in a file beside the model
        beside = str(Path(folder) / "model.onnx")
        peer(model, beside, wanted)
        onnx.save(onnx.load(beside), output)


if __name__ == "__main__":
    if Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        quantize(*sys.argv[1:])
    else:
        sys.exit(subprocess.run([interpreter(), __file__, *sys.argv[1:]], check=False).returncode)
