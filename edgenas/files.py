"""Files that are replaced whole or not at all, and their hashes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_UNFINISHED = ".unfinished"


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A name to write to; its file takes the place of ``path`` when the block ends.

    A process that is killed meanwhile, or a block that fails, leaves ``path`` as it was. Processes
    that write the same file do not disturb each other: the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replaces ``path`` in one step; text is written as UTF-8."""
    with replaced(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def locked(path: Path) -> IO[bytes] | None:
    """A handle that holds the lock on ``path`` until it is closed; None where another process has it.

    The system lets go of the lock of a process that dies.
    """
    handle = path.open("wb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left half-written below ``folder``; no other may be writing there."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
