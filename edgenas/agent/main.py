"""The agent's loop: reads requests, serves each, reports whatever fails."""

from __future__ import annotations

import functools
import os
import sys
from typing import Optional, Sequence

from . import protocol
from .backend import get_backend
from .failures import AgentError, reported_as
from .rounds import measure_alone
from .service import Service
from .template import COPIES, serve_copies


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Serves requests until stdin closes. ``arguments`` are those of the command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    reader, writer = protocol.protected_pipes()
    if given[:1] == [COPIES]:
        measure = functools.partial(measure_alone, get_backend(*given[1:]))
        serve_copies(reader.fileno(), writer.fileno(), measure)
        return 0
    channel = protocol.Channel(reader, writer)
    channel.greet(
        {
            "edgenas": "agent",
            "protocol": protocol.PROTOCOL,
            "python": list(sys.version_info[:3]),
            "pid": os.getpid(),
            "bits": 64 if sys.maxsize > 2**32 else 32,
        }
    )
    channel.start()
    service = Service(channel, given[0] if given else "")
    while True:
        _serve_one(channel, service)


def _serve_one(channel: protocol.Channel, service: Service) -> None:
    try:
        request = channel.next_request()
    except AgentError as failure:
        channel.error(failure.kind, failure.message)
        return
    channel.begin(request.number)
    try:
        with reported_as("runtime", f"'{request.method}' failed"):
            result = service.serve(request.method, request.params, request.attached)
    except AgentError as failure:
        channel.error(failure.kind, failure.message)
    else:
        channel.result(result)
