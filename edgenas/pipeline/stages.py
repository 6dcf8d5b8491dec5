"""The stages of one run: a finished stage is not run again while its inputs are unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from edgenas.errors import ArtifactError, UsageError
from edgenas.files import file_sha256, locked, remove_unfinished, write_atomically
from edgenas.progress import say
from edgenas.records import Record

Result = TypeVar("Result", bound=Record)
_MARKS = ".stages"


def _no_files(result: Record) -> Sequence[str]:
    """What a stage leaves that leaves its record alone."""
    del result
    return ()


class RunFolder:
    """A folder under ``runs/`` whose stages leave one JSON record each.

    Beside ``NAME.json`` a mark holds the hash of the inputs that the stage had and of the files
    that it left, so that changed settings or a damaged file run the stage again, and nothing else does.
    One process at a time works in a folder: it is locked inside a ``with`` block.

    Raises:
        UsageError: another process works in the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        lock = locked(self.path / ".lock")
        if lock is None:
            raise UsageError(
                f"another process works in {self.path}",
                hint="wait for it, or choose another folder with --name",
            )
        self._lock = lock
        remove_unfinished(self.path)
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    def stage(
        self,
        name: str,
        result_type: type[Result],
        work: Callable[[], Result],
        *,
        inputs: Mapping[str, Any],
        files: Callable[[Result], Sequence[str]] = _no_files,
    ) -> Result:
        """The record of a stage, from disk when it is finished, else from ``work()``.

        Args:
            name: the stage; its record is stored as ``NAME.json``.
            result_type: the record's type.
            work: does the stage and returns its record.
            inputs: everything that the result depends on, as JSON-able values (hashes of files).
            files: names in the folder that the stage leaves beside its record, by that record.

        Raises:
            ArtifactError: ``work`` did not leave one of them.
        """
        mark = self.path / _MARKS / f"{name}.json"
        inputs_sha256 = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        finished = self._finished(name, result_type, mark, inputs_sha256)
        if finished is not None:
            say(f"{name}: finished before, reused")
            return finished
        result = work()
        self.save(name, result)
        hashes = {file: self._sha256(file) for file in (f"{name}.json", *files(result))}
        write_atomically(mark, json.dumps({"inputs_sha256": inputs_sha256, "files": hashes}).encode())
        return result

    def forget(self, name: str) -> None:
        """Has a stage run again: something outside the folder that it left is gone."""
        (self.path / _MARKS / f"{name}.json").unlink(missing_ok=True)

    def save(self, name: str, record: Record | list[Any] | dict[str, Any]) -> Path:
        """Writes one record as ``NAME.json``."""
        path = self.path / f"{name}.json"
        write_atomically(path, msgspec.json.format(msgspec.json.encode(record), indent=1))
        return path

    def _sha256(self, file: str) -> str:
        try:
            return file_sha256(self.path / file)
        except FileNotFoundError as error:
            raise ArtifactError(f"{self.path / file} was not written", hint="run the same again") from error

    def _finished(
        self, name: str, result_type: type[Result], mark: Path, inputs_sha256: str
    ) -> Result | None:
        try:
            noted = json.loads(mark.read_text())
            if noted["inputs_sha256"] != inputs_sha256:
                return None
            if any(file_sha256(self.path / file) != sha256 for file, sha256 in noted["files"].items()):
                return None
            return msgspec.json.decode((self.path / f"{name}.json").read_bytes(), type=result_type)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
