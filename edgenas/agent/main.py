"""The agent's loop: reads requests, serves each, reports whatever fails."""

from __future__ import annotations

import os
import sys
from typing import Optional, Sequence

from . import protocol
from .failures import AgentError, reported_as
from .service import Service


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Serves requests until stdin closes. ``arguments`` are those of the command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    reader, writer = protocol.protected_pipes()
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
