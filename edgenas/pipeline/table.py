"""Looks into latency tables: list, show, export, import, diff, verify."""

from __future__ import annotations

import functools
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from edgenas.errors import TableError, UnknownNameError
from edgenas.files import file_sha256
from edgenas.latency_tables import exchange, integrity, once_for_all
from edgenas.latency_tables.exchange import Format
from edgenas.latency_tables.kernels import family_of
from edgenas.latency_tables.observations import MeasuredNetwork, Observations, observe
from edgenas.latency_tables.provenance import KINDS, Kind, rows_with_provenance
from edgenas.latency_tables.rows import BlockRow, NetworkRow
from edgenas.latency_tables.table import LatencyTable
from edgenas.progress import warn
from edgenas.records import (
    TableCell,
    TableCollection,
    TableDiff,
    TableDifference,
    TableExport,
    TableFamily,
    TableImport,
    TableShown,
    TableSummary,
    TableVerification,
)
from edgenas.workspace import Workspace

_LARGEST = 10


def table_list(*, workspace: Workspace | None = None) -> tuple[TableSummary, ...]:
    """What every table of the workspace holds; of one that cannot be read, ``problem`` says why."""
    folder = (workspace or Workspace()).tables
    return tuple(_summary(path) for path in sorted(folder.glob("*.sqlite")))


def _summary(path: Path) -> TableSummary:
    try:
        with LatencyTable.open(path) as table:
            return table.summary()
    except TableError as error:
        warn(error.message)
        return TableSummary(
            device=path.stem, path=str(path), schema_version=0, runtime="", kernels=0, networks=0,
            environments=0, runs=0, size_bytes=path.stat().st_size, updated_at="", problem=error.message,
        )  # fmt: skip


def table_show(
    device: str | None = None,
    *,
    rows: Kind | None = None,
    limit: int = 50,
    workspace: Workspace | None = None,
) -> TableShown:
    """One table by the spaces, precisions and thread counts that were measured, and by kernel family.

    Args:
        device: whose table, or its file; the workspace's when None.
        rows: the kind of measurements to show one by one, with their provenance.
        limit: how many of them at most, the newest first.
        workspace: where tables are; the current folder when None.

    Raises:
        TableError: there is no such table, or it is damaged.
        UnknownNameError: there is no such kind of rows.
    """
    if rows is not None and rows not in KINDS:
        raise UnknownNameError("kind of rows", rows, KINDS)
    with _open(device, workspace or Workspace()) as table:
        observed = [
            observe(table, threads=threads, fingerprint=fingerprint)
            for fingerprint, threads in table.configurations()
        ]
        return TableShown(
            summary=table.summary(),
            environment=table.latest_environment(),
            cells=tuple(cell for observations in observed for cell in _cells(table, observations)),
            families=_families(table, observed),
            collections=_collections(table),
            rows=rows_with_provenance(table, rows, limit=limit) if rows is not None else (),
        )


def _cells(table: LatencyTable, observations: Observations) -> list[TableCell]:
    networks = table.networks()
    failed = {
        row.model_sha256
        for row in table.latencies(fingerprint=observations.fingerprint, threads=observations.threads)
        if row.error is not None and row.model_sha256 in networks
    }
    failures = Counter((networks[sha].space, networks[sha].precision) for sha in failed)
    measured = {(one.network.space, one.network.precision) for one in observations.networks}
    return [_cell(observations, kind, failures[kind]) for kind in sorted(measured | failures.keys())]


def _cell(observations: Observations, kind: tuple[str, str], failed_networks: int) -> TableCell:
    space, precision = kind
    found = [one for one in observations.networks if (one.network.space, one.network.precision) == kind]
    roles = Counter(one.network.role for one in found)
    kernels = {key for one in found for key in one.kernels}
    return TableCell(
        space=space,
        precision=precision,
        threads=observations.threads,
        runtime=observations.runtime,
        fitted_networks=roles["fit"],
        held_out_networks=roles["held-out"],
        failed_networks=failed_networks,
        kernels=len(kernels),
        rounds=sum(len(rounds) for one in found for rounds in one.rounds_ms),
        timed_kernels=len(kernels & observations.times_ms.keys()),
        coverage=_coverage(observations, [one for one in found if one.network.role == "held-out"] or found),
    )


