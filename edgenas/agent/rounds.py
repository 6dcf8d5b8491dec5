"""Rounds of several sessions, interleaved in shuffled order until each is known well enough."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from .backend import Backend, Session, random_feed
from .conditions import Disturbance, IdleThreads, RunQueue
from .failures import reported_as
from .latencies import quantile, relative_halfwidth, statistics_of
from .pace import Pace

_TURN_S = 0.003
_FEWEST_RUNS, _MOST_RUNS = 5, 64
# A long run needs fewer repetitions: what disturbs it does not fit between two of them anyway.
_LONG_RUN_S, _RUNS_OF_LONG = 0.02, 3
_VERY_LONG_RUN_S, _RUNS_OF_VERY_LONG = 0.2, 2
# Threads that slept are woken on the core of their caller; it takes the system some ticks to part them.
_SPREADING_S = 0.005
# Python rewrites what it runs often into fewer instructions: .5 % of a short run between the fifth and the
# tenth, nothing that shows after a dozen.
_UNCOUNTED_TURNS, _SHORT_MS = 3, 5.0


class Plan(NamedTuple):
    """When to stop.

    ``deadline`` is on the clock of ``time.monotonic``; ``rounds_limit_s`` is of the rounds alone, without
    what loading, waiting and cooling take. ``patience_s`` is how long to wait in all for a device that is
    slower than it was seen to be.
    """

    min_rounds: int
    max_rounds: int
    relative_halfwidth: float
    deadline: Optional[float]
    runs_per_round: Optional[int]
    seed: int
    rounds_limit_s: Optional[float] = None
    patience_s: float = 0.0


class Turn(NamedTuple):
    """The latencies of one session's runs in ms, the fastest that counts, and whether another process had
    the core meanwhile."""

    runs_ms: List[float]
    fastest_ms: float
    disturbed: bool


class Contender:
    """One session with what it was measured to take."""

    def __init__(
        self, content: str, session: Session, threads: int = 1, idle: Optional[IdleThreads] = None
    ) -> None:
        self.content, self.session, self.threads = content, session, threads
        self._idle = idle or IdleThreads()
        self.rounds_ms: List[float] = []
        self.disturbed_ms: List[float] = []
        self.runs_ms: List[float] = []
        self._pace_ms: Tuple[List[float], List[float]] = ([], [])  # of undisturbed and disturbed rounds
        self._slow_rounds = 0
        self._runs = _FEWEST_RUNS

    @classmethod
    def loaded(
        cls, backend: Backend, model: Path, threads: int, runs_per_round: Optional[int], idle: IdleThreads
    ) -> Contender:
        """A model that is ready to be measured.

        Raises:
            AgentError: the runtime refuses it, or it cannot be run.
        """
        session = backend.load(model, threads)
        session.bind(random_feed(session.inputs, 0))
        contender = cls(model.name, session, threads, idle)
        with reported_as("runtime", "the first run failed"):
            contender.warm_up(runs_per_round)
        return contender

    def warm_up(self, runs_per_round: Optional[int]) -> None:
        """Runs until caches and pools are warm, and decides how many runs a turn takes."""
        with self.session.placed():
            fastest = min(self._timed() for _ in range(2 if runs_per_round else 3))
        self._runs = runs_per_round or _runs_for(fastest)

    def turn(self, queue: RunQueue) -> Turn:
        """Runs for a while. The first run after another model's is not counted."""
        parallel = self.threads > 1
        if parallel:
            self._idle.wait()
        runs_ms = []
        with self.session.placed():
            if self._runs > 1:
                self._run_uncounted(_SPREADING_S if parallel else 0.0)
            queue.begin()
            for _ in range(self._runs):
                runs_ms.append(1e3 * self._timed())
                queue.between_runs()
        return Turn(runs_ms, min(runs_ms), queue.disturbed())

    def count(
        self, turn: Turn, *, disturbed: bool, pace_ms: Optional[float] = None, slow: bool = False
    ) -> None:
        """Keeps what a turn took; the quantiles are of all runs, disturbed or not.

        Args:
            disturbed: also where only the device was ``slow``.
        """
        self._slow_rounds += slow
        (self.disturbed_ms if disturbed else self.rounds_ms).append(turn.fastest_ms)
        self.runs_ms.extend(turn.runs_ms)
        if pace_ms is not None:
            self._pace_ms[disturbed].append(pace_ms)

    def settled(self, plan: Plan) -> bool:
        """Whether the median is known narrowly enough from undisturbed rounds, or from twice as many."""
        enough = [self.rounds_ms] if len(self.rounds_ms) >= plan.min_rounds else []
        if len(self.rounds_ms) + len(self.disturbed_ms) >= 2 * plan.min_rounds:
            enough.append(self.rounds_ms + self.disturbed_ms)
        return any(relative_halfwidth(rounds) <= plan.relative_halfwidth for rounds in enough)

    def statistics(self, min_rounds: int) -> Dict[str, object]:
        """The ``LatencyStatistics``; where too few rounds were undisturbed, of all of them."""
        enough = len(self.rounds_ms) >= min_rounds
        rounds_ms = self.rounds_ms if enough else self.rounds_ms + self.disturbed_ms
        paces_ms = sorted(self._pace_ms[0] if enough else self._pace_ms[0] + self._pace_ms[1])
        return {
            **statistics_of(rounds_ms, self.runs_ms),
            "pace_ms": quantile(paces_ms, 0.5) if paces_ms else None,
        }

    def result(self, plan: Plan) -> Dict[str, object]:
        """What the host is told."""
        return {
            "statistics": self.statistics(plan.min_rounds),
            "disturbed_rounds": len(self.disturbed_ms) - self._slow_rounds,
        }

    def _run_uncounted(self, least_s: float) -> None:
        end = time.perf_counter() + least_s
        self._timed()
        while time.perf_counter() < end:
            self._timed()

    def _timed(self) -> float:
        start = time.perf_counter()
        self.session.run()
        return time.perf_counter() - start


