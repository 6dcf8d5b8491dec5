"""Every error that EdgeNAS raises on purpose.

    EdgeNASError                   exit code 1
    ├── UsageError                 exit code 2   an option, a name or a configuration is wrong
    │   └── UnknownNameError                     a device, space, scheme, ... that does not exist
    ├── BudgetNotMetError          exit code 3   a gate or a budget was not met; the best so far is saved
    ├── DeviceError                              the device cannot do what was asked
    │   ├── DeviceUnreachableError               no connection, no Python, no runtime
    │   ├── AgentProtocolError                   the agent said something that is not the protocol
    │   └── MeasurementError                     one measurement failed on the device
    ├── TableError                               a latency table is missing, damaged or too new
    │   └── UnknownKernelsError                  nothing in the table can price these kernels
    ├── ModelError                               an ONNX file is corrupt, dynamic or unsupported
    ├── DivergedError                            a training whose loss is not finite any more
    ├── DataError                                a data set is missing, empty or unreadable
    └── ArtifactError                            a file of a run is missing, damaged or too new

A message states what was asked, what was found, and what exists; ``hint`` says what to type next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar


class EdgeNASError(Exception):
    """Base of all errors: a message for people, a hint with the next step, an exit code."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        """The ``error`` object that ``--json`` prints."""
        return {"type": type(self).__name__, "message": self.message, "hint": self.hint}


def unusable_file(error: OSError) -> EdgeNASError:
    """What the system refused, where no command has a better word for it: a full disk, no permission."""
    where = f"{error.filename}: " if error.filename else ""
    found = EdgeNASError(
        f"{where}{error.strerror or error}",
        hint="what was finished is saved; --debug shows where it happened",
    )
    found.__cause__ = error
    return found


class UsageError(EdgeNASError):
    """An option, a name or a configuration file is wrong."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name was asked for that does not exist; the message lists those that do."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        close = difflib.get_close_matches(name, self.known, n=1)
        exists = ", ".join(self.known) or "none"
        super().__init__(
            f"there is no {kind} '{name}'; known: {exists}",
            hint=hint or (f"did you mean '{close[0]}'?" if close else ""),
        )


class BudgetNotMetError(EdgeNASError):
    """A gate or a budget was not met. What was reached is saved and carried as ``result``."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", result: object = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result


class DeviceError(EdgeNASError):
    """The device cannot do what was asked of it."""


class DeviceUnreachableError(DeviceError):
    """No connection, no Python or no runtime on the device."""


class AgentProtocolError(DeviceError):
    """The agent said something that is not the protocol."""


class MeasurementError(DeviceError):
    """One measurement failed on the device; ``reason`` is what the device's runtime said."""

    def __init__(self, message: str, *, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class TableError(EdgeNASError):
    """A latency table is missing, damaged or from a newer version."""


class UnknownKernelsError(TableError):
    """Nothing in the table can price these kernels; they are never counted as 0 ms."""

    def __init__(self, kernels: Sequence[str], *, device: str, hint: str = "") -> None:
        self.kernels = tuple(kernels)
        named = ", ".join(self.kernels[:8]) + (", ..." if len(self.kernels) > 8 else "")
        count = f"{len(self.kernels)} kernel{'s' if len(self.kernels) > 1 else ''}"
        super().__init__(
            f"the table of '{device}' knows nothing about {count}: {named}",
            hint=hint or f"measure them: edgenas profile --device {device} --model MODEL.onnx",
        )


class ModelError(EdgeNASError):
    """An ONNX file is corrupt, has dynamic dimensions or holds what is not supported."""


class DivergedError(EdgeNASError):
    """A training's loss is not finite any more: the learning rate is too large."""


class DataError(EdgeNASError):
    """A data set is missing, empty or unreadable."""


class ArtifactError(EdgeNASError):
    """A file of a run is missing, damaged or from a newer version."""
