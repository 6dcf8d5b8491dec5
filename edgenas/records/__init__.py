"""The frozen records that rooms exchange and that ``--json`` prints.

Names end in their unit, ratios are 0..1, latencies are of batch 1. ``latency_ms`` alone is the
repeatable latency: the median over interleaved rounds of each round's fastest run. Where
``virtual_clock`` is true, or a device is one of ``virtual_devices``, milliseconds are virtual: what a
virtual board's clock made of the instructions that it counted.
"""

from edgenas.records.base import Precision, Record, Verdict
from edgenas.records.devices import (
    DeviceCheck,
    DeviceFinding,
    DeviceRunning,
    DeviceSetup,
    DeviceSummary,
    Environment,
)
from edgenas.records.gate import CheckFinding, CheckResult, GateVerdict
from edgenas.records.measurements import (
    Characterisation,
    KernelTrace,
    LatencyStatistics,
    NetworkLatency,
    TensorType,
    TracedKernel,
)
from edgenas.records.predictions import (
    DonorShare,
    KernelPrediction,
    LayerPrediction,
    NetworkPoint,
    Prediction,
    PredictionError,
    TransferSummary,
)
from edgenas.records.quantization import (
    FloatOperators,
    LayerSensitivity,
    QuantizeResult,
    SchemeTrial,
    ValidateResult,
    ValidationFinding,
)
from edgenas.records.runs import BundleFile, CleanItem, CleanResult, EpochRecord, RunResult, TrainResult
from edgenas.records.search import (
    SEARCH_VERSION,
    Candidate,
    DroppedOption,
    HypervolumePoint,
    SearchResult,
)
from edgenas.records.tables import (
    ProfileCell,
    ProfileResult,
    TableCell,
    TableCollection,
    TableDiff,
    TableDifference,
    TableExport,
    TableFamily,
    TableImport,
    TableRow,
    TableShown,
    TableSummary,
    TableVerification,
)

__all__ = [
    "SEARCH_VERSION",
    "BundleFile",
    "Candidate",
    "Characterisation",
    "CheckFinding",
    "CheckResult",
    "CleanItem",
    "CleanResult",
    "DeviceCheck",
    "DeviceFinding",
    "DeviceRunning",
    "DeviceSetup",
    "DeviceSummary",
    "DonorShare",
    "DroppedOption",
    "Environment",
    "EpochRecord",
    "FloatOperators",
    "GateVerdict",
    "HypervolumePoint",
    "KernelPrediction",
    "KernelTrace",
    "LatencyStatistics",
    "LayerPrediction",
    "LayerSensitivity",
    "NetworkLatency",
    "NetworkPoint",
    "Precision",
    "Prediction",
    "PredictionError",
    "ProfileCell",
    "ProfileResult",
    "QuantizeResult",
    "Record",
    "RunResult",
    "SchemeTrial",
    "SearchResult",
    "TableCell",
    "TableCollection",
    "TableDiff",
    "TableDifference",
    "TableExport",
    "TableFamily",
    "TableImport",
    "TableRow",
    "TableShown",
    "TableSummary",
    "TableVerification",
    "TensorType",
    "TracedKernel",
    "TrainResult",
    "TransferSummary",
    "ValidateResult",
    "ValidationFinding",
    "Verdict",
]
