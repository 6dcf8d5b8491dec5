"""JSON Lines over stdin and stdout: one request at a time, events while it runs, one reply.

A request is ``{"id": 1, "method": "trace", "params": {...}}``; what comes back is any number of
``{"id": 1, "kind": "event", "name": ..., "data": ...}`` and then one ``"kind": "result"`` or
``"kind": "error"`` with ``data`` of ``{"kind": ..., "message": ...}``. A request with ``"attached": N``
is followed by N bytes as they are, so that a slow processor decodes no text to get a file.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any, BinaryIO, Dict, NamedTuple, Optional, Tuple, Union

from .failures import AgentError
from .parameters import Parameters

PROTOCOL = 2
MAX_REQUEST_BYTES = 8 << 20  # of a line, and of what is attached to it
HEARTBEAT_S = 2.0


class Request(NamedTuple):
    """One request with the bytes that came behind it."""

    number: int
    method: str
    params: Dict[str, Any]
    attached: bytes = b""


class Channel:
    """The agent's end of the pipe: requests come from a queue, so that a closed stdin is seen at once.

    A host that goes away must never leave a measurement running on the device, so the end of stdin
    ends the process, whatever it is doing.
    """

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader, self._writer = reader, writer
        # Held while a line is written and while it changes which request is served.
        self._lock = threading.Lock()
        self._requests: "queue.Queue[Union[Request, AgentError]]" = queue.Queue(maxsize=2)
        self._current: Optional[int] = None

    def start(self) -> None:
        """Starts to read requests and to send heartbeats while one is served."""
        for target in (self._read, self._beat):
            threading.Thread(target=target, daemon=True).start()

    def next_request(self) -> Request:
        """The next request of the host; waits for it.

        Raises:
            AgentError: what came is not a request.
        """
        request = self._requests.get()
        if isinstance(request, AgentError):
            raise request
        return request

    def begin(self, request_id: int) -> None:
        """From now on events and the reply belong to this request."""
        with self._lock:
            self._current = request_id

    def event(self, name: str, **data: Any) -> None:
        """Tells the host something while the request goes on."""
        with self._lock:
            self._write({"id": self._current, "kind": "event", "name": name, "data": data})

    def result(self, data: Any) -> None:
        """Ends the request with its result."""
        self._finish("result", data)

    def error(self, kind: str, message: str) -> None:
        """Ends the request with a failure."""
        self._finish("error", {"kind": kind, "message": message[:4000]})

    def greet(self, greeting: Dict[str, Any]) -> None:
        """The first line; the host skips whatever a login shell printed before it."""
        with self._lock:
            self._write(greeting)

    def _finish(self, kind: str, data: Any) -> None:
        with self._lock:
            current, self._current = self._current, None
            self._write({"id": current or 0, "kind": kind, "name": "", "data": data})

    def _write(self, message: Dict[str, Any]) -> None:
        line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        self._writer.write(line)
        self._writer.flush()

    def _read(self) -> None:
        while True:
            line = self._reader.readline(MAX_REQUEST_BYTES + 1)
            if not line.endswith(b"\n"):
                os._exit(0 if len(line) <= MAX_REQUEST_BYTES else 3)
            try:
                message = parse_message(line)
                # What a request that is refused has attached must not be taken for the next one.
                attached = self._attachment(Parameters(message).integer("attached", 0))
                self._requests.put(request_of(message, attached))
            except AgentError as failure:
                self._requests.put(failure)

    def _attachment(self, size: int) -> bytes:
        if size > MAX_REQUEST_BYTES:
            os._exit(3)
        content = self._reader.read(size)
        if len(content) < size:
            os._exit(0)
        return content

    def _beat(self) -> None:
        silence = threading.Event()
        while not silence.wait(HEARTBEAT_S):
            with self._lock:
                if self._current is not None:
                    self._write({"id": self._current, "kind": "event", "name": "alive", "data": {}})


def protected_pipes() -> Tuple[BinaryIO, BinaryIO]:
    """Takes stdin and stdout for the protocol alone.

    Native libraries print to descriptor 1 as they like: from here on that is stderr, and reading
    descriptor 0 gives the end of a file.
    """
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout = sys.stderr
    return reader, writer


def parse_message(line: bytes) -> Dict[str, Any]:
    """The object that a line holds.

    Raises:
        AgentError: it holds none.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AgentError("request", f"not a JSON line: {error}") from error
    if not isinstance(message, dict):
        raise AgentError("request", "a request is a JSON object")
    return message


def request_of(message: Dict[str, Any], attached: bytes) -> Request:
    """The request that a message is.

    Raises:
        AgentError: it is none.
    """
    number, method, params = message.get("id"), message.get("method"), message.get("params", {})
    if not isinstance(number, int) or not isinstance(method, str) or not isinstance(params, dict):
        raise AgentError("request", "a request has an integer id, a method and an object of params")
    return Request(number, method, params, attached)
