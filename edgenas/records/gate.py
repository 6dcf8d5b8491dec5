"""What the gate found."""

from __future__ import annotations

from typing import Literal

from edgenas.records.base import Record
from edgenas.records.devices import Environment

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
