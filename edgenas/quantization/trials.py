"""Every trial as it came, in a JSON Lines file: a killed run repeats no finished one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec

from edgenas.errors import ArtifactError
from edgenas.progress import warn
from edgenas.records import Record

VERSION = 1
T = TypeVar("T", bound=Record)


class TrialStore:
    """Results by key; a line is appended and flushed the moment a result is there.

    Args:
        path: the file; made when the first result comes.

    Raises:
        ArtifactError: the file was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, msgspec.Raw] = {}
        if path.is_file():
            self._read()

    def get(self, key: str, record_type: type[T]) -> T | None:
        """The result stored under ``key``."""
        raw = self._lines.get(key)
        return None if raw is None else msgspec.json.decode(raw, type=record_type)

    def put(self, key: str, record: Record, note: str = "") -> None:
        """Appends a result; ``note`` is for people who read the file."""
        raw = msgspec.json.encode(record)
        line = msgspec.json.encode({"version": VERSION, "key": key, "note": note, "result": msgspec.Raw(raw)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(line + b"\n")
        self._lines[key] = msgspec.Raw(raw)

    def _read(self) -> None:
        for line in self.path.read_bytes().splitlines():
            try:
                entry = msgspec.json.decode(line, type=_Line)
            except msgspec.DecodeError:
                warn(f"{self.path}: a line was cut off by an interruption; that trial is made again")
                continue
            if entry.version > VERSION:
                raise ArtifactError(
                    f"{self.path} was written by a newer version (format {entry.version}, this is {VERSION})",
                    hint="upgrade edgenas, or name another output",
                )
            self._lines[entry.key] = entry.result
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(b"\n")


class _Line(Record):
    version: int
    key: str
    result: msgspec.Raw
    note: str = ""


def key_of(*parts: object) -> str:
    """A stable key for what a result depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
