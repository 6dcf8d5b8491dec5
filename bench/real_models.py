"""Real ONNX networks to judge default profiles by: those at hand, and what installed packages carry.

Every one also comes in a QDQ form, per tensor, prepared as ONNX Runtime's guide says (normalisation folded
into convolutions) and calibrated on two random inputs: only its latency counts.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgenas.errors import EdgeNASError
from edgenas.pipeline.onnx_input import read_model, with_batch_one

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data" / "models"
MOST_WEIGHTS_MB = 700


def real_models(folder: Path, more: list[Path]) -> Iterator[Path]:
    """Files of all models that can be measured, written to ``folder``: float, then QDQ.

    Args:
        folder: takes the files; what is there is not written again.
        more: further folders that are searched for .onnx files, with what is below them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = [*sorted(SHARED.glob("*.onnx")), *_light()]
    sources += [path for place in more for path in sorted(place.rglob("*.onnx"))]
    for source in sources:
        path = folder / f"{source.stem.removeprefix('light_')}.onnx"
        quantized = path.with_stem(f"{path.stem}-int8")
        try:
            if not path.exists():
                _write(source, path)
            yield path
            if not quantized.exists():
                _quantize(path, quantized)
            yield quantized
        except (EdgeNASError, onnx.checker.ValidationError) as error:
            print(f"{source.name} is left out: {error}", file=sys.stderr)


def _light() -> list[Path]:
    """Architectures that the onnx package carries, with made-up weights."""
    return sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


def _write(source: Path, path: Path) -> None:
    """The model with a batch of one and its weights as initializers.

    Raises:
        EdgeNASError: it has another dynamic dimension, or its weights are too many to be of use.
    """
    model = _with_weights(with_batch_one(read_model(source), source))
    if model.ByteSize() > MOST_WEIGHTS_MB * 1e6:
        raise EdgeNASError(f"{source} has more than {MOST_WEIGHTS_MB} MB")
    onnx.save(model, path)


def _with_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """``ConstantOfShape`` nodes, in place of weights, as random initializers."""
    known = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    rng, kept = np.random.default_rng(0), []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in known:
            kept.append(node)
            continue
        shape = known[node.input[0]]
        array = (rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)
        model.graph.initializer.append(
            numpy_helper.from_array(np.abs(array) if len(shape) == 1 else array, node.output[0])
        )
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    weights = [one for one in model.graph.initializer if one.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    names = {one.name for one in weights}
    # What the weights' shapes were read from is read no more; runtimes look at every input in every run.
    inputs = [one for one in model.graph.input if one.name in used - names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)  # older ones want weights among the inputs
    return model


def _quantize(path: Path, quantized: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Random(CalibrationDataReader):
        def __init__(self) -> None:
            graph, rng = onnx.load(path).graph, np.random.default_rng(0)
            self._left = [{one.name: _random(one, rng) for one in graph.input} for _ in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self._left.pop() if self._left else None

    with tempfile.TemporaryDirectory() as place:
        modern = Path(place) / "modern.onnx"
        model = onnx.load(path)
        if model.opset_import[0].version < 13:
            model = onnx.version_converter.convert_version(model, 13)
        onnx.save(model, modern)
        prepared = Path(place) / "prepared.onnx"
        quant_pre_process(modern, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, quantized, Random(), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip


def _random(value: onnx.ValueInfoProto, rng: np.random.Generator) -> np.ndarray:
    kind = value.type.tensor_type
    shape = [one.dim_value for one in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return rng.random(shape).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)
