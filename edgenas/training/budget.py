"""How long to train: whole epochs, or CPU seconds, which become a number of steps once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgenas.errors import ArtifactError, UsageError
from edgenas.files import write_atomically
from edgenas.records import Record

VERSION = 1


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


class StepBudget(Record):
    """The steps that a budget in CPU seconds was found to be worth.

    It is kept beside the checkpoint, because a training that goes on after a kill must have the same
    schedule as one that was never stopped, and no two measurements of a step agree.

    Attributes:
        identity: the training that it is for.
        steps: of the whole training.
        step_cpu_seconds: what a step was measured to take.
        cpu_seconds: what measuring took; it counts as spent.
    """

    identity: str
    steps: int
    step_cpu_seconds: float
    cpu_seconds: float
    version: int = VERSION


def save_step_budget(path: Path, found: StepBudget) -> None:
    """Keeps ``found`` in ``path``, whole or not at all."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(found), indent=1))


def load_step_budget(path: Path, identity: str) -> StepBudget | None:
    """What was found for the same training before; None where nothing was.

    Raises:
        ArtifactError: the file is damaged or from a newer version.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=StepBudget)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{path} is damaged: {error}", hint="delete it and train again") from error
    if found.version > VERSION:
        raise ArtifactError(
            f"{path} has version {found.version}, this EdgeNAS reads up to {VERSION}", hint="update EdgeNAS"
        )
    return found if found.identity == identity else None


class Clock:
    """CPU seconds of this process while it runs, on top of those ``before``."""

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._started: float | None = None

    @property
    def cpu_seconds(self) -> float:
        """What was spent while the clock ran."""
        return self._before + (0.0 if self._started is None else time.process_time() - self._started)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The clock runs inside the block."""
        self._started = time.process_time()
        try:
            yield
        finally:
            self._before, self._started = self.cpu_seconds, None