def measure_rounds(
    contenders: List[Contender],
    plan: Plan,
    before_round: Callable[[int], None],
    pace: Optional[Pace] = None,
) -> None:
    """Measures the contenders side by side.

    A round gives each contender that is not settled one turn, in an order of its own, and another one
    at once where that was disturbed. A round in which the conditions changed, or which stays disturbed for
    one of them, or after which the device has lost its ``pace``, is kept apart and repeated: it counts for
    all or for none, so that contenders can be compared round by round. At most ``2 * max_rounds`` are made.
    """
    generator, disturbance = np.random.default_rng(plan.seed), Disturbance()
    threads = max((one.threads for one in contenders), default=1)
    spent_s, patience_s = 0.0, plan.patience_s
    gc.collect()
    gc.disable()
    try:
        with contextlib.closing(RunQueue(threads)) as queue:
            for number in range(2 * plan.max_rounds):
                waiting = [one for one in contenders if _wants_round(one, plan)]
                if not waiting or (number > 0 and _time_is_up(plan, spent_s)):
                    break
                before_round(number)
                if pace is not None:
                    patience_s -= pace.wait(_time_left(plan, patience_s))
                order = [waiting[position] for position in generator.permutation(len(waiting))]
                start = time.monotonic()
                _round(order, disturbance, queue, pace)
                spent_s += time.monotonic() - start
    finally:
        gc.enable()


def measure_alone(backend: Backend, job: Dict[str, Any]) -> Dict[str, object]:
    """The result of one model in a process that does nothing else, for a clock that nothing disturbs.

    The system is asked nothing meanwhile: its answers are now longer, now shorter, which moves the memory
    that the model gets, and with it the number of instructions that a run takes.

    Args:
        job: path of the ``model``, ``threads`` and the fields of a ``plan``.
    """
    plan, model, threads = Plan(**job["plan"]), Path(job["model"]), job["threads"]
    contender = Contender.loaded(backend, model, threads, plan.runs_per_round, IdleThreads())
    unwatched = RunQueue(sys.maxsize)  # it does not look at more threads than there are cores
    gc.collect()
    gc.disable()
    for _ in range(_UNCOUNTED_TURNS if contender.turn(unwatched).fastest_ms < _SHORT_MS else 0):
        contender.turn(unwatched)
    while len(contender.rounds_ms) < plan.max_rounds and not contender.settled(plan):
        contender.count(contender.turn(unwatched), disturbed=False)
    return contender.result(plan)


def _time_is_up(plan: Plan, spent_s: float) -> bool:
    if plan.rounds_limit_s is not None and spent_s > plan.rounds_limit_s:
        return True
    return plan.deadline is not None and time.monotonic() > plan.deadline


def _time_left(plan: Plan, patience_s: float) -> float:
    left_s = patience_s if plan.deadline is None else min(patience_s, plan.deadline - time.monotonic())
    return max(0.0, left_s)


def _wants_round(contender: Contender, plan: Plan) -> bool:
    undisturbed, all_rounds = len(contender.rounds_ms), len(contender.rounds_ms) + len(contender.disturbed_ms)
    if undisturbed >= plan.max_rounds or contender.settled(plan):
        return False
    # Where the device is never left alone, repeating without end would not make it so.
    return all_rounds < plan.max_rounds or undisturbed >= plan.max_rounds // 2


def _round(
    contenders: List[Contender], disturbance: Disturbance, queue: RunQueue, pace: Optional[Pace]
) -> None:
    disturbance.begin()
    turns = [_turn(contender, queue) for contender in contenders]
    disturbed = disturbance.disturbed() or any(turn.disturbed for turn in turns)
    pace_ms = None if pace is None else pace.turn()
    slow = pace is not None and pace.slow()
    for contender, turn in zip(contenders, turns):  # noqa: B905
        contender.count(turn, disturbed=disturbed or slow, pace_ms=pace_ms, slow=slow)


def _turn(contender: Contender, queue: RunQueue) -> Turn:
    """One turn; where it was disturbed another at once in its place: what shares a core comes and goes."""
    turn = contender.turn(queue)
    if not turn.disturbed:
        return turn
    again = contender.turn(queue)
    return again._replace(runs_ms=turn.runs_ms + again.runs_ms)


def _runs_for(latency_s: float) -> int:
    if latency_s >= _VERY_LONG_RUN_S:
        return _RUNS_OF_VERY_LONG
    if latency_s >= _LONG_RUN_S:
        return _RUNS_OF_LONG
    return min(_MOST_RUNS, max(_FEWEST_RUNS, round(_TURN_S / latency_s)))
