"""How long to train: whole epochs, or CPU seconds of this process."""

from __future__ import annotations

import time

from edgenas.errors import UsageError
from edgenas.records import Record


class Budget(Record):
    """Exactly one of ``epochs`` and ``cpu_seconds``.

    CPU seconds count all threads of the process, so that a busy machine makes training longer and
    not worse. Measuring accuracy between epochs does not count.

    Raises:
        UsageError: none or both are given, or the one given is not positive.
    """

    epochs: int | None = None
    cpu_seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.cpu_seconds is None):
            raise UsageError("a training budget is either epochs or CPU seconds", hint="give one of the two")
        if (self.epochs or self.cpu_seconds or 0) <= 0:
            raise UsageError(f"a training budget must be positive, found {self.epochs or self.cpu_seconds}")


class Spending:
    """What of a budget is used up; ``cpu_seconds`` before this process are carried over.

    Args:
        steps: steps of one epoch.
    """

    def __init__(self, budget: Budget, steps: int, *, step: int = 0, cpu_seconds: float = 0.0) -> None:
        self._budget = budget
        self._steps = steps
        self.step = step
        self._before = cpu_seconds
        self._started: float | None = None

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds spent between ``start`` and ``pause``."""
        return self._before + (0.0 if self._started is None else time.process_time() - self._started)

    @property
    def fraction(self) -> float:
        """Share of the budget that is spent, 0..1."""
        if self._budget.cpu_seconds is not None:
            return min(self.cpu_seconds / self._budget.cpu_seconds, 1.0)
        assert self._budget.epochs is not None, "a budget has one of the two"
        return min(self.step / (self._budget.epochs * self._steps), 1.0)

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return self.fraction >= 1.0

    def start(self) -> None:
        """The clock runs."""
        self._started = time.process_time()

    def pause(self) -> None:
        """The clock stands still until ``start``."""
        self._before, self._started = self.cpu_seconds, None
