"""One SQLite file: opened, checked, migrated, written by several processes, never half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgenas.errors import TableError
from edgenas.latency_tables.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION

_BUSY_TIMEOUT_S = 60.0


def checksum(values: Sequence[Any]) -> str:
    """64 bits of hash over the values of one row, in hexadecimal."""
    text = json.dumps(list(values), separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Database:
    """A connection to a table file, with SQLite's errors turned into ``TableError``.

    Args:
        path: the SQLite file.
        create: makes file and schema where there is none.

    Raises:
        TableError: the file is missing, damaged, not a latency table, or from a newer version.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            raise TableError(
                f"there is no latency table at {path}", hint=f"edgenas profile --device {path.stem}"
            )
        with self._translated():
            self.connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        with contextlib.ExitStack() as opened:
            opened.callback(self.connection.close)
            with self._translated():
                self._prepare(create=create)
            opened.pop_all()

    def _prepare(self, *, create: bool) -> None:
        version = self._checked_version(create=create)
        self.connection.execute("PRAGMA foreign_keys = ON")
        if version < SCHEMA_VERSION:
            # WAL lets readers and several writers work at once; it stays set in the file.
            self.connection.execute("PRAGMA journal_mode = WAL")
            self._migrate()
        # A killed process loses nothing at NORMAL; only a power cut can lose the last rows.
        self.connection.execute("PRAGMA synchronous = NORMAL")

    def _checked_version(self, *, create: bool) -> int:
        """The schema version of the file, after refusing what is not a readable table."""
        application = self._pragma("application_id")
        version = self._pragma("user_version")
        empty = self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if empty and version == 0:
            if create:
                return 0
            raise TableError(
                f"{self.path} is empty", hint=f"remove it, then: edgenas profile --device {self.path.stem}"
            )
        if application != APPLICATION_ID:
            raise TableError(f"{self.path} is an SQLite file, but not a latency table of EdgeNAS")
        if version > SCHEMA_VERSION:
            raise TableError(
                f"{self.path} has schema version {version}; this EdgeNAS reads up to {SCHEMA_VERSION}",
                hint="update EdgeNAS: pip install --upgrade edgenas",
            )
        return version

    def _pragma(self, name: str) -> int:
        return int(self.connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _migrate(self) -> None:
        """Brings the schema to the newest version in one transaction; other writers wait."""
        with self.writing():
            version = self._pragma("user_version")  # another process may have migrated meanwhile
            for script in MIGRATIONS[version:]:
                for statement in _statements(script):
                    self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self.connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is wholly there or not at all."""
        with self._translated():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            finally:
                if self.connection.in_transaction:  # it was not committed
                    self.connection.execute("ROLLBACK")

    def insert(self, table: str, row: dict[str, Any], *, replace: bool = False) -> None:
        """Adds one row with its checksum; a row whose key exists is kept unless ``replace``."""
        values = [*row.values(), checksum(list(row.values()))]
        columns = ", ".join([*row, "checksum"])
        marks = ", ".join("?" * len(values))
        verb = "REPLACE" if replace else "IGNORE"
        self.connection.execute(f"INSERT OR {verb} INTO {table} ({columns}) VALUES ({marks})", values)  # noqa: S608

    def rows(self, table: str, where: str = "1", arguments: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
        """Rows of a table as dictionaries, each checked against its checksum.

        Raises:
            TableError: a row is not what was written.
        """
        with self._translated():
            cursor = self.connection.execute(f"SELECT * FROM {table} WHERE {where}", arguments)  # noqa: S608
            names = [column[0] for column in cursor.description]
            for values in cursor:
                if checksum(values[:-1]) != values[-1]:
                    raise self.damaged(f"a row of '{table}' ({values[0]!r}) is not what was written")
                yield dict(zip(names, values, strict=True))

    def raw_rows(self, query: str, arguments: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """What a query finds, unchecked."""
        with self._translated():
            yield from self.connection.execute(query, arguments)

    def damaged(self, reason: str) -> TableError:
        """The error for a file whose content cannot be trusted."""
        return TableError(
            f"the latency table {self.path} is damaged: {reason}",
            hint=f"edgenas table verify {self.path.stem}; restore a copy, or remove it and profile again",
        )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._as_table_error(error) from error
        except UnicodeDecodeError as error:
            raise self.damaged(f"text that is not UTF-8 ({error.reason})") from error

    def _as_table_error(self, error: sqlite3.Error) -> TableError:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_FULL"):
            return TableError(
                f"the disk that holds {self.path} is full; what was measured before is safe in the table",
                hint="free some space and run the same command again: it goes on where it stopped",
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return TableError(
                f"{self.path} is locked by another process for more than {_BUSY_TIMEOUT_S:.0f} s"
            )
        if name.startswith("SQLITE_IOERR"):  # a quota or a size limit is no SQLITE_FULL
            return TableError(
                f"{self.path} cannot be read or written: {error}; what was measured before is safe in it",
                hint="check the disk that holds it (space, quota, health) and run the same command again",
            )
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
            return TableError(
                f"{self.path} cannot be opened or written: {error}", hint="check its folder's permissions"
            )
        return self.damaged(str(error))

    def close(self) -> None:
        """Closes the file; the last process out folds the write-ahead log into it."""
        self.connection.close()


def _statements(script: str) -> Iterator[str]:
    """The statements of an SQL script; ``executescript`` would commit between them."""
    pending = ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
