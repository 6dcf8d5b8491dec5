"""The frozen records that rooms exchange and that ``--json`` prints.

Names end in their unit, ratios are 0..1, latencies are of batch 1. ``latency_ms`` alone is the
repeatable latency: the median over interleaved rounds of each round's fastest run. Where
``virtual_clock`` is true, or a device is one of ``virtual_devices``, milliseconds are virtual: what a
virtual board's clock made of the instructions that it counted.
"""

from __future__ import annotations

import hashlib
import html
from typing import Any, Literal, dataclass_transform

import msgspec

Precision = Literal["fp32", "int8"]
Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records: typed, immutable, JSON in and out, readable in a notebook."""

    def to_json(self) -> str:
        """The record as one JSON object."""
        return msgspec.json.encode(self).decode()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain Python values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th align='left'>{html.escape(name)}</th><td>{_cell(getattr(self, name))}</td></tr>"
            for name in self.__struct_fields__
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def _cell(value: object) -> str:
    if isinstance(value, Record):
        return value._repr_html_()
    if isinstance(value, tuple) and value and isinstance(value[0], Record):
        shown = "".join(item._repr_html_() for item in value[:20] if isinstance(item, Record))
        return shown + (f"<p>and {len(value) - 20} more</p>" if len(value) > 20 else "")
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))


# --- what a device is and what it measured -----------------------------------------------------


class Environment(Record):
    """Where a measurement was made, as the agent read it on the device.

    ``throttled``, ``under_voltage`` and whether either happened ``_before``, since the device was
    started, are None where it does not tell. ``supported_ir_version`` and
    ``supported_opset`` are what its runtime accepts at most, ``float_type`` is what it computes float
    models in.
    """

    architecture: str
    cpu_model: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_bytes: int
    operating_system: str
    python_version: str
    runtime: str
    runtime_version: str
    supported_ir_version: int
    supported_opset: int
    virtual_clock: bool = False
    float_type: str = "f32"
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    under_voltage: bool | None = None
    throttled_before: bool | None = None
    under_voltage_before: bool | None = None
    load_1m: float | None = None
    free_memory_bytes: int | None = None
    unix_time_s: float | None = None

    def fingerprint(self) -> str:
        """Hash of what latency depends on and what does not change from minute to minute."""
        stable = (
            self.architecture, self.cpu_model, self.cpu_features, self.cores,
            self.runtime, self.runtime_version, self.virtual_clock,
            *(() if self.float_type == "f32" else (self.float_type,)),
        )  # fmt: skip
        return hashlib.sha256(repr(stable).encode()).hexdigest()[:16]


class LatencyStatistics(Record):
    """Latency of one model.

    ``rounds_ms`` holds each round's fastest run, ``latency_ms`` is the median of those that are no
    outliers (1.5 interquartile ranges) and ``latency_relative_halfwidth`` half the width of the 95 %
    interval of the median of all, relative to it. The quantiles are of all runs; the p99 is None below 100.
    """

    latency_ms: float
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float | None
    latency_relative_halfwidth: float
    runs: int
    rounds_ms: tuple[float, ...]


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


# --- what is asked and answered ------------------------------------------------------------------


class DeviceSummary(Record):
    """One line of ``device list``."""

    id: str
    description: str
    connection: str
    runtime: str
    host: str | None
    virtual: bool


class DeviceSetup(Record):
    """What ``device setup`` installed, or the folder that it emptied."""

    device: str
    runtime: str | None = None
    runtime_version: str | None = None
    removed: str | None = None


class DeviceRunning(Record):
    """Whether a virtual board runs, and as which process."""

    device: str
    running: bool
    process: int | None = None


class DeviceFinding(Record):
    """One line of the doctor: what was looked at, what was found, what to do."""

    name: str
    value: str
    verdict: Literal["ok", "warning", "problem", "unknown"]
    advice: str = ""


class DeviceCheck(Record):
    """What ``device check`` found. ``noise_floor`` is the relative difference that two halves of
    the rounds of one model show at the 90th percentile over its probe models."""

    device: str
    environment: Environment
    findings: tuple[DeviceFinding, ...]
    noise_floor: float


class DonorShare(Record):
    """A table that helped to price another device, and its share (0..1) of the mean prediction."""

    device: str
    runtime: str
    threads: int
    share: float


class TransferSummary(Record):
    """How a device with few measurements is priced: with the help of other tables, or alone.

    Both errors are root mean squares of the relative errors of the ``measured_networks``, each predicted
    without itself: with the donors, and by the device's own table alone (None where that cannot price
    all of them). The smaller one decides whether the donors are ``used``.
    """

    measured_networks: int
    used: bool
    donors: tuple[DonorShare, ...]
    leave_one_out_rmspe: float
    own_leave_one_out_rmspe: float | None


class KernelPrediction(Record):
    """The predicted latency of one kernel and where the number comes from."""

    name: str
    layer: str
    kind: str
    latency_ms: float
    source: Literal["measured", "interpolated"]


class LayerPrediction(Record):
    """The predicted latency of one layer: of its ``kernels``, and of those that were ``measured``."""

    layer: str
    latency_ms: float
    measured_ms: float
    kernels: int


class Prediction(Record):
    """Predicted latency of one model with a 90 % interval and its parts.

    ``interpolated_share`` is of the time of all kernels. ``transfer`` says how other tables helped where
    few networks were measured on the device.
    """

    model: str
    device: str
    runtime: str
    precision: str
    threads: int
    latency_ms: float
    interval_ms: tuple[float, float]
    overhead_ms: float
    interpolated_share: float
    kernels: tuple[KernelPrediction, ...]
    structure: Literal["device", "host"] = "device"
    transfer: TransferSummary | None = None
    virtual_clock: bool = False

    def layers(self) -> tuple[LayerPrediction, ...]:
        """The kernels summed by layer, in the order of execution.

        Where the model's builder named no layers, the path of the kernel's name stands for one.
        """
        found: dict[str, list[KernelPrediction]] = {}
        for kernel in self.kernels:
            name = kernel.layer or kernel.name.rpartition("/")[0] or kernel.kind
            found.setdefault(name, []).append(kernel)
        return tuple(
            LayerPrediction(
                layer=name,
                latency_ms=sum(one.latency_ms for one in kernels),
                measured_ms=sum(one.latency_ms for one in kernels if one.source == "measured"),
                kernels=len(kernels),
            )
            for name, kernels in found.items()
        )


class PredictionError(Record):
    """Held-out error of a table: predicted against measured on networks it was not fitted to.

    ``within_5`` and ``within_10`` are shares of networks; ``repeat_within_5`` the machine's own
    (half of the rounds against the other half) on the same networks. ``spearman`` is None where
    there is no rank, as below two networks.
    """

    networks: int
    within_5: float
    within_10: float
    rmspe: float
    spearman: float | None
    interval_coverage: float
    repeat_within_5: float
    repeat_within_10: float


class NetworkPoint(Record):
    """One network as the table predicts it (with its 90 % interval) and as the device measured it.

    ``held_out`` says that the table was not fitted to it.
    """

    name: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    held_out: bool = True
    precision: str = ""


class ProfileCell(Record):
    """What was measured for one space or set of models at one precision and thread count."""

    space: str
    precision: str
    threads: int
    networks: int
    kernels: int
    coverage: float
    error: PredictionError | None
    transfer: TransferSummary | None = None


class ProfileResult(Record):
    """What ``profile`` measured, how well the table predicts and how well the device repeats."""

    device: str
    table: str
    environment: Environment
    threads: int
    measured_networks: int
    reused_networks: int
    failed_networks: int
    device_seconds: float
    elapsed_s: float
    noise_floor: float
    cells: tuple[ProfileCell, ...]


class TableSummary(Record):
    """What a latency table holds.

    ``blocks`` were measured by another tool and imported; a table that has some is foreign.
    ``problem`` says why nothing can be read from a damaged or newer table, "" where all is well.
    """

    device: str
    path: str
    schema_version: int
    runtime: str
    kernels: int
    networks: int
    environments: int
    runs: int
    size_bytes: int
    updated_at: str
    blocks: int = 0
    problem: str = ""
    virtual_clock: bool = False


class TableCell(Record):
    """What a table holds for one space, precision, thread count and runtime.

    ``coverage`` is the share of its networks' kernel calls (of the held-out ones where there are any)
    whose kernel was timed in place itself; the others are predicted by regression.
    """

    space: str
    precision: str
    threads: int
    runtime: str
    fitted_networks: int
    held_out_networks: int
    failed_networks: int
    kernels: int
    rounds: int
    timed_kernels: int = 0
    coverage: float = 0.0


class TableFamily(Record):
    """One family of kernels: how many a table has seen, and how many it timed in place."""

    family: str
    kernels: int
    timed_kernels: int


class TableCollection(Record):
    """Blocks of a foreign table that came in one file, with the range of their latencies."""

    collection: str
    blocks: int
    least_ms: float
    largest_ms: float


class TableRow(Record):
    """One measurement with its provenance: what wrote it when, and the device at that moment.

    ``measured`` says what the latency stands on; values that the device does not tell are None.
    """

    kind: str
    id: str
    name: str
    latency_ms: float | None
    measured: str
    threads: int | None
    taken_at: str
    command: str
    edgenas_version: str
    runtime: str
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    load_1m: float | None = None


class TableShown(Record):
    """A table by the spaces, precisions and thread counts that were measured, and by kernel family.

    ``rows`` are single measurements where they were asked for.
    """

    summary: TableSummary
    environment: Environment | None
    cells: tuple[TableCell, ...]
    families: tuple[TableFamily, ...] = ()
    collections: tuple[TableCollection, ...] = ()
    rows: tuple[TableRow, ...] = ()


class TableExport(Record):
    """Where a table was exported to, and how many rows of each kind."""

    device: str
    output: str
    format: str
    rows: dict[str, int]


class TableImport(Record):
    """What an import added to a table; rows that were there already are not counted."""

    device: str
    source: str
    added: dict[str, int]


class TableDifference(Record):
    """One network or kernel that two tables both measured; ``ratio`` is right over left."""

    what: str
    name: str
    left_ms: float
    right_ms: float
    ratio: float


class TableDiff(Record):
    """Two tables side by side: what only one has, and how far the common measurements differ.

    ``median_ratio`` is right over left; None where nothing is common.
    """

    left: str
    right: str
    only_left: int
    only_right: int
    common: int
    median_ratio: float | None
    largest: tuple[TableDifference, ...]
    virtual_left: bool = False
    virtual_right: bool = False


class TableVerification(Record):
    """Whether every row of a table is what was written; ``problems`` names those that are not."""

    device: str
    path: str
    rows: dict[str, int]
    problems: tuple[str, ...]
    intact: bool


class Candidate(Record):
    """One network of a search space: its genes by name, and what is known about it.

    ``latency_ms`` is by device; ``latency_source`` says whether it was predicted or measured.
    ``hyperparameters`` are those of its training where they were searched with it.
    """

    candidate: dict[str, Any]
    accuracy: float
    accuracy_source: str
    latency_ms: dict[str, float]
    latency_source: Literal["predicted", "measured"] = "predicted"
    predicted_ms: dict[str, float] = {}
    macs: int = 0
    parameters: int = 0
    feasible: bool = True
    hyperparameters: dict[str, float] = {}
    size_mb: float | None = None
    memory_mb: float | None = None


class DroppedOption(Record):
    """An option that a table proved useless before the search: ``better`` is faster and more capable."""

    gene: str
    option: str
    better: str
    slower_ms: float
    reason: str


class HypervolumePoint(Record):
    """Share 0..1 of the box between the best and the worst of a search that its front dominated."""

    evaluations: int
    hypervolume: float


class SearchResult(Record):
    """The Pareto front and the best candidate under the hard limit.

    ``best`` is None where nothing meets the limit; ``fastest`` is then what the device can do.
    ``interrupted`` searches were stopped by the user before all evaluations were made.
    ``accuracy_rmse`` is the held-out error of a source that predicts accuracies, None for others.
    ``limits`` are those on anything but latency, by metric; ``weights`` the lambdas of the weighted form.
    """

    space: str
    devices: tuple[str, ...]
    limits_ms: tuple[float, ...]
    strategy: str
    accuracy_source: str
    seed: int
    evaluations: int
    elapsed_s: float
    best: Candidate | None
    fastest: Candidate | None
    front: tuple[Candidate, ...]
    evaluated: tuple[Candidate, ...] = ()
    path: str = ""
    interrupted: bool = False
    transfers: dict[str, TransferSummary] = {}
    virtual_devices: tuple[str, ...] = ()
    accuracy_rmse: float | None = None
    objectives: tuple[str, ...] = ("accuracy",)
    limits: dict[str, float] = {}
    weights: dict[str, float] = {}
    pressure: str = "constant"
    dropped: tuple[DroppedOption, ...] = ()
    hypervolume: tuple[HypervolumePoint, ...] = ()


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


class EpochRecord(Record):
    """One epoch of training: loss, validation accuracy by what was evaluated, CPU seconds."""

    epoch: int
    loss: float
    accuracy: dict[str, float]
    elapsed_s: float


class TrainResult(Record):
    """A trained supernet or network: where the checkpoint is and how it got there."""

    space: str
    data: str
    checkpoint: str
    epochs: tuple[EpochRecord, ...]
    validation_accuracy: float
    elapsed_s: float


class BundleFile(Record):
    """One file of a bundle and its hash."""

    name: str
    sha256: str
    size_bytes: int


class RunResult(Record):
    """What ``run`` leaves behind: the folder, the winner and the verdict."""

    name: str
    folder: str
    device: str
    space: str
    latency_limit_ms: float
    verdict: Verdict
    scheme: str
    latency_ms: float
    accuracy: float | None
    fp32_accuracy: float | None
    size_bytes: int
    fp32_size_bytes: int
    candidate: dict[str, Any]
    files: tuple[BundleFile, ...]
    elapsed_s: float
    virtual_clock: bool = False


class CleanItem(Record):
    """A folder that ``clean`` removes: a cache or an old run; its age is that of its newest file."""

    kind: str
    path: str
    size_bytes: int
    age_s: float


class CleanResult(Record):
    """What ``clean`` removed, or would."""

    removed: bool
    size_bytes: int
    items: tuple[CleanItem, ...]


GateVerdict = Literal["pass", "fail", "inconclusive", "incomparable"]


class CheckFinding(Record):
    """One metric of one model: the baseline's value, today's, what is allowed, and the verdict.

    ``interval`` is the 99 % interval of ``value`` where it was judged by repeated measurement.
    """

    model: str
    metric: str
    baseline: float | None
    value: float | None
    limit: float | None
    verdict: GateVerdict
    note: str = ""
    interval: tuple[float, float] | None = None


class CheckResult(Record):
    """What the gate found. ``verdict`` is the worst of the findings'.

    ``latency_source`` says how latency is known: measured with a clock, counted on a virtual board,
    predicted from a table. Verdicts in ``tolerated`` open the gate, too.
    """

    verdict: GateVerdict
    device: str
    threads: int
    baseline: str
    updated: bool
    findings: tuple[CheckFinding, ...]
    environment: Environment | None = None
    elapsed_s: float = 0.0
    latency_source: Literal["measured", "virtual", "predicted"] = "measured"
    tolerated: tuple[GateVerdict, ...] = ()
    created_at: str = ""
    commit: str = ""
    schema_version: int = 1
    virtual_clock: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the gate opens."""
        return all(finding.verdict in ("pass", *self.tolerated) for finding in self.findings)
