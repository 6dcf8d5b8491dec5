"""Order statistics of latencies."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Sequence, Tuple


def quantile(ordered: Sequence[float], share: float) -> float:
    """The ``share`` quantile of sorted values, linear between neighbours."""
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median_interval(ordered: Sequence[float]) -> Tuple[float, float]:
    """The 95 % interval of the median that assumes nothing about the distribution.

    Source: Hahn & Meeker, Statistical Intervals, section 5.2: the ranks between which Binomial(n, 1/2)
    has 95 % of its mass. Below six values no ranks reach 95 %, and the whole range is given.
    """
    count = len(ordered)
    outside, rank = 0.5**count, 0
    while rank + 1 < (count - 1) / 2 and 2 * (outside + math.comb(count, rank + 1) * 0.5**count) <= 0.05:
        rank += 1
        outside += math.comb(count, rank) * 0.5**count
    return ordered[rank], ordered[count - 1 - rank]


def relative_halfwidth(rounds_ms: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the median, relative to the median."""
    ordered = sorted(rounds_ms)
    low, high = median_interval(ordered)
    return (high - low) / 2 / quantile(ordered, 0.5)


def within_fences(ordered: Sequence[float]) -> Sequence[float]:
    """Those of the sorted values that are at most 1.5 interquartile ranges outside the quartiles.

    Source: Tukey, Exploratory Data Analysis (1977), section 2D.
    """
    first, third = quantile(ordered, 0.25), quantile(ordered, 0.75)
    reach = 1.5 * (third - first)
    return [value for value in ordered if first - reach <= value <= third + reach]


def statistics_of(rounds_ms: List[float], runs_ms: List[float]) -> Dict[str, Any]:
    """The ``LatencyStatistics`` record: rounds give the repeatable latency, runs the quantiles.

    Outlying rounds do not count for the latency. They do for its interval, which would else promise
    more than the next measurement keeps, and outlying runs for the quantiles, whose business they are.
    """
    runs = sorted(runs_ms)
    p99: Optional[float] = quantile(runs, 0.99) if len(runs) >= 100 else None
    return {
        "latency_ms": quantile(within_fences(sorted(rounds_ms)), 0.5),
        "latency_p50_ms": quantile(runs, 0.5),
        "latency_p90_ms": quantile(runs, 0.9),
        "latency_p99_ms": p99,
        "latency_relative_halfwidth": relative_halfwidth(rounds_ms),
        "runs": len(runs),
        "rounds_ms": rounds_ms,
    }


def mean_of_fastest_half(values: Sequence[float]) -> float:
    """The mean of the fastest half of the values; of the only one where there is one."""
    fastest = sorted(values)[: max(1, len(values) // 2)]
    return sum(fastest) / len(fastest)
