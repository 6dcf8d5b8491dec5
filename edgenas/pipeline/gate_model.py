"""What the gate knows of a model without running it: bytes, parameters, operators, skeleton."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgenas.errors import UnknownNameError, UsageError
from edgenas.files import file_sha256
from edgenas.pipeline.baseline import Baseline, BaselineModel, packed
from edgenas.pipeline.onnx_input import read_model, with_batch_one
from edgenas.pipeline.skeleton import same_network, strip_weights, structure
from edgenas.quantization.packing import one_file


@dataclass(frozen=True)
class GatedModel:
    """One model as it is today. ``file`` is one file, whatever external data ``path`` has."""

    name: str
    path: Path
    file: Path
    size_bytes: int
    parameters: int
    ops: Mapping[str, int]
    skeleton: onnx.ModelProto

    def sha256(self) -> str:
        """Hash of the one file."""
        return file_sha256(self.file)

    def packed_skeleton(self) -> str:
        """The skeleton as a baseline keeps it."""
        return packed(self.skeleton)


def named_models(models: Sequence[str | Path]) -> dict[str, Path]:
    """Models by name: a file's name without its ending, or NAME of ``NAME=FILE``.

    Raises:
        UsageError: there is none, or two have one name.
    """
    named: dict[str, Path] = {}
    for given in models:
        name, path = _name_and_path(given)
        if name in named:
            raise UsageError(
                f"two models are named '{name}': {named[name]} and {path}",
                hint=f"give one of them a name of its own: OTHER={path}",
            )
        named[name] = path
    if not named:
        raise UsageError("check needs a model", hint="edgenas check MODEL.onnx --baseline ci/baseline.json")
    return named


def _name_and_path(given: str | Path) -> tuple[str, Path]:
    text = str(given)
    if "=" in text and not Path(text).exists():
        name, _, file = text.partition("=")
        if name and file:
            return name, Path(file)
    return Path(given).stem, Path(given)


def read_gated(name: str, path: Path, folder: Path) -> GatedModel:
    """Reads one model; ``folder`` takes a copy where it is not one file.

    Raises:
        ModelError: it is missing, damaged, or has a dynamic dimension besides the batch.
    """
    model = with_batch_one(read_model(path), path)
    file = one_file(model, path, Path(tempfile.mkdtemp(dir=folder)))
    parameters, ops = structure(model)
    return GatedModel(name, path, file, file.stat().st_size, parameters, ops, strip_weights(model))


def known_model(known: Baseline, model: GatedModel) -> BaselineModel:
    """The baseline's model of the same name.

    Raises:
        UnknownNameError: there is none; the hint says whether it has another name there.
    """
    found = next((one for one in known.models if one.name == model.name), None)
    if found is not None:
        return found
    names = {one.name for one in known.models}
    renamed = [one.name for one in known.models if same_network(one.graph(), model.skeleton)]
    hint = "accept it with --update"
    if renamed:
        hint = f"it is '{renamed[0]}' under another name: {renamed[0]}={model.path}, or {hint}"
    raise UnknownNameError("model in the baseline", model.name, names, hint=hint)