def _coverage(observations: Observations, networks: Sequence[MeasuredNetwork]) -> float:
    """Share of the networks' kernel calls whose kernel was timed in place."""
    calls = sum((one.kernels for one in networks), Counter[str]())
    timed = sum(count for key, count in calls.items() if key in observations.times_ms)
    return timed / max(calls.total(), 1)


def _families(table: LatencyTable, observed: Sequence[Observations]) -> tuple[TableFamily, ...]:
    """Families by how many of their kernels the table has seen, the largest first."""
    timed = {key for observations in observed for key in observations.times_ms}
    specs = table.kernels()
    seen = Counter(map(family_of, specs.values()))
    known = Counter(family_of(spec) for key, spec in specs.items() if key in timed)
    return tuple(
        TableFamily(family=family, kernels=count, timed_kernels=known[family])
        for family, count in seen.most_common()
    )


def _collections(table: LatencyTable) -> tuple[TableCollection, ...]:
    latencies: dict[str, list[float]] = defaultdict(list)
    for block in table.blocks():
        latencies[block.collection].append(block.latency_ms)
    return tuple(
        TableCollection(collection=name, blocks=len(found), least_ms=min(found), largest_ms=max(found))
        for name, found in sorted(latencies.items())
    )


def table_export(
    device: str | None = None,
    *,
    output: str | os.PathLike[str],
    format: Format | None = None,
    workspace: Workspace | None = None,
) -> TableExport:
    """Writes a table as one JSON file, or as a folder of CSV or Parquet files.

    Args:
        device: whose table, or its file; the workspace's when None.
        output: the JSON file, or the folder for CSV and Parquet.
        format: ``json``, ``csv`` or ``parquet``; json where ``output`` ends in ``.json``, else csv, when
            None.
        workspace: where tables are; the current folder when None.

    Raises:
        TableError: there is no such table, or it is damaged.
        UnknownNameError: there is no such format.
        UsageError: ``output`` is of the wrong kind, or pyarrow is not installed.
    """
    path = Path(output)
    chosen = format or ("json" if path.suffix == ".json" else "csv")
    if chosen not in exchange.FORMATS:
        raise UnknownNameError("format", chosen, exchange.FORMATS)
    with _open(device, workspace or Workspace()) as table:
        rows = exchange.export_table(table, path, chosen)
        return TableExport(device=table.device, output=str(path), format=chosen, rows=rows)


def table_import(
    source: str | os.PathLike[str], *, device: str | None = None, workspace: Workspace | None = None
) -> TableImport:
    """Adds the rows of another table to a device's table.

    Args:
        source: another table's SQLite file, an export of one (JSON file, CSV or Parquet folder), or
            once-for-all's YAML table (one file, or a folder of them), which makes a foreign table.
        device: whose table to add to; the workspace's when None.
        workspace: where tables are; the current folder when None.

    Raises:
        TableError: the source is missing, damaged or from a newer version, or YAML is to be mixed with
            measurements of our own; nothing is added then.
        UsageError: a package that the format needs is not installed.
    """
    path = Path(source)
    workspace = workspace or Workspace()
    device = workspace.device_or_default(device)
    foreign = _yaml_files(path)
    add = functools.partial(_import_blocks, foreign) if foreign else functools.partial(_import_rows, path)
    return TableImport(device=device, source=str(path), added=add(workspace.table_path(device), device))


def _import_rows(source: Path, target: Path, device: str) -> dict[str, int]:
    exported = exchange.read_exported(source)  # before a table is made for what may be no table
    with LatencyTable.open(target, create=True, device=device) as table:
        return exchange.add_rows(table, exported)


def _yaml_files(path: Path) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.suffix in once_for_all.SUFFIXES]


