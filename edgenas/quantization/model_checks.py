"""Reads an ONNX file that somebody brought, and says no before anything strange can happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from edgenas.errors import ModelError

QUANTIZED_OPS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
        "ConvInteger", "MatMulInteger", "QLinearAdd", "QGemm", "MatMulNBits", "DynamicQuantizeMatMul",
    }
)  # fmt: skip
WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"})
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})

DAMAGED_HINT = "copy or export it again: the file is cut off, damaged, or something else"


def load_model(path: Path) -> onnx.ModelProto:
    """The model in ``path`` with its external data, checked for everything but its inputs' shapes.

    Raises:
        ModelError: the file is missing, no ONNX model, inconsistent, or points outside its folder.
    """
    model = _parse(path)
    check_external_data(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path} is not a valid ONNX model: {_first_line(error)}", hint=DAMAGED_HINT
        ) from error
    return model


def check_quantizable(model: onnx.ModelProto, path: Path) -> None:
    """Refuses what quantization cannot start from.

    Raises:
        ModelError: already quantized, weights that are not finite, or a dynamic dimension beside the batch.
    """
    check_not_quantized(model, path)
    check_finite(model, path)
    check_shapes(model, path)


def check_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Every file that holds weights must lie inside the model's folder.

    Raises:
        ModelError: one is outside, or missing.
    """
    folder = path.parent.resolve()
    for tensor in filter(uses_external_data, tensors_of(model.graph)):
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        target = (folder / location).resolve()
        if not location or not target.is_relative_to(folder):
            raise ModelError(
                f"{path} keeps the weight '{tensor.name}' in '{location}', outside its own folder",
                hint="put the data file beside the model",
            )
        if not target.is_file():
            raise ModelError(f"{path} keeps the weight '{tensor.name}' in '{location}', which is not there")


def check_not_quantized(model: onnx.ModelProto, path: Path) -> None:
    """Refuses a model that has integer arithmetic in it.

    Raises:
        ModelError: it has.
    """
    found = Counter(node.op_type for node in model.graph.node if node.op_type in QUANTIZED_OPS)
    if found:
        listed = ", ".join(f"{count} {op}" for op, count in found.most_common(4))
        raise ModelError(
            f"{path} is already quantized: it has {listed}",
            hint="quantize the float model it was made from; measure this one with 'edgenas validate'",
        )


def check_finite(model: onnx.ModelProto, path: Path) -> None:
    """No constant may be NaN and no weight infinite; infinite limits and masks are meant as they are.

    Raises:
        ModelError: a weight holds NaN or infinity; it is named.
    """
    weights = {name for node in model.graph.node if node.op_type in WEIGHTED_OPS for name in node.input}
    for tensor in tensors_of(model.graph):
        if tensor.data_type not in FLOATS:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32, copy=False)
        wrong = np.isnan(values) if tensor.name not in weights else ~np.isfinite(values)
        if wrong.any():
            raise ModelError(
                f"{path}: {np.count_nonzero(wrong)} of {values.size} values of the weight '{tensor.name}' "
                "are NaN or infinite",
                hint="export the model again from a checkpoint that trained well",
            )


def check_shapes(model: onnx.ModelProto, path: Path) -> None:
    """Every input must have known dimensions but for the first, the batch.

    Raises:
        ModelError: another dimension is dynamic; the hint has the command that fixes it.
    """
    for value in real_inputs(model):
        if not value.type.HasField("tensor_type"):
            raise ModelError(f"{path}: the input '{value.name}' is not a tensor")
        dimensions = value.type.tensor_type.shape.dim
        for position, dimension in enumerate(dimensions):
            if position > 0 and known_size(dimension) is None:
                shown = [known_size(d) or d.dim_param or "?" for d in dimensions]
                raise ModelError(
                    f"{path}: dimension {position} of the input '{value.name}' {shown} is dynamic; "
                    "only the batch may be",
                    hint=_fixing_command(path, value.name, dimension.dim_param, shown),
                )


def known_size(dimension: onnx.TensorShapeProto.Dimension) -> int | None:
    """The size of a dimension; None where it is symbolic, which some exporters write as -1."""
    return int(dimension.dim_value) if dimension.dim_value > 0 else None


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller feeds: those without an initializer of the same name."""
    given = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in given]


def input_types(model: onnx.ModelProto) -> dict[str, np.dtype[Any]]:
    """The type of the numbers that each input takes."""
    return {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in real_inputs(model)
    }


def tensors_of(graph: onnx.GraphProto) -> Iterable[onnx.TensorProto]:
    """All constant tensors: initializers, attributes, and those of inner graphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from tensors_of(inner)


def _parse(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror or error}", hint="give the path of an .onnx file"
        ) from error
    except DecodeError as error:
        raise ModelError(f"{path} is not an ONNX model: {error}", hint=DAMAGED_HINT) from error
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError(f"{path} is not an ONNX model: it has no graph", hint=DAMAGED_HINT)
    return model


def _fixing_command(path: Path, name: str, parameter: str, shown: list[object]) -> str:
    tool = "python -m onnxruntime.tools.make_dynamic_shape_fixed"
    fixed = path.with_name(f"{path.stem}-fixed.onnx")
    names = {d for i, d in enumerate(shown) if i > 0 and isinstance(d, str)}
    if parameter and names == {parameter}:
        return f"fix it: {tool} --dim_param {parameter} --dim_value SIZE {path} {fixed}"
    sizes = ",".join("1" if i == 0 else str(d) if isinstance(d, int) else "SIZE" for i, d in enumerate(shown))
    return f"fix it: {tool} --input_name {name} --input_shape {sizes} {path} {fixed}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
