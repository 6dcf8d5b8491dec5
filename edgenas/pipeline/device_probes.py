"""Small models by which a device's noise is measured, built from scratch and the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET, _IR_VERSION = 13, 7
_REPEATS = 4


def write_probes(folder: Path) -> list[Path]:
    """Four models of about 0.1 to 5 ms on a small processor: what convolutional networks are made of."""
    kinds: dict[str, Callable[[_Graph], None]] = {
        "dense": lambda graph: graph.convolution(3, groups=1),
        "depthwise": lambda graph: graph.convolution(5, groups=96),
        "pointwise": lambda graph: graph.convolution(1, groups=1),
        "activation": lambda graph: graph.activation(),
    }
    paths = []
    for name, step in kinds.items():
        graph = _Graph(channels=32 if name == "dense" else 96, side=28)
        for _ in range(_REPEATS):
            step(graph)
        path = folder / f"probe-{name}.onnx"
        path.write_bytes(graph.model(name).SerializeToString())
        paths.append(path)
    return paths


class _Graph:
    """A chain of operators over one image."""

    def __init__(self, *, channels: int, side: int) -> None:
        # Every step keeps the number of channels and the size.
        self._shape = [1, channels, side, side]
        self._last = "x"
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._generator = np.random.default_rng(0)

    def convolution(self, kernel: int, *, groups: int) -> None:
        """A convolution and a ReLU."""
        channels = self._shape[1]
        shape = (channels, channels // groups, kernel, kernel)
        values = self._generator.normal(0, 0.05, shape).astype(np.float32)
        weight = f"weight{len(self._nodes)}"
        self._weights.append(numpy_helper.from_array(values, weight))
        self._add("Conv", weight, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, group=groups)
        self._add("Relu")

    def activation(self) -> None:
        """What runtimes compute element by element."""
        self._add("Sigmoid")
        self._add("Tanh")

    def model(self, name: str) -> onnx.ModelProto:
        """The chain as a model from ``x`` to ``y``."""
        self._nodes[-1].output[0] = "y"
        ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, self._shape) for port in "xy"]
        graph = helper.make_graph(self._nodes, name, ports[:1], ports[1:], self._weights)
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="edgenas"
        )

    def _add(self, kind: str, *weights: str, **attributes: object) -> None:
        output = f"t{len(self._nodes)}"
        name = f"{kind.lower()}{len(self._nodes)}/op"
        self._nodes.append(helper.make_node(kind, [self._last, *weights], [output], name=name, **attributes))
        self._last = output
