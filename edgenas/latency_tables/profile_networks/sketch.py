"""Writes ONNX networks with random weights, float or QDQ, one operator at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_SCALE = 1 / 32
# Calibration gives every tensor a scale of its own, some quantizers one to all that meet in a concatenation:
# where an input's scale is the output's runtimes copy its integers, and replace each of them elsewhere.
_SCALES = (1 / 32, 3 / 64, 1 / 24, 5 / 128, 1 / 40, 3 / 80)
_UNIFIED_SHARE = 1 / 3  # of the networks
_CLIP_SCALE = 6 / 255  # as calibration finds it, so that a kernel takes it in
_UNCHANGED = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity"}
)  # quantizers keep scale and zero point of what only moves
_TYPES = {"u": np.uint8, "s": np.int8}
_NUMBERS = 65_521  # random weights that are repeated; no two channels of ordinary sizes are alike
# Calibration gives their outputs the lowest integer as zero point, by which runtimes know what to fuse.
_NEVER_NEGATIVE = frozenset(
    {
        "Relu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "Softmax",
        "Abs",
        "Sqrt",
        "Exp",
        "Softplus",
        "ReduceL1",
        "ReduceL2",
    }
)


class Sketch:
    """A network being written: operators are added to ``value``, whose shape is ``shape``.

    Args:
        shape: shape of the input, batch first.
        rng: the source of weights.
        int8_scheme: writes every operator between Q and DQ, with these types; float when None.
    """

    def __init__(
        self, shape: tuple[int, ...], rng: np.random.Generator, *, int8_scheme: str | None = None
    ) -> None:
        self.value = "input"
        self.shape = shape
        self._input_shape = shape
        self._rng = rng
        self._numbers = rng.standard_normal(_NUMBERS, np.float32)
        self._scheme = int8_scheme
        self._scales = (_SCALE,) if rng.random() < _UNIFIED_SHARE else _SCALES
        self._ranges: dict[str, tuple[float, int]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[tuple[str, Callable[[], NDArray[Any]]]] = []
        self._shapes: dict[str, tuple[int, ...]] = {"input": shape}
        self.macs = 0.0
        if int8_scheme:
            self.value = self._through_int8("input", "", ())
            self._shapes[self.value] = shape

    def op(
        self,
        kind: str,
        *inputs: str,
        shape: tuple[int, ...] | None = None,
        fused: bool = False,
        **attributes: Any,
    ) -> str:
        """Adds an operator on ``inputs`` (the current value when none) and moves on to its output.

        Args:
            kind: operator of ONNX's default domain.
            inputs: names of values.
            shape: shape of the output, that of the current value when None.
            fused: the next operator is fused with this one, so no Q/DQ stands between.
            attributes: the operator's.
        """
        name = f"op{len(self._nodes)}/{kind.lower()}"
        output = f"{name}_out"
        self._nodes.append(
            helper.make_node(kind, list(inputs or (self.value,)), [output], name=name, **attributes)
        )
        if shape is not None:
            self.shape = shape
        operands = inputs or (self.value,)
        self.value = output if fused or self._scheme is None else self._through_int8(output, kind, operands)
        self._shapes[self.value] = self.shape
        self._count(kind, inputs)
        return self.value

    def split(
        self,
        kind: str,
        count: int,
        *inputs: str,
        shape: tuple[int, ...],
        fused: bool = False,
        **attributes: Any,
    ) -> list[str]:
        """Adds an operator with ``count`` outputs of one shape on the current value; gives their names."""
        name = f"op{len(self._nodes)}/{kind.lower()}"
        outputs = [f"{name}_out{position}" for position in range(count)]
        node = helper.make_node(kind, [self.value, *inputs], outputs, name=name, **attributes)
        self._nodes.append(node)
        if not fused and self._scheme is not None:
            outputs = [self._through_int8(output, kind, (self.value,)) for output in outputs]
        self._shapes |= dict.fromkeys(outputs, shape)
        return outputs

    def shape_of(self, value: str) -> tuple[int, ...]:
        """The shape of an earlier value."""
        return self._shapes[value]

    def go_to(self, value: str) -> None:
        """Makes an earlier value the current one."""
        self.value, self.shape = value, self._shapes[value]

    def weight(self, *shape: int) -> str:
        """A random weight, int8 behind a DequantizeLinear where the network is quantized."""
        spread = 1.0 / math.sqrt(max(math.prod(shape[1:]), 1))
        if self._scheme is None:
            numbers = self._numbers * np.float32(spread)
            return self._later(shape, lambda: np.resize(numbers, shape))
        dtype = _TYPES[self._scheme[2]]
        centre = 128 if dtype is np.uint8 else 0
        largest = float(np.abs(self._numbers).max())
        integers = (np.rint(self._numbers / largest * 127).astype(np.int16) + centre).astype(dtype)
        weight = self._later(shape, lambda: np.resize(integers, shape))
        dequantized = self._dequantized(weight, largest * spread / 127, np.array(centre, dtype))
        self._shapes[dequantized] = shape
        return dequantized

    def bias(self, length: int) -> str:
        """A bias; runtimes fold float biases into their quantized kernels too."""
        return self.constant(self._rng.standard_normal(length).astype(np.float32))

    def constant(self, array: NDArray[Any]) -> str:
        """An initializer."""
        return self._later(array.shape, lambda: array)

    def _later(self, shape: tuple[int, ...], array: Callable[[], NDArray[Any]]) -> str:
        """An initializer that is only made for the finished model."""
        name = f"constant{len(self._initializers)}"
        self._initializers.append((name, array))
        self._shapes[name] = shape
        return name

    def model(self, name: str, *, opset: int, ir_version: int) -> onnx.ModelProto:
        """The finished model; its output is the current value."""
        inputs = helper.make_tensor_value_info("input", TensorProto.FLOAT, self._input_shape)
        outputs = helper.make_tensor_value_info(self.value, TensorProto.FLOAT, self.shape)
        initializers = [numpy_helper.from_array(array(), name) for name, array in self._initializers]
        graph = helper.make_graph(self._nodes, name, [inputs], [outputs], initializers)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=ir_version,
            producer_name="edgenas",
        )

    def _count(self, kind: str, inputs: tuple[str, ...]) -> None:
        """Counts the multiply-accumulates of convolutions and matrix products."""
        if kind in ("Conv", "Gemm", "MatMul"):
            weight = self._shapes[inputs[1]]
            per_output = math.prod(weight[1:]) if kind != "MatMul" else weight[-2]
            self.macs += math.prod(self.shape) * per_output

    def _through_int8(self, value: str, kind: str, operands: tuple[str, ...]) -> str:
        assert self._scheme is not None, "only called in a quantized network"
        dtype = _TYPES[self._scheme[0]]
        scale, above = self._range(kind, operands)
        zero_point = np.array(np.iinfo(dtype).min + above, dtype)
        name = f"op{len(self._nodes)}/quantize"
        inputs = [value, self.constant(np.array(scale, np.float32)), self.constant(zero_point)]
        self._nodes.append(helper.make_node("QuantizeLinear", inputs, [f"{name}_out"], name=name))
        dequantized = self._dequantized(f"{name}_out", scale, zero_point)
        self._ranges[dequantized] = (scale, above)
        return dequantized

    def _range(self, kind: str, operands: tuple[str, ...]) -> tuple[float, int]:
        """Scale of an operator's output, and how far its zero point is above the lowest integer."""
        known = [self._ranges[name] for name in operands if name in self._ranges]
        if known and kind in _UNCHANGED:
            return known[0]
        if known and kind == "Concat":
            return max(known)  # what spans all of them
        if kind == "Clip":
            return _CLIP_SCALE, 0
        return self._scales[len(self._nodes) % len(self._scales)], 0 if kind in _NEVER_NEGATIVE else 128

    def _dequantized(self, value: str, scale: float, zero_point: NDArray[Any]) -> str:
        name = f"op{len(self._nodes)}/dequantize"
        inputs = [value, self.constant(np.array(scale, np.float32)), self.constant(zero_point)]
        self._nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_out"], name=name))
        return f"{name}_out"
