"""Tables in files that other programs read, and rows of one table added to another."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgenas.errors import TableError, UsageError
from edgenas.files import write_atomically
from edgenas.latency_tables.database import Database, checksum
from edgenas.latency_tables.schema import CHECKED_TABLES, SCHEMA_VERSION
from edgenas.latency_tables.table import LatencyTable

FORMATS = ("json", "csv")
_FORMAT_NAME = "edgenas-latency-table"


def export_json(table: LatencyTable, output: Path) -> dict[str, int]:
    """Writes all rows, checksums included, as one JSON file that ``import_rows`` reads again."""
    rows = {name: list(_raw(table.database, name)) for name in CHECKED_TABLES}
    content = {"format": _FORMAT_NAME, "version": SCHEMA_VERSION, "device": table.device, "tables": rows}
    _write(output, json.dumps(content, indent=None, separators=(",", ":")))
    return {name: len(found) for name, found in rows.items()}


def export_csv(table: LatencyTable, output: Path) -> dict[str, int]:
    """Writes one CSV file a table into the folder ``output``: every row and column as it is stored."""
    output.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name in CHECKED_TABLES:
        rows = list(_raw(table.database, name))
        with (output / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=_columns(table.database, name))
            writer.writeheader()
            writer.writerows(rows)
        counts[name] = len(rows)
    return counts


def import_rows(table: LatencyTable, source: Path) -> dict[str, int]:
    """Adds the rows of another table (its SQLite file or its JSON export) that are not there yet.

    Every row is checked before anything is written.

    Raises:
        TableError: the source is damaged, no latency table, or from another version.
    """
    rows = _from_json(source) if source.suffix == ".json" else _from_sqlite(source)
    for name in CHECKED_TABLES:
        _check(rows[name], name, source)
    added = {}
    with table.database.writing() as connection:
        for name in CHECKED_TABLES:
            before = connection.total_changes
            columns = _columns(table.database, name)
            marks = ", ".join("?" * len(columns))
            statement = f"INSERT OR IGNORE INTO {name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
            connection.executemany(statement, [[row[column] for column in columns] for row in rows[name]])
            added[name] = connection.total_changes - before
    return added


def open_copy(source: Path, folder: Path) -> LatencyTable:
    """A table that may be read and written without ``source`` ever changing.

    Args:
        source: a table's SQLite file or its JSON export.
        folder: an empty folder for the copy; keep it as long as the table.

    Raises:
        TableError: the source is missing, damaged, no latency table, or from another version.
    """
    if not source.is_file():
        raise TableError(f"there is no table at {source}", hint=f"edgenas table export --output {source}")
    device = _exported_device(source) if source.suffix == ".json" else _stored_device(source)
    table = LatencyTable.open(folder / "copy.sqlite", create=True, device=device)
    try:
        import_rows(table, source)
    except BaseException:
        table.close()
        raise
    return table


def _exported_device(source: Path) -> str:
    device = _exported(source).get("device")
    if not isinstance(device, str):
        raise TableError(f"{source} does not say which device it is of")
    return device


def _stored_device(source: Path) -> str:
    database = Database(source)
    try:
        found = database.connection.execute("SELECT value FROM meta WHERE name = 'device'").fetchone()
    finally:
        database.close()
    return str(found[0]) if found else source.stem


def _from_sqlite(source: Path) -> dict[str, list[dict[str, Any]]]:
    database = Database(source)
    try:
        return {name: list(_raw(database, name)) for name in CHECKED_TABLES}
    finally:
        database.close()


def _from_json(source: Path) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = _exported(source)["tables"]
    return {name: tables.get(name, []) for name in CHECKED_TABLES}


def _exported(source: Path) -> dict[str, Any]:
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"{source} is not an exported latency table: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT_NAME:
        raise TableError(f"{source} is JSON, but not an exported latency table")
    if content.get("version") != SCHEMA_VERSION:
        raise TableError(
            f"{source} has version {content.get('version')}; this EdgeNAS imports version {SCHEMA_VERSION}",
            hint="export it again with the same EdgeNAS",
        )
    return content


def _check(rows: Iterable[dict[str, Any]], name: str, source: Path) -> None:
    for row in rows:
        values = list(row.values())
        if checksum(values[:-1]) != values[-1]:
            raise TableError(f"{source} is damaged: row {values[0]!r} of '{name}' is not what was written")


def _raw(database: Database, name: str) -> Iterable[dict[str, Any]]:
    columns = _columns(database, name)
    for values in database.connection.execute(f"SELECT * FROM {name}"):  # noqa: S608
        yield dict(zip(columns, values, strict=True))


def _columns(database: Database, name: str) -> list[str]:
    return [row[1] for row in database.connection.execute(f"PRAGMA table_info({name})")]


def _write(output: Path, text: str) -> None:
    if output.is_dir():
        raise UsageError(f"{output} is a folder; a JSON export is one file")
    write_atomically(output, text)
