"""One measurement at a time on a device, whoever asks for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Callable, Iterator


def lease_path(folder: Path) -> Path:
    """Where the lock of the device is, for an agent that keeps its things in ``folder``.

    The usual folder is one user's, but the processor is everybody's: there the lock is the machine's.
    Who names another folder (``EDGENAS_CACHE``) has a lock of its own.
    """
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenas" / "agent"
    if folder == usual:
        shared = Path("/tmp")  # noqa: S108 - TMPDIR may be one user's; the file is opened with care
        return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / "edgenas-measuring.lock"
    return folder / "measuring.lock"


class Lease:
    """A lock on the device that ends with the process that holds it.

    It is taken for one request at a time, so that two hosts, two users, or two runtimes of one host
    take turns instead of waiting for each other for ever.
    """

    def __init__(self, path: Path, holder: str) -> None:
        self._path, self._holder = path, holder

    @contextlib.contextmanager
    def held(self, waiting: Callable[[str], None]) -> Iterator[None]:
        """Holds the device inside the block; ``waiting`` is told who has it where one must wait."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(self._path)
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


def _opened(path: Path) -> int:
    """The lock's file, writable for every user; in a shared folder Linux lets nobody create it twice."""
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            os.fchmod(descriptor, 0o666)
            return descriptor
    return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
