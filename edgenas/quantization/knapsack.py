"""Which segments run on integers: least latency for every amount of error, changes of precision included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgenas.quantization.decision import SAME_LATENCY
from edgenas.quantization.kernel_costs import SegmentCosts

PRICES = 40  # of error, tried between 'free' and 'nothing else counts'


@dataclass(frozen=True)
class Assignment:
    """Precision of each segment and what is predicted of it.

    Attributes:
        integer: whether each segment runs on integers.
        squared_error: sum of the segments' squared relative output errors.
    """

    integer: tuple[bool, ...]
    latency_ms: float
    squared_error: float


def assignments(costs: SegmentCosts, squared_errors: Sequence[float]) -> list[Assignment]:
    """The distinct best assignments over all prices of error, fastest first.

    Errors of segments are taken to be independent, so that their squares add up; a chain is then
    solved exactly by dynamic programming for each price (a Lagrange multiplier of the knapsack).
    """
    total = max(sum(squared_errors), 1e-30)
    spread_ms = sum(abs(a - b) for a, b in zip(costs.float_ms, costs.int8_ms, strict=True)) + 1e-9
    prices = [0.0, *(spread_ms / total * np.geomspace(1e-3, 1e3, PRICES))]
    found: dict[tuple[bool, ...], Assignment] = {}
    for price in prices:
        integer = _cheapest(costs, squared_errors, price)
        found.setdefault(integer, priced(integer, costs, squared_errors))
    return sorted(found.values(), key=lambda a: a.latency_ms)


def priced(integer: Sequence[bool], costs: SegmentCosts, errors: Sequence[float]) -> Assignment:
    """An assignment with what is predicted of it."""
    latency, error, before = 0.0, 0.0, False
    for position, now in enumerate(integer):
        latency += costs.int8_ms[position] if now else costs.float_ms[position]
        latency += costs.change_ms[position] if now != before else 0.0
        error += errors[position] if now else 0.0
        before = now
    return Assignment(tuple(integer), latency, error)


def _cheapest(costs: SegmentCosts, errors: Sequence[float], price: float) -> tuple[bool, ...]:
    """Viterbi over two states; the input and what follows the last segment are float."""
    best = {False: (0.0, ()), True: (float("inf"), ())}  # type: dict[bool, tuple[float, tuple[bool, ...]]]
    for position, error in enumerate(errors):
        following = {}
        for now in (False, True):
            own = costs.int8_ms[position] + price * error if now else costs.float_ms[position]
            following[now] = min(
                (cost + own + (costs.change_ms[position] if before != now else 0.0), (*path, now))
                for before, (cost, path) in best.items()
            )
        best = following
    return min(best.values())[1]


def chosen(
    found: Sequence[Assignment],
    most: int,
    *,
    everything: Sequence[bool],
    rank: Callable[[Assignment], tuple[float, float]],
) -> list[Assignment]:
    """At most ``most`` of the assignments; neither all-float nor ``everything``.

    Half are those that promise most, each of another latency, because predictions err and neighbours
    hardly differ; the others are spread over the errors, to show the whole front.

    Args:
        rank: of an assignment; the lowest promises most.
    """
    mixed = [a for a in found if any(a.integer) and list(a.integer) != list(everything)]
    if len(mixed) <= most:
        return mixed
    picked: list[Assignment] = []
    for assignment in sorted(mixed, key=rank):
        if len(picked) < (most + 1) // 2 and not any(_alike(assignment, other) for other in picked):
            picked.append(assignment)
    logs = np.log([max(a.squared_error, 1e-30) for a in mixed])
    wanted = np.linspace(logs.max(), logs.min(), most - len(picked))
    picked += [mixed[int(np.argmin(np.abs(logs - value)))] for value in wanted]
    return sorted(dict.fromkeys(picked), key=lambda a: a.latency_ms)


def _alike(one: Assignment, other: Assignment) -> bool:
    low, high = sorted((one.latency_ms, other.latency_ms))
    return high <= SAME_LATENCY * low
