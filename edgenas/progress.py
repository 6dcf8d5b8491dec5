"""Progress and warnings of long work, without knowing who watches.

A stage says ``with track("Profiling", total=60) as task: task.advance(note="...")``; the CLI
installs a watcher that draws bars on stderr, and without one nothing is shown.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar


class Task:
    """One piece of long work; the base class is silent."""

    def advance(self, amount: float = 1.0, *, note: str = "") -> None:
        """Reports ``amount`` more units of work done; ``note`` replaces the text beside the bar."""


class Watcher(ABC):
    """Receives progress and messages."""

    @abstractmethod
    def track(self, description: str, total: float | None) -> AbstractContextManager[Task]:
        """Starts a piece of work of ``total`` units (None: unknown)."""

    @abstractmethod
    def warn(self, message: str) -> None:
        """Shows something that the user should know but that does not stop the work."""

    @abstractmethod
    def say(self, message: str) -> None:
        """Shows one line of what happens."""


class _Silent(Watcher):
    def track(self, description: str, total: float | None) -> AbstractContextManager[Task]:
        return contextlib.nullcontext(Task())

    def warn(self, message: str) -> None:
        pass

    def say(self, message: str) -> None:
        pass


_SILENT = _Silent()
_watcher: ContextVar[Watcher] = ContextVar("edgenas_watcher")


def _current() -> Watcher:
    return _watcher.get(_SILENT)


@contextlib.contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Sends the progress of everything inside the block to ``watcher``."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def track(description: str, total: float | None = None) -> AbstractContextManager[Task]:
    """Starts a piece of long work of ``total`` units (None: unknown)."""
    return _current().track(description, total)


def warn(message: str) -> None:
    """Tells the user something that does not stop the work."""
    _current().warn(message)


def say(message: str) -> None:
    """Tells the user one line of what happens."""
    _current().say(message)
