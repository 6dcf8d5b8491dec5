"""Whether a table still holds what was written: SQLite's own check, checksums, references."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edgenas.errors import TableError
from edgenas.latency_tables.database import Database, checksum
from edgenas.latency_tables.schema import CHECKED_TABLES
from edgenas.records import TableVerification

_MOST_PROBLEMS = 50


def verify(path: Path, *, device: str) -> TableVerification:
    """Checks a whole table without changing it.

    Raises:
        TableError: the file is missing, no latency table, or from a newer version.
    """
    rows: dict[str, int] = {}
    problems: list[str] = []
    try:
        database = Database(path)
    except TableError as error:
        if "is damaged" not in error.message:
            raise
        problems.append(error.message)
    else:
        try:
            for problem in _problems(database, rows):
                problems.append(problem)
                if len(problems) >= _MOST_PROBLEMS:
                    break
        finally:
            database.close()
    return TableVerification(
        device=device, path=str(path), rows=rows, problems=tuple(problems), intact=not problems
    )


def _problems(database: Database, rows: dict[str, int]) -> Iterator[str]:
    try:
        for (line,) in database.connection.execute("PRAGMA integrity_check"):
            if line != "ok":
                yield f"SQLite: {line}"
        for table, row_id, parent, _ in database.connection.execute("PRAGMA foreign_key_check"):
            yield f"row {row_id} of '{table}' refers to a row of '{parent}' that is not there"
        for table in CHECKED_TABLES:
            rows[table] = 0
            yield from _row_problems(database, table, rows)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        yield f"SQLite: {error}"


def _row_problems(database: Database, table: str, rows: dict[str, int]) -> Iterator[str]:
    for values in database.connection.execute(f"SELECT * FROM {table}"):  # noqa: S608
        rows[table] += 1
        if not _is_as_written(values):
            yield f"row {values[0]!r} of '{table}' is not what was written"


def _is_as_written(values: tuple[object, ...]) -> bool:
    try:
        return checksum(values[:-1]) == values[-1]
    except (TypeError, ValueError):  # bytes where text was written
        return False
