"""Tells whether the threads of a session work together as fast as they have been seen to."""

from __future__ import annotations

import bisect
import tempfile
import time
from pathlib import Path
from typing import List, Optional

from .backend import Backend, random_feed
from .conditions import IdleThreads
from .onnx_wire import chain_model

# Little work between the moments at which threads wait for each other: about .1 ms on one core.
_LAYERS, _CHANNELS, _SIDE = 16, 64, 8
_WARMING_S, _RUNS = 0.002, 12
_WAKING_S = 0.03  # for clocks that fall while one waits
_SLOWER = 1.07
# What is usual was seen three times, and in one turn of four: what came out once may be a mistake, and a
# state that a device is rarely in is not what it will be used in.
_SEEN, _SEEN_SHARE = 3, 4
_PAUSE_S = 0.05
# Waiting takes a third of an agent's time at most, so that what it measures on a device that stays slow still
# comes to an end.
_FIRST_WAIT_S, _WAIT_SHARE = 10.0, 0.5
_FRESH_S = 0.3


class Pace:
    """Runs a small network between the rounds of others.

    Threads tell each other many times a run what is to be done, and what that takes depends on where their
    cores lie: twice as long where these share no cache. A hypervisor moves the cores of a virtual machine
    without a word, and whole latencies move with them, for seconds or minutes.

    Attributes:
        known_ms: what was usual before this agent began, where somebody knows; else an agent that has seen
            a slow device only cannot tell.
    """

    def __init__(self, backend: Backend, threads: int, idle: IdleThreads) -> None:
        with tempfile.TemporaryDirectory(prefix="edgenas-pace-") as folder:
            model = Path(folder) / "chain.onnx"
            model.write_bytes(chain_model(_LAYERS, _CHANNELS, _SIDE))
            self._session = backend.load(model, threads)
        self._session.bind(random_feed(self._session.inputs, 0))
        self._idle = idle
        self.known_ms: Optional[float] = None
        self._ordered_ms: List[float] = []
        self._latest_ms, self._at = 0.0, float("-inf")
        self._began, self._waited_s = time.monotonic(), 0.0

    def turn(self) -> float:
        """The fastest of some runs in ms."""
        self._look(_WARMING_S)
        bisect.insort(self._ordered_ms, self._latest_ms)
        return self._latest_ms

    def slow(self) -> bool:
        """Whether the latest turn took longer than the fast ones since the agent was started."""
        count = len(self._ordered_ms)
        usual_ms = self._ordered_ms[min(max(_SEEN - 1, count // _SEEN_SHARE), count - 1)]
        if self.known_ms is not None:
            usual_ms = min(usual_ms, self.known_ms)
        return self._latest_ms > _SLOWER * usual_ms

    def lost(self) -> bool:
        """Whether the device is slow now."""
        self.turn()
        return self.slow()

    def wait(self, limit_s: float) -> float:
        """Waits until the device is no longer slow, and says for how many seconds; at most ``limit_s``."""
        start = time.monotonic()
        if start - self._at > _FRESH_S:
            self.turn()
        worked_s = start - self._began - self._waited_s
        limit_s = min(limit_s, _FIRST_WAIT_S + _WAIT_SHARE * worked_s - self._waited_s)
        while self.slow() and time.monotonic() - start < limit_s:
            time.sleep(_PAUSE_S)
            self._look(_WAKING_S)  # not a turn: waiting for long must not make it usual
        waited_s = time.monotonic() - start
        self._waited_s += waited_s
        return waited_s

    def _look(self, warming_s: float) -> None:
        self._idle.wait()
        with self._session.placed():
            end = time.perf_counter() + warming_s
            while time.perf_counter() < end:
                self._session.run()
            self._latest_ms = min(self._timed_ms() for _ in range(_RUNS))
        self._at = time.monotonic()

    def _timed_ms(self) -> float:
        start = time.perf_counter()
        self._session.run()
        return 1e3 * (time.perf_counter() - start)
