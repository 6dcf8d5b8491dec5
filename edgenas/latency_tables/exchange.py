"""Tables in files that other programs read, and rows of one table added to another."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from edgenas.errors import TableError, UsageError
from edgenas.files import write_atomically
from edgenas.latency_tables.database import Database, checksum
from edgenas.latency_tables.schema import CHECKED_TABLES, SCHEMA_VERSION
from edgenas.latency_tables.table import LatencyTable
from edgenas.latency_tables.tabular import META, Rows, read_csv, read_parquet, write_csv, write_parquet

Format: TypeAlias = Literal["json", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("json", "csv", "parquet")
_FORMAT_NAME = "edgenas-latency-table"
_META_COLUMNS = {"name": "TEXT", "value": "TEXT"}


@dataclass(frozen=True)
class Exported:
    """The content of a table outside of SQLite: the rows of every checked table, as they are stored."""

    device: str
    rows: dict[str, Rows]


def export_table(table: LatencyTable, output: Path, form: Format) -> dict[str, int]:
    """Writes every row and column as it is stored, checksums included; ``read_exported`` reads it again.

    Args:
        table: what to write.
        output: a file for ``json``; for ``csv`` and ``parquet`` a folder, which gets one file a table.
        form: one of ``FORMATS``.

    Returns:
        How many rows of each table were written.

    Raises:
        UsageError: ``output`` is of the wrong kind, or pyarrow is not installed.
    """
    rows = {name: list(table.database.rows(name)) for name in CHECKED_TABLES}
    if form == "json":
        _write_json(table.device, rows, output)
    else:
        _write_folder(table, rows, output, form)
    return {name: len(found) for name, found in rows.items()}


def _write_json(device: str, rows: dict[str, Rows], output: Path) -> None:
    if output.is_dir():
        raise UsageError(f"{output} is a folder; a JSON export is one file")
    content = {"format": _FORMAT_NAME, "version": SCHEMA_VERSION, "device": device, "tables": rows}
    write_atomically(output, json.dumps(content, separators=(",", ":")))


def _write_folder(table: LatencyTable, rows: dict[str, Rows], output: Path, form: Format) -> None:
    if output.is_file():
        raise UsageError(f"{output} is a file; an export as {form} is a folder with a file for each table")
    write = write_csv if form == "csv" else write_parquet
    meta = {"format": _FORMAT_NAME, "version": str(SCHEMA_VERSION), "device": table.device}
    write(output / f"{META}.{form}", _META_COLUMNS, [{"name": n, "value": v} for n, v in meta.items()])
    for name, found in rows.items():
        write(output / f"{name}.{form}", _columns(table.database, name), found)


def add_rows(table: LatencyTable, exported: Exported) -> dict[str, int]:
    """Adds the rows that a table does not have yet, all in one transaction, and counts them by table."""
    added = {}
    with table.database.writing() as connection:
        for name in CHECKED_TABLES:
            before = connection.total_changes
            columns = _columns(table.database, name)
            marks = ", ".join("?" * len(columns))
            statement = f"INSERT OR IGNORE INTO {name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
            connection.executemany(
                statement, [[row[column] for column in columns] for row in exported.rows[name]]
            )
            added[name] = connection.total_changes - before
    return added


def open_copy(source: Path, folder: Path) -> LatencyTable:
    """A table that may be read and written without ``source`` ever changing.

    Args:
        source: a table's SQLite file, or any export of it.
        folder: an empty folder for the copy; keep it as long as the table.

    Raises:
        TableError: the source is missing, damaged, no latency table, or from a newer version.
    """
    found = read_exported(source)
    with contextlib.ExitStack() as opened:
        table = opened.enter_context(
            LatencyTable.open(folder / "copy.sqlite", create=True, device=found.device)
        )
        add_rows(table, found)
        opened.pop_all()
    return table


def read_exported(source: Path) -> Exported:
    """A table's content from its SQLite file or from any export, every row checked.

    Raises:
        TableError: the source is missing, damaged, no latency table, or from a newer version.
        UsageError: it is Parquet and pyarrow is not installed.
    """
    if not source.exists():
        raise TableError(f"there is no table at {source}", hint=f"edgenas table export --output {source}")
    found = _reader(source)(source)
    for name, columns in _newest_columns().items():
        for row in found.rows[name]:
            _check(row, name, list(columns), source)
    _check_references(found, source)
    return found


def _reader(source: Path) -> Callable[[Path], Exported]:
    if source.is_dir():
        return _from_folder
    return _from_json if source.suffix == ".json" else _from_sqlite


def _from_sqlite(source: Path) -> Exported:
    database = Database(source)
    try:
        device = database.connection.execute("SELECT value FROM meta WHERE name = 'device'").fetchone()
        rows = {name: list(database.rows(name)) for name in CHECKED_TABLES}
    finally:
        database.close()
    return Exported(str(device[0]) if device else source.stem, rows)


class _JSONExport(msgspec.Struct):
    format: str
    version: int
    device: str
    tables: dict[str, Rows]


def _from_json(source: Path) -> Exported:
    try:
        content = msgspec.json.decode(source.read_bytes(), type=_JSONExport)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TableError(f"{source} is not an exported latency table: {error}") from error
    _require_readable(source, content.format, content.version)
    # Tables that an older version did not have are empty.
    return Exported(content.device, {name: content.tables.get(name, []) for name in CHECKED_TABLES})


def _from_folder(source: Path) -> Exported:
    form: Format = "parquet" if (source / f"{META}.parquet").is_file() else "csv"
    read = read_parquet if form == "parquet" else read_csv
    meta = {row["name"]: row["value"] for row in read(source / f"{META}.{form}", _META_COLUMNS)}
    version = str(meta.get("version"))
    _require_readable(source, meta.get("format"), int(version) if version.isdecimal() else 0)
    rows = {
        name: read(source / f"{name}.{form}", columns) if (source / f"{name}.{form}").exists() else []
        for name, columns in _newest_columns().items()
    }
    return Exported(str(meta.get("device") or source.stem), rows)


def _require_readable(source: Path, form: object, version: int) -> None:
    if form != _FORMAT_NAME:
        raise TableError(f"{source} is not an exported latency table")
    if not 1 <= version <= SCHEMA_VERSION:
        raise TableError(
            f"{source} has version {version}; this EdgeNAS imports versions up to {SCHEMA_VERSION}",
            hint="update EdgeNAS: pip install --upgrade edgenas",
        )


def _check(row: dict[str, Any], name: str, columns: list[str], source: Path) -> None:
    if list(row) != columns:
        raise TableError(f"{source}: a row of '{name}' has the columns {', '.join(row)}")
    *values, written = row.values()
    if checksum(values) != written:
        raise TableError(f"{source} is damaged: row {values[0]!r} of '{name}' is not what was written")


def _check_references(found: Exported, source: Path) -> None:
    """Every row must bring the run that wrote it and the environment that it was measured in."""
    known = {table: {row["id"] for row in found.rows[table]} for table in ("runs", "environments")}
    for column, table in (("run_id", "runs"), ("environment_id", "environments")):
        asked = {row[column] for rows in found.rows.values() for row in rows if column in row}
        if asked - known[table]:
            raise TableError(f"{source} is damaged: it lacks {len(asked - known[table])} rows of '{table}'")


def _columns(database: Database, name: str) -> dict[str, str]:
    """SQL types by column; a question mark behind those that may be NULL."""
    described = database.connection.execute(f"PRAGMA table_info({name})")
    return {row[1]: row[2] + ("" if row[3] or row[5] else "?") for row in described}


def _newest_columns() -> dict[str, dict[str, str]]:
    """The columns of every checked table, as a new database has them."""
    database = Database(Path(":memory:"), create=True)
    try:
        return {name: _columns(database, name) for name in CHECKED_TABLES}
    finally:
        database.close()
