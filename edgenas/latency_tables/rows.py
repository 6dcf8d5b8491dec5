"""What stands in a latency table: its rows as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from edgenas.records import LatencyStatistics, NetworkLatency, Record

Role = Literal["fit", "held-out", "structure"]


class NetworkRow(Record):
    """A network that is measured: what it is and what it is for.

    ``role`` "fit" feeds the predictor, "held-out" only judges it, "structure" was merely looked at.
    ``layers`` pairs layer names with layer keys, ``facts`` holds counts such as MACs.
    """

    model_sha256: str
    name: str
    space: str
    precision: str
    role: Role
    genome: tuple[int, ...] = ()
    layers: tuple[tuple[str, str], ...] = ()
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class KernelSample(Record):
    """One kernel of a trace: its key, the runtime's name, the layer it belongs to, its time."""

    kernel: str
    name: str
    layer: str
    latency_ms: float


class TraceRow(Record):
    """The kernels of one model as they were traced; ``runs`` 1 tells the structure only."""

    model_sha256: str
    fingerprint: str
    threads: int
    runs: int
    run_latency_ms: float
    kernels: tuple[KernelSample, ...]


_SLOWER = 1.07
CRASHED = "crash: "
"""How the error of a network begins whose measurement ended the agent."""


class LatencyRow(Record):
    """One network in one batch of interleaved rounds."""

    model_sha256: str
    fingerprint: str
    threads: int
    pass_number: int
    batch_id: str
    statistics: LatencyStatistics | None
    error: str | None

    def measured(self) -> NetworkLatency:
        """The row as the record that the agent gave."""
        return NetworkLatency(
            model_sha256=self.model_sha256, threads=self.threads, statistics=self.statistics,
            error=self.error, crashed=self.crashed,
        )  # fmt: skip

    @property
    def crashed(self) -> bool:
        """Whether the agent ended with the model, which may not have been the model's fault."""
        return (self.error or "").startswith(CRASHED)


def decided(rows: Iterable[LatencyRow]) -> list[LatencyRow]:
    """The rows without crashes that a pass has seen once: what ended the agent may come from outside.

    So a model is tried once more before it counts as one that cannot be measured.
    """
    found = list(rows)
    crashes = Counter((row.model_sha256, row.pass_number) for row in found if row.crashed)
    return [row for row in found if crashes[row.model_sha256, row.pass_number] > 1 or not row.crashed]


def at_pace(rows: Iterable[LatencyRow]) -> list[LatencyRow]:
    """The rows of one device and thread count that count: those measured at its usual pace.

    Where the cores of several threads lie changes how fast they work together, for all networks alike; see
    ``LatencyStatistics.pace_ms``. A network that was measured on the slow device only keeps its rows.
    """
    found = list(rows)
    usual_ms = usual_pace_ms(map(pace_ms_of, found))
    fast = [not is_slow(pace_ms_of(row), usual_ms) for row in found]
    measured = {
        row.model_sha256 for row, counts in zip(found, fast, strict=True) if counts and row.statistics
    }
    return [
        row for row, counts in zip(found, fast, strict=True) if counts or row.model_sha256 not in measured
    ]


def usual_pace_ms(paces_ms: Iterable[float | None]) -> float | None:
    """The pace that a quarter of the measurements kept or surpassed; None where none is known."""
    known = sorted(pace for pace in paces_ms if pace is not None)
    return known[len(known) // 4] if known else None


def is_slow(pace_ms: float | None, usual_ms: float | None) -> bool:
    """Whether a pace is clearly slower than usual; one that is not known is not."""
    return pace_ms is not None and usual_ms is not None and pace_ms > _SLOWER * usual_ms


def pace_ms_of(row: LatencyRow) -> float | None:
    """The pace at which a row was measured."""
    return None if row.statistics is None else row.statistics.pace_ms


class BlockRow(Record):
    """The latency of one block as another tool measured it, under that tool's key.

    ``collection`` is the file that it came in; ``samples`` is 0 where the tool does not tell.
    """

    collection: str
    key: str
    latency_ms: float
    sd_ms: float
    samples: int


class EnvironmentRow(Record):
    """A device as it was at one moment; ``fingerprint`` is the part that latency depends on."""

    id: str
    fingerprint: str
    runtime: str
    runtime_version: str
    taken_at: str
    virtual_clock: bool = False
    measuring_version: int = 1
