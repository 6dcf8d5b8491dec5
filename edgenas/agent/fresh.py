"""Measures one model alone in a process that has never run anything else."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

from .backend import Backend, Session, random_feed
from .conditions import Disturbance, RunQueue
from .environment import resident_bytes
from .failures import AgentError, how_it_ended
from .latencies import statistics_of

ROUNDS = 20
_MOST_REPEATED = ROUNDS // 4  # where the device is never left alone, repeating without end helps nobody


def characterise(
    backend: Backend, model: Path, threads: int, runs: int, cool: Callable[[], None]
) -> Dict[str, Any]:
    """The ``Characterisation`` record; this process must be fresh for it to be true.

    Runs are timed one after the other in ``ROUNDS`` equal parts: the repeatable latency is the median
    of the parts' fastest, the quantiles are those of all runs.
    """
    start = time.perf_counter()
    session = backend.load(model, threads)
    load_s = time.perf_counter() - start
    session.bind(random_feed(session.inputs, 0))
    with session.placed():
        for _ in range(3):
            session.run()
    parts = _timed_parts(session, runs, threads, cool)
    return {
        "threads": threads,
        "statistics": statistics_of([min(part) for part in parts], [run for part in parts for run in part]),
        "load_ms": 1e3 * load_s,
        "peak_memory_bytes": resident_bytes("VmHWM"),
    }


def _timed_parts(session: Session, runs: int, threads: int, cool: Callable[[], None]) -> List[List[float]]:
    """Latencies in ms, in parts. A disturbed part is timed once more, some of them are; all runs count."""
    size, disturbance, repeated = max(1, -(-runs // ROUNDS)), Disturbance(), 0
    parts: List[List[float]] = []
    with contextlib.closing(RunQueue(threads)) as queue:
        while size * len(parts) < runs:
            cool()
            disturbance.begin()
            part = _timed(session, size, queue)
            if (disturbance.disturbed() or queue.disturbed()) and repeated < _MOST_REPEATED:
                part += _timed(session, size, queue)
                repeated += 1
            parts.append(part)
    return parts


def _timed(session: Session, count: int, queue: RunQueue) -> List[float]:
    latencies_ms = []
    with session.placed():
        queue.begin()
        for _ in range(count):
            start = time.perf_counter()
            session.run()
            latencies_ms.append(1e3 * (time.perf_counter() - start))
            queue.between_runs()
    return latencies_ms


class FreshProcess:
    """Another agent, which serves one request and ends; it ends with this one in any case."""

    def __init__(self, cache: str) -> None:
        command = [sys.executable, *this_program(), cache]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, requests: List[Dict[str, Any]], relay: Callable[[str, Dict[str, Any]], None]) -> Any:
        """The result of the last request; events of it go to ``relay``.

        Raises:
            AgentError: a request failed, or the process ended.
        """
        try:
            for request in requests:
                result = self._ask_one(request, relay)
        finally:
            assert self._process.stdin is not None and self._process.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # it ended before it read everything
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
        return result

    def _ask_one(self, request: Dict[str, Any], relay: Callable[[str, Dict[str, Any]], None]) -> Any:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None and pipe_out is not None
        try:
            pipe_in.write(json.dumps(request).encode() + b"\n")
            pipe_in.flush()
        except BrokenPipeError:
            raise AgentError("crash", how_it_ended(self._process.wait())) from None
        for line in pipe_out:
            message = json.loads(line)
            if message.get("id") != request["id"]:
                continue
            if message["kind"] == "result":
                return message["data"]
            if message["kind"] == "error":
                raise AgentError(message["data"]["kind"], message["data"]["message"])
            if message["name"] != "alive":
                relay(message["name"], message["data"])
        raise AgentError("crash", how_it_ended(self._process.wait()))


def this_program() -> List[str]:
    """How this very agent was started: as an archive, or as a module of the package."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return ["-m", spec.name.replace(".__main__", "")]
    return [sys.argv[0]]
