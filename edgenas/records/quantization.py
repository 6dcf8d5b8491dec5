"""What was quantized, and how it did."""

from __future__ import annotations

from typing import Literal

from edgenas.records.base import Record, Verdict
from edgenas.records.devices import Environment


class SchemeTrial(Record):
    """One quantization scheme as it came out on the device; ``reason`` says why it lost or won.

    ``defined_distance`` is what the output distance would be if every operator were computed as it is
    defined: known of the integer types that were looked at first.
    """

    scheme: str
    latency_ms: float | None
    accuracy: float | None
    size_bytes: int
    output_distance: float | None
    verdict: Literal["chosen", "kept", "rejected", "failed"]
    reason: str
    defined_distance: float | None = None


class LayerSensitivity(Record):
    """What a part of the network costs on integers; the part changes precision as a whole.

    ``layer`` is its first weighted node, ``operators`` how many nodes it has. ``squared_error`` is the
    share of the outputs' energy that is error when this part alone runs on integers. ``integer`` is
    what the model has that was written.
    """

    layer: str
    operators: int
    squared_error: float
    float_ms: float
    int8_ms: float
    integer: bool


class FloatOperators(Record):
    """Operators of one kind that are float in the int8 model for the same reason."""

    op: str
    count: int
    reason: str
    examples: tuple[str, ...]


class QuantizeResult(Record):
    """The best model within the limits; ``scheme`` is ``float`` where float won.

    ``accuracy`` is None without labels; with a ``metric`` it is its mean. ``int8_output`` is the best
    int8 model, which stands beside ``output`` in every case, and ``smallest_output`` the smallest one
    within the accuracy limit, whatever its latency, where that is another. ``sensitivity`` and
    ``stayed_float`` are of the best int8 model.
    """

    device: str
    output: str
    int8_output: str | None
    scheme: str
    latency_ms: float
    float_latency_ms: float
    accuracy: float | None
    float_accuracy: float | None
    size_bytes: int
    float_size_bytes: int
    calibration_images: int
    selection_images: int
    tried: tuple[SchemeTrial, ...]
    warnings: tuple[str, ...] = ()
    virtual_clock: bool = False
    metric: str | None = None
    smallest_output: str | None = None
    ort_output: str | None = None
    sensitivity: tuple[LayerSensitivity, ...] = ()
    stayed_float: tuple[FloatOperators, ...] = ()


class ValidationFinding(Record):
    """One limit and how the model stands to it."""

    metric: str
    value: float | None
    limit: float
    verdict: Verdict


class ValidateResult(Record):
    """A model as the device runs it, and the verdict against the limits given.

    ``output_distance`` is the relative L2 distance of the outputs to the reference model's.
    """

    model: str
    device: str
    verdict: Verdict
    latency_ms: float
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float | None
    latency_relative_halfwidth: float
    accuracy: float | None
    reference_accuracy: float | None
    agreement: float | None
    output_distance: float | None
    size_bytes: int
    peak_memory_bytes: int
    load_ms: float
    threads: int
    environment: Environment
    findings: tuple[ValidationFinding, ...] = ()
    virtual_clock: bool = False
