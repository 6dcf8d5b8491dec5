"""One measurement at a time on a device, whoever asks for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Callable, Iterator


class Lease:
    """A lock on the device that ends with the process that holds it.

    It is taken for one request at a time, so that two hosts, or two runtimes of one host, take
    turns instead of waiting for each other for ever.
    """

    def __init__(self, path: Path, holder: str) -> None:
        self._path, self._holder = path, holder

    @contextlib.contextmanager
    def held(self, waiting: Callable[[str], None]) -> Iterator[None]:
        """Holds the device inside the block; ``waiting`` is told who has it where one must wait."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(os.read(descriptor, 400).decode("utf-8", "replace") or "another process")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._holder.encode()[:400], 0)
            yield
        finally:
            os.close(descriptor)