def _import_blocks(sources: Sequence[Path], target: Path, device: str) -> dict[str, int]:
    blocks = {source: once_for_all.read_blocks(source) for source in sources}
    with LatencyTable.open(target, create=True, device=device) as table:
        measured = table.summary().networks
        if measured:
            raise TableError(
                f"the table of '{device}' holds {measured} networks of its own; blocks of another tool"
                " need a table for themselves",
                hint=f"edgenas table import {sources[0]} --device ANOTHER-NAME",
            )
        return {"blocks": sum(_add_blocks(table, *one) for one in blocks.items())}


def _add_blocks(table: LatencyTable, source: Path, blocks: Sequence[BlockRow]) -> int:
    table.begin_run(f"import {source.name} sha256 {file_sha256(source)[:16]}")
    return table.add_blocks(blocks)


def table_diff(left: str, right: str, *, workspace: Workspace | None = None) -> TableDiff:
    """Compares the networks (of foreign tables the blocks) that two tables both have.

    Args:
        left: a device, or a table's file.
        right: another.
        workspace: where tables are; the current folder when None.

    Raises:
        TableError: there is no such table, or it is damaged.
    """
    workspace = workspace or Workspace()
    with _open(left, workspace) as one, _open(right, workspace) as other:
        first, second = _latencies(one), _latencies(other)
        virtual = one.summary().virtual_clock, other.summary().virtual_clock
    differences = [
        TableDifference(
            what=one.what, name=one.name, left_ms=one.latency_ms, right_ms=second[key].latency_ms,
            ratio=second[key].latency_ms / one.latency_ms,
        )
        for key, one in first.items() if key in second
    ]  # fmt: skip
    largest = sorted(differences, key=lambda found: -abs(np.log(found.ratio)))[:_LARGEST]
    return TableDiff(
        left=left,
        right=right,
        only_left=len(set(first) - set(second)),
        only_right=len(set(second) - set(first)),
        common=len(differences),
        median_ratio=float(np.median([found.ratio for found in differences])) if differences else None,
        largest=tuple(largest),
        virtual_left=virtual[0],
        virtual_right=virtual[1],
    )


class _Timed(NamedTuple):
    """A latency in ms, of what, and what people call it."""

    what: Literal["network", "block"]
    name: str
    latency_ms: float


def _latencies(table: LatencyTable) -> dict[Hashable, _Timed]:
    """Everything that a table timed, by what is the same in every table.

    Where a network was measured in several environments, that with the most measurements counts.
    """
    found: dict[Hashable, _Timed] = {}
    for fingerprint, threads in table.configurations():
        for one in observe(table, threads=threads, fingerprint=fingerprint).networks:
            timed = _Timed("network", f"{one.network.name}, {threads} threads", one.latency_ms)
            found.setdefault((_identity(one.network), threads), timed)
    for block in table.blocks():
        timed = _Timed("block", f"{block.key} of {block.collection}", block.latency_ms)
        found[timed.what, timed.name] = timed
    return found


def _identity(network: NetworkRow) -> Hashable:
    """What makes it the same network on two devices, whatever its name and their runtimes' versions."""
    if network.genome:
        return network.space, network.precision, network.genome
    return str(network.facts.get("recipe", network.model_sha256))


def table_verify(device: str | None = None, *, workspace: Workspace | None = None) -> TableVerification:
    """Checks every row of a table against what was written; ``intact`` says whether all is well.

    Args:
        device: whose table, or its file; the workspace's when None.
        workspace: where tables are; the current folder when None.

    Raises:
        TableError: there is no such table, it is none, or it is from a newer version.
    """
    workspace = workspace or Workspace()
    name = workspace.device_or_default(device)
    return integrity.verify(_path(name, workspace), device=name)


def _open(device: str | None, workspace: Workspace) -> LatencyTable:
    return LatencyTable.open(_path(workspace.device_or_default(device), workspace))


def _path(name: str, workspace: Workspace) -> Path:
    """The table of a device, or a file that is given by its path."""
    return Path(name) if name.endswith(".sqlite") else workspace.table_path(name)
