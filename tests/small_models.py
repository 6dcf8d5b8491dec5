"""Models, arrays and stand-in interpreters that the tests of measuring share."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

QUICK: dict[str, Any] = {"threads": 1, "min_rounds": 3, "max_rounds": 3}


def write_model(
    path: Path, *, width: int = 8, batch: int | str = 1, side: int | str = 8, seed: int = 0
) -> Path:
    """Convolution, ReLU, mean, from (batch, 3, side, side) to (batch, width)."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(0, 0.1, (width, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["stem/a"], name="stem/conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["stem/a"], ["stem/b"], name="stem/act"),
        helper.make_node("ReduceMean", ["stem/b"], ["y"], name="head/mean", axes=[2, 3], keepdims=0),
    ]
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width]),
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, str(path))
    return path


def write_images(path: Path, count: int, side: int = 8) -> npt.NDArray[np.float32]:
    images = np.random.default_rng(1).random((count, 3, side, side), dtype=np.float32)
    np.save(path, images)
    return images


def executable(path: Path, text: str) -> str:
    """A script that stands for the interpreter on a device."""
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
