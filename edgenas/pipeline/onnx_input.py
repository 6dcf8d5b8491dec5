"""ONNX files that users bring: read, checked, and their batch fixed to 1."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import onnx

from edgenas.errors import ModelError
from edgenas.quantization.model_checks import DAMAGED_HINT
from edgenas.records import Precision

_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"})
_MAKE_FIXED = "python -m onnxruntime.tools.make_dynamic_shape_fixed"


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file, as it is.

    Raises:
        ModelError: the file is missing, unreadable, no ONNX model, or keeps its weights elsewhere
            in files that are missing or outside its folder.
    """
    if not path.is_file():
        raise ModelError(f"there is no model at {path}", hint="give the path of an .onnx file")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, OSError, TypeError, _decode_error()) as error:
        raise ModelError(
            f"{path} is not a valid ONNX model: {str(error).strip().splitlines()[0]}", hint=DAMAGED_HINT
        ) from error
    return model


def _decode_error() -> type[Exception]:
    """What protobuf raises for bytes that are no message; it publishes no types."""
    error: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    return error


def with_batch_one(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model with a symbolic batch dimension fixed to 1, in place.

    Args:
        model: what ``read_model`` gave.
        path: its file, for messages.

    Raises:
        ModelError: another dimension is dynamic; the hint has the command that fixes it.
    """
    symbols = {_symbol(dimension, axis) for _, axis, dimension in _dynamic(model) if axis == 0}
    for name, axis, dimension in _dynamic(model):
        if axis > 0 and _symbol(dimension, axis) not in symbols:
            raise ModelError(
                f"input '{name}' of {path} has a dynamic dimension {axis} ('{dimension.dim_param or '?'}');"
                " only the batch may be dynamic",
                hint=_fixing_command(name, dimension.dim_param, model, path),
            )
        dimension.dim_value = 1
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim:
            if dimension.dim_param in symbols:
                dimension.dim_value = 1
    return model


def precision_of(model: onnx.ModelProto) -> Precision:
    """``int8`` where any node computes in or converts to integers of eight bits."""
    return "int8" if any(node.op_type in _QUANTIZED for node in model.graph.node) else "fp32"


def _dynamic(model: onnx.ModelProto) -> Iterator[tuple[str, int, onnx.TensorShapeProto.Dimension]]:
    """Dynamic dimensions of the inputs that are no initializers."""
    weights = {initializer.name for initializer in model.graph.initializer}
    for graph_input in model.graph.input:
        if graph_input.name not in weights:
            for axis, dimension in enumerate(graph_input.type.tensor_type.shape.dim):
                if not dimension.HasField("dim_value") or dimension.dim_value <= 0:
                    yield graph_input.name, axis, dimension


def _symbol(dimension: onnx.TensorShapeProto.Dimension, axis: int) -> str:
    return dimension.dim_param or f"axis {axis}"


def _fixing_command(name: str, symbol: str, model: onnx.ModelProto, path: Path) -> str:
    fixed = path.with_name(f"{path.stem}-fixed.onnx")
    if symbol:
        return f"{_MAKE_FIXED} --dim_param {symbol} --dim_value 224 {path} {fixed}"
    ranks = (len(i.type.tensor_type.shape.dim) for i in model.graph.input if i.name == name)
    shape = ",".join(["1", "3", "224", "224"][: next(ranks)])
    return f"{_MAKE_FIXED} --input_name {name} --input_shape {shape} {path} {fixed}"
