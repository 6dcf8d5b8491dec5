"""Looks into latency tables: list, show, export, import, diff, verify."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from edgenas.errors import TableError, UsageError
from edgenas.latency_tables import exchange, integrity
from edgenas.latency_tables.observations import Observations, observe
from edgenas.latency_tables.table import LatencyTable
from edgenas.records import (
    TableCell,
    TableDiff,
    TableDifference,
    TableExport,
    TableImport,
    TableShown,
    TableSummary,
    TableVerification,
)
from edgenas.workspace import Workspace

_LARGEST = 10


def table_list(*, workspace: Workspace | None = None) -> tuple[TableSummary, ...]:
    """What every table of the workspace holds. A damaged table raises ``TableError``."""
    folder = (workspace or Workspace()).tables
    return tuple(_summary(path) for path in sorted(folder.glob("*.sqlite")))


def _summary(path: Path) -> TableSummary:
    with LatencyTable.open(path) as table:
        return table.summary()


def table_show(device: str | None = None, *, workspace: Workspace | None = None) -> TableShown:
    """One table by the spaces, precisions and thread counts that were measured."""
    with _open(device, workspace or Workspace()) as table:
        cells = [
            cell
            for fingerprint, threads in table.configurations()
            for cell in _cells(table, observe(table, threads=threads, fingerprint=fingerprint))
        ]
        return TableShown(summary=table.summary(), environment=table.latest_environment(), cells=tuple(cells))


def _cells(table: LatencyTable, observations: Observations) -> list[TableCell]:
    failed = Counter(
        row.model_sha256
        for row in table.latencies(fingerprint=observations.fingerprint, threads=observations.threads)
        if row.error is not None
    )
    networks = table.networks()
    kinds = sorted({(one.network.space, one.network.precision) for one in observations.networks})
    return [
        _cell(observations, kind, [networks[sha].space for sha in failed if sha in networks])
        for kind in kinds
    ]


def _cell(observations: Observations, kind: tuple[str, str], failed_spaces: list[str]) -> TableCell:
    space, precision = kind
    found = [one for one in observations.networks if (one.network.space, one.network.precision) == kind]
    roles = Counter(one.network.role for one in found)
    return TableCell(
        space=space,
        precision=precision,
        threads=observations.threads,
        runtime=observations.runtime,
        fitted_networks=roles["fit"],
        held_out_networks=roles["held-out"],
        failed_networks=failed_spaces.count(space),
        kernels=len({key for one in found for key in one.kernels}),
        rounds=sum(len(one.rounds_ms) for one in found),
    )


def table_export(
    device: str | None = None,
    *,
    output: str | os.PathLike[str],
    format: Literal["json", "csv"] | None = None,
    workspace: Workspace | None = None,
) -> TableExport:
    """Writes a table as one JSON file or as a folder of CSV files.

    Args:
        device: whose table; the workspace's when None.
        output: the JSON file, or the folder for CSV.
        format: by the ending of ``output`` when None: ``.json``, else csv.
        workspace: where tables are; the current folder when None.
    """
    path = Path(output)
    chosen = format or ("json" if path.suffix == ".json" else "csv")
    if chosen not in exchange.FORMATS:
        raise UsageError(f"there is no format '{chosen}'; known: {', '.join(exchange.FORMATS)}")
    with _open(device, workspace or Workspace()) as table:
        write = exchange.export_json if chosen == "json" else exchange.export_csv
        return TableExport(device=table.device, output=str(path), format=chosen, rows=write(table, path))


def table_import(
    source: str | os.PathLike[str], *, device: str | None = None, workspace: Workspace | None = None
) -> TableImport:
    """Adds the rows of another table, its SQLite file or its JSON export, to a device's table.

    Raises:
        TableError: the source is missing, damaged or from another version; nothing is added then.
    """
    path = Path(source)
    if not path.is_file():
        raise TableError(f"there is no table at {path}")
    workspace = workspace or Workspace()
    device = workspace.device_or_default(device)
    with LatencyTable.open(workspace.table_path(device), create=True, device=device) as table:
        return TableImport(device=device, source=str(path), added=exchange.import_rows(table, path))


def table_diff(left: str, right: str, *, workspace: Workspace | None = None) -> TableDiff:
    """Compares the networks that two tables both measured, by device names or files."""
    workspace = workspace or Workspace()
    with _open(left, workspace) as one, _open(right, workspace) as other:
        first, second = _latencies(one), _latencies(other)
    common = sorted(set(first) & set(second))
    differences = [
        TableDifference(
            what="network", name=f"{key[0]}, {key[1]} threads", left_ms=first[key], right_ms=second[key],
            ratio=second[key] / first[key],
        )
        for key in common
    ]  # fmt: skip
    largest = sorted(differences, key=lambda found: -abs(np.log(found.ratio)))[:_LARGEST]
    return TableDiff(
        left=left,
        right=right,
        only_left=len(set(first) - set(second)),
        only_right=len(set(second) - set(first)),
        common=len(common),
        median_ratio=float(np.median([found.ratio for found in differences]))
        if differences
        else float("nan"),
        largest=tuple(largest),
    )


def _latencies(table: LatencyTable) -> dict[tuple[str, int], float]:
    """Latency by name and threads; in the environment that was measured most where there are several."""
    found: dict[tuple[str, int], float] = {}
    for fingerprint, threads in table.configurations():
        for one in observe(table, threads=threads, fingerprint=fingerprint).networks:
            found.setdefault((one.network.name, threads), one.latency_ms)
    return found


def table_verify(device: str | None = None, *, workspace: Workspace | None = None) -> TableVerification:
    """Checks every row of a table against what was written; ``intact`` says whether all is well."""
    workspace = workspace or Workspace()
    name = workspace.device_or_default(device)
    return integrity.verify(_path(name, workspace), device=name)


def _open(device: str | None, workspace: Workspace) -> LatencyTable:
    return LatencyTable.open(_path(workspace.device_or_default(device), workspace))


def _path(name: str, workspace: Workspace) -> Path:
    """The table of a device, or a file that is given by its path."""
    return Path(name) if name.endswith(".sqlite") else workspace.table_path(name)
