"""Runs a model on the host in batches to look at its inner tensors; never for timing or accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgenas.errors import DataError, ModelError
from edgenas.quantization.graph import copy_model
from edgenas.quantization.inputs import Batch, Inputs
from edgenas.quantization.model_checks import known_size, real_inputs
from edgenas.quantization.packing import fits_one_file, write_model
from edgenas.quantization.runtime_errors import onnxruntime_errors

BATCH_BYTES = 48 * 2**20
LARGEST_BATCH = 32
Arrays = dict[str, npt.NDArray[Any]]


def run_batches(
    model: onnx.ModelProto, tensors: Sequence[str], inputs: Inputs, *, fused: bool = True
) -> Iterator[Arrays]:
    """The values of ``tensors`` batch by batch; a batch is as large as bounded memory allows.

    A first sample alone tells how much memory one needs. A model with a fixed batch gets that one,
    its last batch filled up with samples again.

    Args:
        fused: with graph optimisation; without, QDQ nodes are executed one by one in float.

    Raises:
        DataError: the samples do not fit the model's inputs.
        ModelError: ONNX Runtime cannot run the model.
    """
    session = _session(with_outputs(model, tensors), fused)
    fixed = fixed_batch(model)
    start, size = 0, fixed or 1
    while start < len(inputs):
        feed = inputs.batch(np.arange(start, min(start + size, len(inputs))))
        if start == 0:
            check_feed(feed, model)
        values = _run(session, tensors, _filled(feed, fixed))
        yield values
        start += size
        if fixed is None and size == 1:
            held = sum(value.nbytes for value in values.values())
            size = int(np.clip(BATCH_BYTES // max(held, 1), 1, LARGEST_BATCH))


def with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy whose outputs are ``tensors``, their types left to the runtime."""
    copied = copy_model(model)
    del copied.graph.output[:]
    copied.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return copied


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The batch size that the model's inputs demand; None where it is symbolic."""
    for value in real_inputs(model):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and known_size(dimensions[0]) is not None:
            return known_size(dimensions[0])
    return None


def check_feed(feed: Batch, model: onnx.ModelProto) -> None:
    """Compares samples with what the model's inputs are declared as.

    Raises:
        DataError: a shape differs; both are named.
    """
    declared: Mapping[str, onnx.ValueInfoProto] = {value.name: value for value in real_inputs(model)}
    for name, value in declared.items():
        wanted = [d.dim_value or d.dim_param or "?" for d in value.type.tensor_type.shape.dim]
        if name not in feed:
            raise DataError(f"the model wants the input '{name}' {wanted}; there are {', '.join(feed)}")
        found = feed[name].shape
        fits = len(found) == len(wanted) and all(
            not isinstance(w, int) or w == f for w, f in zip(wanted[1:], found[1:], strict=True)
        )
        if not fits:
            raise DataError(
                f"the model's input '{name}' is {wanted}, the samples have the shape {list(found[1:])} each",
                hint="set --input-size, --layout and --channels to what the model was trained with",
            )


def _session(model: onnx.ModelProto, fused: bool) -> Any:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            source = _readable(model, Path(folder) / "model.onnx")
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except onnxruntime_errors() as error:
        raise ModelError(f"ONNX Runtime does not accept the model: {error}") from error


def _readable(model: onnx.ModelProto, path: Path) -> bytes | str:
    """The model itself, or ``path`` where it is too large to be handed over."""
    if fits_one_file(model):
        return bytes(model.SerializeToString())
    write_model(model, path)
    return str(path)


def _run(session: Any, tensors: Sequence[str], feed: Batch) -> Arrays:
    try:
        found = session.run(list(tensors), feed)
    except onnxruntime_errors() as error:
        raise ModelError(f"ONNX Runtime cannot run the model: {error}") from error
    return dict(zip(tensors, found, strict=True))


def _filled(feed: Batch, fixed: int | None) -> Batch:
    if fixed is None:
        return feed
    return {name: np.resize(array, (fixed, *array.shape[1:])) for name, array in feed.items()}
