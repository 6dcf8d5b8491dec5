"""Tables as folders of CSV or Parquet files, one file a table, that any data tool reads.

Both hold every column of every row, checksums included, so that what was written out can be read in
again without loss. ``meta`` holds what a file by itself would not say: format, version, device.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from edgenas.errors import TableError, UsageError
from edgenas.files import replaced

Rows: TypeAlias = list[dict[str, Any]]

META = "meta"
_LARGEST_FIELD = 1 << 28  # characters of one CSV field; a trace of a large network has a few 100,000


def write_csv(path: Path, columns: dict[str, str], rows: Rows) -> None:
    """One CSV file (RFC 4180) with a line of headings; NULL is an empty field, floats are exact."""
    with replaced(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path, columns: dict[str, str]) -> Rows:
    """The rows of ``write_csv``, with the types that ``columns`` (SQL type by name) gives them.

    Raises:
        TableError: the file is no such table.
    """
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            _require_columns(path, reader.fieldnames or (), columns)
            return [{name: _typed(row[name], kind) for name, kind in columns.items()} for row in reader]
    except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        raise TableError(f"{path} is not an exported latency table: {error}") from error
    finally:
        csv.field_size_limit(before)


_TYPES: dict[str, Callable[[str], Any]] = {"INTEGER": int, "REAL": float, "TEXT": str}


def _typed(text: str | None, kind: str) -> Any:
    return None if not text and kind.endswith("?") else _TYPES[kind.rstrip("?")](text or "")


def _require_columns(path: Path, found: Sequence[str], columns: dict[str, str]) -> None:
    if list(found) != list(columns):
        raise TableError(
            f"{path} has the columns {', '.join(found) or 'none'}; expected are {', '.join(columns)}"
        )


def write_parquet(path: Path, columns: dict[str, str], rows: Rows) -> None:
    """One Parquet file with a column for each of ``columns`` (SQL type by name).

    Raises:
        UsageError: pyarrow is not installed.
    """
    _require_pyarrow()
    import pyarrow
    import pyarrow.parquet

    kinds = {"INTEGER": pyarrow.int64(), "REAL": pyarrow.float64(), "TEXT": pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[kind.rstrip("?")]) for name, kind in columns.items()])
    with replaced(path) as unfinished:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), unfinished)


def read_parquet(path: Path, columns: dict[str, str]) -> Rows:
    """The rows of ``write_parquet``.

    Raises:
        TableError: the file is no such table.
        UsageError: pyarrow is not installed.
    """
    _require_pyarrow()
    import pyarrow
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise TableError(f"{path} is not an exported latency table: {error}") from error
    _require_columns(path, found.column_names, columns)
    rows: Rows = found.to_pylist()
    return rows


def _require_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(
            "Parquet files need the package pyarrow, which is not installed",
            hint='pip install "edgenas[tables]", or export as .json or CSV',
        )
