"""The float model that quantization starts from: constants and batch norms folded, exact rewrites done."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import helper, version_converter

from edgenas.errors import ModelError
from edgenas.quantization.graph import copy_model, drop_unread_constants, name_nodes
from edgenas.quantization.packing import fits_one_file
from edgenas.quantization.rewrites import rewrite
from edgenas.quantization.runtime_errors import onnxruntime_errors

MINIMUM_OPSET = 14  # scales per channel (13) and HardSwish (14); the same IR version as 13
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """An equivalent float model with named nodes, without batch norms, constants or idle nodes.

    Inputs, outputs, their shapes and the metadata stay as they are.

    Raises:
        ModelError: the model cannot be brought to opset 14, or ONNX Runtime does not accept it.
    """
    prepared = _folded(_at_least_opset(copy_model(model), MINIMUM_OPSET))
    rewrite(prepared)
    name_nodes(prepared)
    drop_unread_constants(prepared)
    del prepared.graph.value_info[:]
    finish(prepared, like=model)
    return prepared


def finish(model: onnx.ModelProto, *, like: onnx.ModelProto) -> None:
    """Gives ``model`` the metadata and the batch dimension of ``like`` and the lowest IR that serves."""
    used = {node.domain for node in model.graph.node}
    kept = [o for o in model.opset_import if o.domain in used | STANDARD_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.ir_version = lowest_ir_version(model)
    model.producer_name = "edgenas"
    for mine, theirs in ((model.graph.input, like.graph.input), (model.graph.output, like.graph.output)):
        originals = {value.name: value for value in theirs}
        for value in mine:
            if value.name in originals:
                value.CopyFrom(originals[value.name])
    helper.set_model_props(model, {entry.key: entry.value for entry in like.metadata_props})


def lowest_ir_version(model: onnx.ModelProto) -> int:
    """The lowest IR version that the model's opsets allow: what the oldest runtimes read."""
    standard = [o for o in model.opset_import if o.domain in STANDARD_DOMAINS]
    return int(helper.find_min_ir_version_for(standard, ignore_unknown=True))


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return max((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), default=1)


def _at_least_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    if opset_of(model) >= opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the model has opset {opset_of(model)}, int8 needs {opset} and it cannot be converted: {error}",
            hint=f"export it again with opset {opset} or later",
        ) from error


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constant folding, batch-norm folding and elimination of idle nodes by ONNX Runtime's basic level."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "folded.onnx"
        large = not fits_one_file(model)
        onnx.save(model, str(source), save_as_external_data=large, location="weights")
        options.optimized_model_filepath = str(target)
        if large:
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", "folded.weights"
            )
        try:
            onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        except onnxruntime_errors() as error:
            raise ModelError(f"ONNX Runtime does not accept the model: {error}") from error
        return onnx.load(str(target))
