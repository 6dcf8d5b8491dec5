"""What disturbs a measurement while it goes on, and heat, which has to be waited out."""

from __future__ import annotations

import contextlib
import glob
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

# Runs are judged in stretches that are much longer than it takes to ask the kernel. Waking up a thread of
# a pool takes some microseconds on a core that is free, too.
_STRETCH_S = 0.001
_WAITED_SHARE = 0.02
_WAITED_LEAST_S = 0.00005
# Each costs a file and about a microsecond in every stretch.
_MOST_WATCHED = 64

# Pools of threads spin for a while after a run, up to half a second in older runtimes.
_IDLE_STEP_S = 0.0005
_IDLE_SHARE = 0.3
_IDLE_LIMIT_S = 0.6
_IDLE_TRIES = 2

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


class RunQueue:
    """Tells whether threads of this process waited for a core while another process had it.

    The kernel counts that to the nanosecond, so that it also shows in a turn of a few milliseconds,
    where the counters of a whole core tell nothing. Where it does not tell, nobody is said to wait, nor
    where a session's ``threads`` are more than the cores and wait for each other. Threads that begin later
    are not looked at, and of very many only the first ones and the caller.

    Source: Documentation/scheduler/sched-stats.rst of Linux, /proc/<pid>/schedstat.
    """

    def __init__(self, threads: int) -> None:
        enough = hasattr(os, "sched_getaffinity") and threads <= len(os.sched_getaffinity(0))
        self._files = _schedstat_files() if enough else []
        self._at, self._before_s = 0.0, [0.0] * len(self._files)
        self._left_alone: List[bool] = []

    def begin(self) -> None:
        """Runs follow."""
        self._left_alone = []
        self._begin_stretch()

    def between_runs(self) -> None:
        """A run has ended; a stretch ends with it where it was long enough."""
        if time.perf_counter() - self._at >= _STRETCH_S:
            self._end_stretch()

    def disturbed(self) -> bool:
        """Whether threads waited in every stretch: the fastest of the runs may then be a slow one."""
        if not self._left_alone:  # runs that are shorter than a stretch all together
            self._end_stretch()
        return not any(self._left_alone)

    def close(self) -> None:
        """Closes the kernel's files."""
        while self._files:
            os.close(self._files.pop())

    def _begin_stretch(self) -> None:
        self._before_s = [_waited_s(file) for file in self._files]
        self._at = time.perf_counter()

    def _end_stretch(self) -> None:
        length_s, before_s = time.perf_counter() - self._at, self._before_s
        self._begin_stretch()
        # A thread that has ended must not outweigh what the others waited.
        waited_s = sum(max(0.0, now - then) for now, then in zip(self._before_s, before_s))  # noqa: B905
        self._left_alone.append(waited_s <= max(_WAITED_LEAST_S, _WAITED_SHARE * length_s))


def _schedstat_files() -> List[int]:
    """Open files of the threads that this process has now, the caller's first."""
    own = _own_folder()
    folders = sorted(glob.glob("/proc/self/task/*"), key=lambda folder: folder != own)
    files = []
    for folder in folders[:_MOST_WATCHED]:
        with contextlib.suppress(OSError):  # the thread has ended, or the system does not tell
            files.append(os.open(f"{folder}/schedstat", os.O_RDONLY))
    return files


def _waited_s(file: int) -> float:
    """What one thread has waited since it began; nothing once it has ended."""
    try:
        return 1e-9 * int(os.pread(file, 100, 0).split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0


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


class IdleThreads:
    """Waits until no other thread of this process works.

    The threads of a session that ran before go on looking for work, on cores that the next session's
    threads need: two sessions measured in turn otherwise slow each other down by up to a half. Threads
    that were waited for in vain twice in a row never rest: nobody waits for them any more.
    """

    def __init__(self, report: Callable[[], None] = lambda: None) -> None:
        """``report`` is called when it is given up."""
        self._report = report
        self._in_vain = 0

    def wait(self) -> None:
        """Waits for 0.6 s at most."""
        if self._in_vain >= _IDLE_TRIES:
            return
        end = time.perf_counter() + _IDLE_LIMIT_S
        while _others_work():
            if time.perf_counter() >= end:
                self._in_vain += 1
                if self._in_vain == _IDLE_TRIES:
                    self._report()
                return
        self._in_vain = 0


def _others_work() -> bool:
    """Whether another thread of this process works, or would if it had a core; takes half a millisecond."""
    states = _states_of_other_threads()
    if states and "R" not in states:
        return False
    start, own_s = time.perf_counter(), time.process_time()
    time.sleep(_IDLE_STEP_S)
    # Where the system does not tell the states, what the process used of that time must do.
    return bool(states) or time.process_time() - own_s >= _IDLE_SHARE * (time.perf_counter() - start)


def _states_of_other_threads() -> str:
    """One letter a thread, as in ``ps``; empty where the system does not tell or there is none."""
    own = _own_folder()
    stats = [text_of(f"{folder}/stat") for folder in glob.glob("/proc/self/task/*") if folder != own]
    return "".join(stat.rpartition(")")[2].strip()[:1] for stat in stats)


def _own_folder() -> str:
    """Where the system tells of this very thread: in a container its number may be another one there."""
    try:
        return "/proc/self/task/" + os.path.basename(os.readlink("/proc/thread-self"))
    except OSError:
        return ""


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
