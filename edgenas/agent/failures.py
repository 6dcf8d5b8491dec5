"""How the agent reports that something failed."""

from __future__ import annotations

import contextlib
from typing import Iterator


class AgentError(Exception):
    """A request that cannot be served; ``kind`` tells the host what sort of failure it is.

    Kinds: ``request`` (the host asked for nonsense), ``missing`` (content is not in the cache),
    ``input`` (arrays that do not fit the model),
    ``model`` (the runtime refuses the model), ``device`` (the device is not able), ``runtime``
    (something failed while it ran), ``crash`` (the process that ran the model ended).
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
        raise AgentError(kind, f"{what}: {type(error).__name__}: {error}") from error
