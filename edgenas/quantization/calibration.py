"""One streaming pass of the float model over the calibration samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgenas.errors import DataError, ModelError
from edgenas.progress import track
from edgenas.quantization.graph import Graph
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.placement import place
from edgenas.quantization.ranges import Range, find_range
from edgenas.quantization.reference_run import run_batches
from edgenas.quantization.schemes import QuantizationScheme
from edgenas.quantization.statistics import Histogram

SAMPLED_VALUES = 2**15  # of each tensor and image; the extremes are always of all values
STRIDES = (1, 2, 3, 5, 7, 11, 13, 17, 23, 31, 41, 61, 83, 113, 151, 211, 293, 401, 557, 769)


@dataclass
class Calibration:
    """What the samples did to the float model.

    Attributes:
        samples: how many there were.
        sha256: of the samples.
        histograms: of every tensor that some scheme may quantize.
    """

    samples: int
    sha256: str
    histograms: dict[str, Histogram]
    _ranges: dict[tuple[str, str], Range] = field(default_factory=dict)

    def range_of(self, tensor: str, method: str) -> Range:
        """Low and high of ``tensor``; found once per method."""
        key = (tensor, method)
        if key not in self._ranges:
            self._ranges[key] = find_range(self.histograms[tensor], method)
        return self._ranges[key]


def calibrate(model: onnx.ModelProto, inputs: Inputs) -> Calibration:
    """Runs the prepared float model over ``inputs`` once.

    Memory is that of one batch of activations and one histogram per tensor.

    Raises:
        DataError: there are no samples, or they do not fit the model's inputs.
        ModelError: an activation is not finite.
    """
    if len(inputs) == 0:
        raise DataError("there are no calibration samples")
    tensors = calibrated_tensors(model)
    histograms = {name: Histogram() for name in tensors}
    with track("Calibrating", total=len(inputs)) as task:
        for values in run_batches(model, tensors, inputs) if tensors else ():
            add_batch(histograms, values)
            task.advance(len(next(iter(values.values()))))
    return Calibration(len(inputs), inputs.sha256, histograms)


def calibrated_tensors(model: onnx.ModelProto) -> list[str]:
    """The computed tensors that the most quantized scheme makes integers."""
    graph = Graph(model)
    placement = place(graph, QuantizationScheme())
    owners = (placement.scale_owner(name) for name in placement.quantized)
    return list(dict.fromkeys(name for name in owners if name not in graph.constants))


def add_batch(histograms: Mapping[str, Histogram], values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Counts one batch of activations.

    Raises:
        ModelError: an activation is not finite.
    """
    for name, array in values.items():
        floats = np.asarray(array, np.float32)
        if floats.size and not (np.isfinite(floats.min()) and np.isfinite(floats.max())):
            raise ModelError(
                f"the float model's tensor '{name}' is NaN or infinite for a calibration sample",
                hint="check the preprocessing (--mean, --std, --scale) and the model itself",
            )
        histograms[name].add(floats, sampled(floats))


def sampled(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Evenly spread values of each sample, the step a prime so that no row or channel is left out."""
    per_sample = values.size // max(len(values), 1) if values.ndim else values.size
    step = next((s for s in STRIDES if per_sample // s <= SAMPLED_VALUES), STRIDES[-1])
    return values.reshape(-1)[::step]


def constant_inputs(histograms: Mapping[str, Histogram], names: Sequence[str]) -> list[str]:
    """The model's inputs that never changed: a calibration set that looks wrong."""
    return [name for name in names if name in histograms and histograms[name].low == histograms[name].high]
