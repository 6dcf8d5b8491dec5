"""Models as single files: what travels to a device and what is shipped."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from edgenas.errors import ModelError
from edgenas.files import write_atomically


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Writes ``model`` as one file; it appears under its name only when it is whole.

    Raises:
        ModelError: it is too large for one.
    """
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ModelError(f"the model has {model.ByteSize()} bytes; one ONNX file holds 2 GB at most")
    write_atomically(path, model.SerializeToString())


def one_file(model: onnx.ModelProto, path: Path, folder: Path) -> Path:
    """``path``, or a copy in ``folder`` that has the external weights of ``model`` inside.

    Raises:
        ModelError: the model is too large for one file.
    """
    parsed = onnx.load(str(path), load_external_data=False)
    if not any(uses_external_data(tensor) for tensor in parsed.graph.initializer):
        return path
    write_model(model, folder / path.name)
    return folder / path.name
