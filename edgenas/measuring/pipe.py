"""Lines to and from an agent's process, with limits on time and size."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections import deque

# The longest line is a batch of outputs in base64; a device that sends more is not an agent.
MAX_LINE_BYTES = 96 << 20
_NOISE_BYTES = 64 << 10
_STDERR_BYTES = 8 << 10


class PipeEndedError(Exception):
    """The agent's process closed its end; ``returncode`` is that of the local process."""

    def __init__(self, returncode: int, stderr: str) -> None:
        super().__init__(f"ended with {returncode}")
        self.returncode, self.stderr = returncode, stderr


class PipeSilentError(Exception):
    """Nothing arrived, or nothing was taken, for the time that was allowed."""


class PipeFloodedError(Exception):
    """A line is longer than any line of the protocol."""


class AgentPipe:
    """The pipes of one process. Stderr is kept for messages, and only the end of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout and process.stderr
        self._process = process
        self._in, self._out, self._err = process.stdin, process.stdout, process.stderr
        self._buffer = bytearray()
        self._searched = 0
        self._stderr: deque[bytes] = deque()
        self._err_open = True
        for stream in (self._in, self._out, self._err):
            os.set_blocking(stream.fileno(), False)

    def send(self, content: bytes, timeout_s: float) -> None:
        """Writes a line, or what is attached to one.

        Raises:
            PipeEndedError: the process is gone.
            PipeSilentError: it does not read.
        """
        rest, deadline = memoryview(content), time.monotonic() + timeout_s
        while rest:
            _, writable, _ = select.select([], [self._in], [], max(0.0, deadline - time.monotonic()))
            if not writable:
                raise PipeSilentError
            try:
                rest = rest[os.write(self._in.fileno(), rest) :]
            except BrokenPipeError:
                raise self._ended() from None

    def receive(self, timeout_s: float) -> bytes:
        """The next line, without its end.

        Raises:
            PipeEndedError: the process is gone.
            PipeSilentError: no line in time.
            PipeFloodedError: the line is too long.
        """
        deadline = time.monotonic() + timeout_s
        while (line := self._buffered_line()) is None:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise PipeFloodedError
            self._fill(deadline)
        return line

    @property
    def stderr(self) -> str:
        """The end of what the process wrote to stderr."""
        return b"".join(self._stderr).decode("utf-8", "replace")[-_STDERR_BYTES:].strip()

    def close(self, patience_s: float = 3.0) -> None:
        """Closes stdin, which ends the agent; kills the process if it does not."""
        self._in.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()
        self._err.close()

    def _buffered_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def _fill(self, deadline: float) -> None:
        streams = [self._out, self._err] if self._err_open else [self._out]
        readable, _, _ = select.select(streams, [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise PipeSilentError
        if self._err in readable:
            self._keep_stderr()
        if self._out in readable:
            data = os.read(self._out.fileno(), 1 << 20)
            if not data:
                raise self._ended()
            self._buffer += data

    def _keep_stderr(self) -> None:
        data = os.read(self._err.fileno(), _STDERR_BYTES)
        self._err_open = bool(data)
        self._stderr.append(data)
        while sum(map(len, self._stderr)) > 2 * _STDERR_BYTES:
            self._stderr.popleft()

    def _ended(self) -> PipeEndedError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        while self._err_open and select.select([self._err], [], [], 0)[0]:
            self._keep_stderr()
        return PipeEndedError(code, self.stderr)


def greeting_of(pipe: AgentPipe, mark: bytes, timeout_s: float) -> bytes:
    """The first line that holds ``mark``; what a login shell prints before it is skipped.

    Raises:
        PipeFloodedError: it does not come within 64 KiB.
    """
    skipped, deadline = 0, time.monotonic() + timeout_s
    while skipped < _NOISE_BYTES:
        line = pipe.receive(max(0.0, deadline - time.monotonic()))
        if mark in line:
            return line[line.index(b"{") :]
        skipped += len(line) + 1
    raise PipeFloodedError
