"""Writes the models that this repository's own gate holds to ``ci/baseline.json``.

    python ci/models.py FOLDER

They are drawn from the built-in search spaces, with random weights: a change to a space, to the ONNX
builder or to a quantized form that makes networks larger or slower shows here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

from edgenas.search_spaces import build_onnx, get_space

SPACES = {"mobilenetv3": "mobilenetv3-demo", "residual": "residual-32px"}
PRECISIONS = ("fp32", "int8")


def own_models() -> dict[str, onnx.ModelProto]:
    """Models by name: of each space the middle network, float and quantized."""
    return {
        f"{name}-{precision}": middle_network(space, precision)
        for name, space in SPACES.items()
        for precision in PRECISIONS
    }


def middle_network(space_name: str, precision: str) -> onnx.ModelProto:
    """The network of the middle options; every layer in one precision where the space has a choice."""
    space = get_space(space_name)
    genome = [
        choice.options.index(precision) if precision in choice.options else len(choice.options) // 2
        for choice in space.choices
    ]
    return build_onnx(space.network(np.array(genome)))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in own_models().items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
