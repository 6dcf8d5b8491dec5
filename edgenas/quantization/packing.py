"""Models as files: one where protobuf allows it, else the graph with its weights beside it.

A protobuf message holds 2 GB at most. The weights of a larger model stand in a second file that is
named by its own hash, as everything is named in a device's cache: so both can travel, and the runtime
there finds one beside the other.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data, uses_external_data

from edgenas.errors import ModelError
from edgenas.files import replaced, write_atomically
from edgenas.measuring import Agent
from edgenas.quantization.graph import is_light, light_copy, tensor_bytes

LARGEST_BYTES = int(onnx.checker.MAXIMUM_PROTOBUF)
GRAPH_BYTES = 2**25  # of a large model's file that are not weights, at most


def fits_one_file(model: onnx.ModelProto) -> bool:
    """Whether ``model`` can be one protobuf message."""
    weights = sum(tensor_bytes(tensor) for tensor in model.graph.initializer)
    return weights < LARGEST_BYTES - min(GRAPH_BYTES, LARGEST_BYTES // 2)


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Writes ``model``, its weights beside it where it is too large for one file.

    It appears under its name only when it is whole.
    """
    if fits_one_file(model):
        write_atomically(path, model.SerializeToString())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = light_copy(model)
    _write_weights(model, graph, path.parent)
    write_atomically(path, graph.SerializeToString())


def weight_files(path: Path) -> list[Path]:
    """The files beside ``path`` that hold its weights; none where all are inside."""
    status = path.stat()
    return [path.parent / name for name in _locations(path, status.st_size, status.st_mtime_ns)]


def model_bytes(path: Path) -> int:
    """Bytes of a model with its weights."""
    return sum(file.stat().st_size for file in (path, *weight_files(path)))


def ship_model(agent: Agent, path: Path) -> str:
    """Puts a model that ``write_model`` or ``travelling`` gave into the device's cache; returns its hash."""
    for file in weight_files(path):
        agent.ship(file)
    return agent.ship(path)


def copy_model_file(source: Path, target: Path) -> None:
    """One model in place of another, never a half of it; separate weights become ``TARGET.data``."""
    files = weight_files(source)
    if not files:
        copy_file(source, target)
        return
    graph = onnx.load(str(source), load_external_data=False)
    names = {file.name: f"{target.name}.data" if len(files) == 1 else file.name for file in files}
    for file in files:
        copy_file(file, target.with_name(names[file.name]))
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names[Path(entry.value).name]
    write_atomically(target, graph.SerializeToString())


def one_file(model: onnx.ModelProto, path: Path, folder: Path) -> Path:
    """``path``, or a copy in ``folder`` that has the external weights of ``model`` inside.

    Raises:
        ModelError: the model is too large for one file.
    """
    if not weight_files(path):
        return path
    if not fits_one_file(model):
        raise ModelError(f"{path} is too large for one file: ONNX allows 2 GB")
    return travelling(model, path, folder)


def travelling(model: onnx.ModelProto, path: Path, folder: Path) -> Path:
    """``path``, or a copy in ``folder`` in the form that ``ship_model`` can ship."""
    if not weight_files(path):
        return path
    write_model(model, folder / path.name)
    return folder / path.name


def _write_weights(model: onnx.ModelProto, graph: onnx.ModelProto, folder: Path) -> None:
    """Writes what ``graph``, a light copy, lacks of ``model``, and into ``graph`` where it is."""
    digest, offset, placed = hashlib.sha256(), 0, []
    with replaced(folder / "weights") as unfinished, unfinished.open("wb") as file:
        for whole, light in zip(model.graph.initializer, graph.graph.initializer, strict=True):
            if not is_light(light):
                continue
            content = numpy_helper.to_array(whole).tobytes()
            placed.append((light, offset, len(content)))
            file.write(content)
            digest.update(content)
            offset += len(content)
    (folder / "weights").replace(folder / digest.hexdigest())
    for light, start, length in placed:
        light.raw_data = b""
        set_external_data(light, digest.hexdigest(), start, length)
        light.ClearField("raw_data")


@functools.lru_cache(maxsize=256)
def _locations(path: Path, size: int, changed_ns: int) -> tuple[str, ...]:  # noqa: ARG001 - keys of the cache
    parsed = onnx.load(str(path), load_external_data=False)
    found = [
        entry.value
        for tensor in filter(uses_external_data, parsed.graph.initializer)
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    return tuple(dict.fromkeys(found))


def copy_file(source: Path, target: Path) -> None:
    """One file in place of another, never a half of it."""
    with replaced(target) as unfinished:
        shutil.copyfile(source, unfinished)
