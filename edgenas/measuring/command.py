"""A command that is run here, with limits on its time and on what it may print."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO

# Of stdout, and of stderr: what a device prints must not fill this machine's memory.
MOST_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16


class CommandFloodedError(Exception):
    """It printed more than anything that is asked of a device can be."""


def run_limited(
    command: Sequence[str], *, given: bytes, timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command with ``given`` as its stdin; one that goes beyond a limit is killed.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
        CommandFloodedError: it prints more than ``MOST_BYTES``.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            stdout, stderr = _exchanged(process, given, time.monotonic() + timeout_s)
            code = process.wait(timeout_s)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, code, stdout, stderr)


def _exchanged(process: subprocess.Popen[bytes], given: bytes, deadline: float) -> tuple[bytes, bytes]:
    """What a process printed until it closed both streams."""
    assert process.stdin and process.stdout and process.stderr
    unsent, stdout, stderr = bytearray(given), bytearray(), bytearray()
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        for stream, event, handle, content in (
            (process.stdin, selectors.EVENT_WRITE, _feed, unsent),
            (process.stdout, selectors.EVENT_READ, _hear, stdout),
            (process.stderr, selectors.EVENT_READ, _hear, stderr),
        ):
            selector.register(stream, event, partial(_step, selector, stream, handle, content))
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, deadline)
            for key, _ in ready:
                key.data()
    return bytes(stdout), bytes(stderr)


def _step(
    selector: selectors.BaseSelector,
    stream: IO[bytes],
    handle: Callable[[IO[bytes], bytearray], bool],
    content: bytearray,
) -> None:
    if not handle(stream, content):
        selector.unregister(stream)
        stream.close()


def _feed(stream: IO[bytes], unsent: bytearray) -> bool:
    """Writes what fits into the pipe; false when all is written, or nobody reads it."""
    try:
        del unsent[: os.write(stream.fileno(), unsent[:_PIECE_BYTES])]
    except BrokenPipeError:
        return False
    return bool(unsent)


def _hear(stream: IO[bytes], said: bytearray) -> bool:
    """Reads what is there; false at the end."""
    data = os.read(stream.fileno(), _PIECE_BYTES)
    said += data
    if len(said) > MOST_BYTES:
        raise CommandFloodedError
    return bool(data)
