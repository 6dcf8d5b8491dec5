"""What disturbs a measurement while it goes on, and heat, which has to be waited out."""

from __future__ import annotations

import os
import time
from typing import Callable, List, NamedTuple, Optional

from .cpu import text_of
from .environment import frequency_mhz, temperature_c
from .failures import AgentError

# Shares and windows above which a round is repeated. The kernel counts in ticks of 10 ms, so that
# windows shorter than ten of them tell nothing.
_SHORTEST_WINDOW_S = 0.1
_STOLEN_SHARE = 0.02
_FOREIGN_CORES = 0.2
_FREQUENCY_DROP = 0.1

# Pools of threads spin for a while after a run, up to half a second in older runtimes.
_IDLE_STEP_S = 0.0005
_IDLE_SHARE = 0.3
_IDLE_LIMIT_S = 0.6

_COOLING_STEP_S = 1.0
_COOLING_LIMIT_S = 300.0
_COOLING_MARGIN_C = 3.0


class _Ticks(NamedTuple):
    """Seconds since boot that the cores of this process spent, and seconds of the process."""

    at: float
    busy_s: float
    stolen_s: float
    own_s: float


class Disturbance:
    """Tells for each round whether other work, the hypervisor or the clock got in the way."""

    def __init__(self) -> None:
        self._before: Optional[_Ticks] = None
        self._frequencies: List[float] = []

    def begin(self) -> None:
        """A round starts."""
        self._before = _ticks()

    def disturbed(self) -> bool:
        """Whether the round that ends here should be repeated."""
        slower = self._clock_dropped()
        before, after = self._before, _ticks()
        if before is None or after is None or after.at - before.at < _SHORTEST_WINDOW_S:
            return slower
        window = after.at - before.at
        foreign = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
        stolen = after.stolen_s - before.stolen_s
        return slower or stolen / window > _STOLEN_SHARE or foreign / window > _FOREIGN_CORES

    def _clock_dropped(self) -> bool:
        frequency = frequency_mhz()
        if frequency is None:
            return False
        self._frequencies.append(frequency)
        usual = sorted(self._frequencies)[len(self._frequencies) // 2]
        return frequency < (1 - _FREQUENCY_DROP) * usual


def cool_down(limit_c: Optional[float], report: Callable[[float], None]) -> None:
    """Waits until the device is cooler than its limit.

    Args:
        limit_c: None, or the temperature above which nothing is measured.
        report: is told the temperature at every step of the wait.

    Raises:
        AgentError: it stays hot for five minutes.
    """
    temperature = temperature_c() if limit_c is not None else None
    if limit_c is None or temperature is None or temperature <= limit_c:
        return
    deadline = time.monotonic() + _COOLING_LIMIT_S
    while temperature is not None and temperature > limit_c - _COOLING_MARGIN_C:
        if time.monotonic() > deadline:
            raise AgentError(
                "device",
                f"the device stays at {temperature:.0f} C for {_COOLING_LIMIT_S:.0f} s without work; "
                f"its limit is {limit_c:.0f} C",
            )
        report(temperature)
        time.sleep(_COOLING_STEP_S)
        temperature = temperature_c()


def wait_for_idle_threads() -> None:
    """Waits until no thread of this process works, for 0.6 s at most.

    The threads of a session that ran before go on looking for work, on cores that the next session's
    threads need: two sessions measured in turn otherwise slow each other down by up to a half.
    """
    end = time.perf_counter() + _IDLE_LIMIT_S
    while time.perf_counter() < end:
        start, own_s = time.perf_counter(), time.process_time()
        time.sleep(_IDLE_STEP_S)
        if time.process_time() - own_s < _IDLE_SHARE * (time.perf_counter() - start):
            return


def _ticks() -> Optional[_Ticks]:
    """Work elsewhere does not count: only the cores that this process may run on are looked at."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in text_of("/proc/stat").splitlines()]
    cores = [[int(field) / 100 for field in line[1:9]] for line in lines if line and line[0] in mine]
    if not cores or len(cores[0]) < 8:
        return None
    user, nice, system, _, _, irq, soft_irq, stolen = (sum(column) for column in zip(*cores))  # noqa: B905
    return _Ticks(time.perf_counter(), user + nice + system + irq + soft_irq, stolen, time.process_time())
