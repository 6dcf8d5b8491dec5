"""A file that arrives in pieces, and that one process at a time may write."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Optional, Union

Bytes = Union[bytes, memoryview]


class Part:
    """An open file that is locked: no other process writes it or removes it until this one closes it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def locked(cls, path: Path) -> Optional[Part]:
        """The file, made where there is none; None where somebody else has it."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if _is_at(descriptor, path):
                return cls(path, descriptor)
            os.close(descriptor)  # it was finished or removed before the lock was ours

    def size(self) -> int:
        """Bytes that are there."""
        return os.fstat(self._descriptor).st_size

    def clear(self) -> None:
        """Begins anew."""
        os.ftruncate(self._descriptor, 0)

    def append(self, piece: Bytes) -> None:
        """Writes at the end. Raises ``OSError`` where there is no room; what fitted stays."""
        os.lseek(self._descriptor, 0, os.SEEK_END)
        left = memoryview(piece)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def sha256(self) -> str:
        """The hash of all that is there."""
        digest = hashlib.sha256()
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        for block in iter(lambda: os.read(self._descriptor, 1 << 20), b""):
            digest.update(block)
        return digest.hexdigest()

    def close(self) -> None:
        """Gives the file to whoever wants it next."""
        os.close(self._descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False
