"""What a report is made of. Every part may be missing; its section is then left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgenas.records import (
    CheckResult,
    NetworkPoint,
    Prediction,
    PredictionError,
    ProfileResult,
    QuantizeResult,
    SearchResult,
    TableCell,
    TableSummary,
    TrainResult,
    ValidateResult,
)


@dataclass(frozen=True, kw_only=True)
class RunContents:
    """One run: its settings and the records that its stages left."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    profile: ProfileResult | None = None
    search: SearchResult | None = None
    train: TrainResult | None = None
    final: TrainResult | None = None
    quantize: QuantizeResult | None = None
    validate: ValidateResult | None = None
    prediction: Prediction | None = None
    networks: tuple[NetworkPoint, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    checks: tuple[CheckResult, ...] = ()

    @property
    def virtual_clock(self) -> bool:
        """Whether a virtual board measured any of it."""
        stages = (self.quantize, self.validate, self.prediction, *self.checks)
        measured = any(stage.virtual_clock for stage in stages if stage is not None)
        return measured or (self.profile is not None and self.profile.environment.virtual_clock)


@dataclass(frozen=True, kw_only=True)
class KernelRow:
    """One kernel of a table; ``latency_ms`` is the median over the networks that executed it."""

    label: str
    family: str
    latency_ms: float | None
    networks: int


@dataclass(frozen=True, kw_only=True)
class TableContents:
    """One latency table: what it covers and how well it predicts."""

    summary: TableSummary
    threads: int
    environment: dict[str, Any]
    kernels: tuple[KernelRow, ...]
    networks: tuple[NetworkPoint, ...]
    cells: tuple[TableCell, ...] = ()
    error: PredictionError | None = None
