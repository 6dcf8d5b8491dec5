"""Other quantizers as sources of candidates: what they make competes on the device like our own.

Their schemes are taken as they come: neither refined nor mixed with float.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from edgenas.errors import ModelError, UnknownNameError, UsageError
from edgenas.quantization.graph import copy_model
from edgenas.quantization.inputs import Batch, Inputs
from edgenas.quantization.packing import write_model
from edgenas.quantization.preparation import STANDARD_DOMAINS
from edgenas.quantization.schemes import QuantizationScheme
from edgenas.records import Environment

OWN, HALF = "edgenas", "float16"
SAMPLES = 300
# What foreign code raises where it cannot quantize a model; each is that candidate's result.
REFUSALS = (
    RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError,
    AssertionError, OSError, EncodeError,
)  # fmt: skip


class Engine(ABC):
    """A quantizer that somebody else wrote.

    Attributes:
        package: what must be installed.
        presets: the ways of quantizing that are tried.
    """

    package: str
    presets: tuple[str, ...]

    def quantize(self, model: onnx.ModelProto, inputs: Inputs, preset: str) -> onnx.ModelProto:
        """A QDQ model with standard operators, its inputs and outputs those of ``model``.

        Raises:
            ModelError: the engine cannot quantize it.
        """
        few = inputs.subset(range(min(SAMPLES, len(inputs))))
        try:
            with contextlib.redirect_stdout(sys.stderr):  # results alone go to stdout
                made = self._quantized(model, few, preset)
        except REFUSALS as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ModelError(f"{self.package} cannot quantize it: {reason}") from error
        foreign = {node.domain for node in made.graph.node} - STANDARD_DOMAINS
        if foreign:
            raise ModelError(f"{self.package} made operators of {', '.join(sorted(foreign))}, not plain QDQ")
        return made

    @abstractmethod
    def _quantized(self, model: onnx.ModelProto, inputs: Inputs, preset: str) -> onnx.ModelProto: ...


class OnnxRuntimeEngine(Engine):
    """``onnxruntime.quantization.quantize_static`` with its own choice of operators."""

    package = "onnxruntime"
    presets = ("u8s8-channel", "u8s8-channel-reduced")

    def _quantized(self, model: onnx.ModelProto, inputs: Inputs, preset: str) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory(prefix="edgenas-engine-") as folder:
            source, prepared, made = (f"{folder}/{name}.onnx" for name in ("in", "prepared", "out"))
            write_model(model, Path(source))
            quant_pre_process(source, prepared)
            quantize_static(
                prepared, made, _Reader(inputs), per_channel=True, reduce_range=preset.endswith("reduced"),
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
            return onnx.load(made)


class NncfEngine(Engine):
    """``nncf.quantize``: range estimation, fast bias correction and its own choice of operators."""

    package = "nncf"
    presets = ("performance", "mixed")

    def _quantized(self, model: onnx.ModelProto, inputs: Inputs, preset: str) -> onnx.ModelProto:
        import nncf

        attention = any(node.op_type in {"Softmax", "LayerNormalization"} for node in model.graph.node)
        made: onnx.ModelProto = nncf.quantize(
            model, nncf.Dataset(_Batches(inputs), lambda feed: feed), subset_size=len(inputs),
            preset=nncf.QuantizationPreset(preset),
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
        )  # fmt: skip
        return made


class HalfEngine(Engine):
    """The float model with 16-bit weights and arithmetic; its inputs and outputs stay 32-bit.

    No integers: it wins by its measured latency or not at all.
    """

    package = "onnxruntime"
    presets = ("",)

    def _quantized(self, model: onnx.ModelProto, _inputs: Inputs, _preset: str) -> onnx.ModelProto:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that tiny weights become zero shows in the outputs
            made: onnx.ModelProto = convert_float_to_float16(copy_model(model), keep_io_types=True)
        return made


class _Reader:
    """ONNX Runtime's calibration data reader."""

    def __init__(self, inputs: Inputs) -> None:
        self._batches = inputs.batches(1)

    def get_next(self) -> Batch | None:
        return next(self._batches, None)


class _Batches:
    """An iterable that can be gone through again."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    def __iter__(self) -> Iterator[Batch]:
        return self._inputs.batches(1)

    def __len__(self) -> int:
        return len(self._inputs)


ENGINES: dict[str, type[Engine]] = {"onnxruntime": OnnxRuntimeEngine, "nncf": NncfEngine, HALF: HalfEngine}
HALF_FEATURES = frozenset({"fp16", "avx512_fp16"})
"""Processor features with which 16-bit floats are computed as such, not converted back and forth."""


def half_schemes(environment: Environment) -> list[QuantizationScheme]:
    """The 16-bit float scheme, where the device computes in such floats."""
    native = HALF_FEATURES.intersection(environment.cpu_features) or environment.float_type == "f16"
    return [QuantizationScheme(engine=HALF)] if native else []


def engine_schemes(names: Sequence[str]) -> list[QuantizationScheme]:
    """One scheme for each preset of each engine.

    Raises:
        UnknownNameError: there is no such engine.
        UsageError: its package is not installed.
    """
    schemes: list[QuantizationScheme] = []
    for name in names:
        if name == OWN:
            continue
        if name not in ENGINES:
            raise UnknownNameError("quantization engine", name, [OWN, *ENGINES])
        engine: Any = ENGINES[name]
        if find_spec(engine.package) is None:
            raise UsageError(
                f"the engine '{name}' needs the package {engine.package}, which is not installed",
                hint=f"pip install 'edgenas[{name}]'",
            )
        schemes += [QuantizationScheme(engine=name, preset=preset) for preset in engine.presets]
    return schemes
