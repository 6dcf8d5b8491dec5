"""Where the rows of a table come from: which run wrote them, and how the device was at that moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from edgenas.latency_tables.database import Database
from edgenas.latency_tables.table import LatencyTable
from edgenas.records import Environment, LatencyStatistics, TableRow

Kind: TypeAlias = Literal["latencies", "traces", "blocks"]
KINDS: tuple[Kind, ...] = ("latencies", "traces", "blocks")


def rows_with_provenance(table: LatencyTable, kind: Kind, *, limit: int) -> tuple[TableRow, ...]:
    """The newest ``limit`` measurements of one kind, each with its run and its device.

    Raises:
        TableError: a row is not what was written.
    """
    database = table.database
    runs = {row["id"]: row for row in database.rows("runs")}
    environments = {row["id"]: row for row in database.rows("environments")}
    names = {row["model_sha256"]: row["name"] for row in database.rows("networks")}
    shown = [
        _row(kind, row, names, runs[row["run_id"]], environments.get(row.get("environment_id")))
        for row in _newest(database, kind, limit)
    ]
    return tuple(sorted(shown, key=lambda row: row.taken_at, reverse=True))


def _newest(database: Database, kind: Kind, limit: int) -> Iterator[dict[str, Any]]:
    when = "collection, key" if kind == "blocks" else "taken_at DESC"
    yield from database.rows(kind, f"1 ORDER BY {when} LIMIT ?", (limit,))


def _row(
    kind: Kind,
    row: dict[str, Any],
    names: dict[str, str],
    run: dict[str, Any],
    environment: dict[str, Any] | None,
) -> TableRow:
    device = msgspec.json.decode(environment["record"], type=Environment) if environment else None
    latency_ms, measured = _MEASURED[kind](row)
    return TableRow(
        kind=kind,
        id=row["id"],
        name=row["key"] if kind == "blocks" else names.get(row["model_sha256"], row["model_sha256"][:12]),
        latency_ms=latency_ms,
        measured=measured,
        threads=row.get("threads"),
        taken_at=row.get("taken_at", run["started_at"]),
        command=run["command"],
        edgenas_version=run["edgenas_version"],
        runtime=f"{device.runtime} {device.runtime_version}" if device else "",
        governor=device.governor if device else None,
        frequency_mhz=device.frequency_mhz if device else None,
        temperature_c=device.temperature_c if device else None,
        load_1m=device.load_1m if device else None,
    )


def _latency(row: dict[str, Any]) -> tuple[float | None, str]:
    if row["statistics"] is None:
        return None, f"failed: {row['error']}"
    found = msgspec.json.decode(row["statistics"], type=LatencyStatistics)
    return found.latency_ms, f"{len(found.rounds_ms)} rounds, pass {row['pass'] + 1}, batch {row['batch_id']}"


def _trace(row: dict[str, Any]) -> tuple[float | None, str]:
    kernels = len(json.loads(row["kernels"]))
    return row["run_latency_ms"], f"{kernels} kernels in place, {row['runs']} runs under the profiler"


def _block(row: dict[str, Any]) -> tuple[float | None, str]:
    return row["latency_ms"], f"{row['samples']} samples, sd {row['sd_ms']:.4g} ms, {row['collection']}"


_MEASURED: dict[Kind, Callable[[dict[str, Any]], tuple[float | None, str]]] = {
    "latencies": _latency,
    "traces": _trace,
    "blocks": _block,
}
