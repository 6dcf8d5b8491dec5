"""What a device measured."""

from __future__ import annotations

from typing import Any

from edgenas.records.base import Record


class LatencyStatistics(Record):
    """Latency of one model.

    ``rounds_ms`` holds each round's fastest run, ``latency_ms`` is the median of those that are no
    outliers (1.5 interquartile ranges) and ``latency_relative_halfwidth`` half the width of the 95 %
    interval of the median of all, relative to it. The quantiles are of all runs; the p99 is None below 100.
    ``pace_ms`` is what the agent's own small network took meanwhile, where it was asked to watch the pace
    at which several threads work together.
    """

    latency_ms: float
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float | None
    latency_relative_halfwidth: float
    runs: int
    rounds_ms: tuple[float, ...]
    pace_ms: float | None = None


class NetworkLatency(Record):
    """One model measured end to end; ``error`` says why there are no statistics.

    ``disturbed_rounds`` were repeated, because the device's clock or load changed during them.
    ``crashed`` tells that the agent ended with the model, which may not have been the model's fault.
    """

    model_sha256: str
    threads: int
    statistics: LatencyStatistics | None = None
    disturbed_rounds: int = 0
    error: str | None = None
    crashed: bool = False


class TensorType(Record):
    """Element type (ONNX name in lower case, such as ``float`` or ``uint8``) and shape."""

    dtype: str
    shape: tuple[int, ...]


class TracedKernel(Record):
    """One kernel as the runtime executes it, after its own fusion and reordering.

    ``name`` is the runtime's node name; ``layer`` the part of it before the first ``/`` where the
    model's builder named its nodes ``layer/part``, else that of the kernel which feeds it, else "".
    ``latency_ms`` is the mean of the fastest half of the traced runs.
    """

    name: str
    layer: str
    kind: str
    domain: str
    attributes: dict[str, Any]
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    latency_ms: float


class KernelTrace(Record):
    """The kernels of one model in execution order, timed in place."""

    model_sha256: str
    runtime: str
    runtime_version: str
    threads: int
    runs: int
    run_latency_ms: float
    kernels: tuple[TracedKernel, ...]


class Characterisation(Record):
    """One model measured alone in a fresh process, with at least 100 runs."""

    model_sha256: str
    threads: int
    statistics: LatencyStatistics
    load_ms: float
    peak_memory_bytes: int
