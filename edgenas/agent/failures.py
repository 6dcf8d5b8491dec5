"""How the agent reports that something failed."""

from __future__ import annotations

import contextlib
import re
import signal
from typing import Iterator

# How Python, C++ and ONNX Runtime's arena say that memory ran out.
_OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|bad allocation|[Ff]ailed to allocate|Cannot allocate memory"
)
_REQUESTED = re.compile(r"(?:requested buffer of size|[Uu]nable to allocate) (\d+)(?!\S)")


class AgentError(Exception):
    """A request that cannot be served; ``kind`` tells the host what sort of failure it is.

    Kinds: ``request`` (the host asked for nonsense), ``missing`` (content is not in the cache),
    ``input`` (arrays that do not fit the model),
    ``model`` (the runtime refuses the model), ``device`` (the device is not able), ``runtime``
    (something failed while it ran), ``memory`` (the device ran out of it), ``crash`` (the process
    that ran the model ended).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@contextlib.contextmanager
def reported_as(kind: str, what: str) -> Iterator[None]:
    """Makes a failure of this kind out of any exception inside the block.

    The one place that catches everything: the exceptions of the runtimes derive from ``Exception``
    directly, and a model that fails is a result to report, never the end of the agent.
    """
    try:
        yield
    except AgentError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if _OUT_OF_MEMORY.search(said):
            raise AgentError("memory", _out_of_memory(said)) from error
        raise AgentError(kind, f"{what}: {said}") from error


def how_it_ended(code: int) -> str:
    """What a process's exit code says; a negative one is the number of a signal."""
    if code >= 0:
        return f"the process that ran the model ended with code {code}"
    return f"the process that ran the model was ended by {signal.Signals(-code).name}"


def _out_of_memory(said: str) -> str:
    requested = _REQUESTED.search(said)
    piece = f", {int(requested.group(1)) >> 20} MiB in one piece were asked for" if requested else ""
    return f"the device's memory does not suffice{piece}"
