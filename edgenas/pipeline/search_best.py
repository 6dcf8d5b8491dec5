"""The best network of a search: the most accurate one that keeps every limit when it is measured."""

from __future__ import annotations

import numpy as np

from edgenas.pipeline.search_candidates import Candidates
from edgenas.records import Candidate
from edgenas.search.history import History

FINALISTS, MOST_FINALISTS = 6, 24


def measured_best(history: History, candidates: Candidates) -> Candidate | None:
    """The most accurate candidate that keeps every limit by measurement, of equal ones the fastest.

    The most accurate ones are measured side by side; only where all of them miss a limit the next ones
    are. Others that are as accurate as the best and predicted to be faster have their chance at last.

    Args:
        history: everything that was scored.
        candidates: its rows, which are measured here.
    """
    order = _order(history, candidates)
    for start in range(0, min(len(order), MOST_FINALISTS), FINALISTS):
        rows = order[start : start + FINALISTS]
        best = _best_of(rows, candidates)
        if best is not None:
            rivals = [row for row in order[start + FINALISTS :] if _rivals(candidates, row, best)]
            return _best_of([*rows, *rivals[:FINALISTS]], candidates)
    return None


def _order(history: History, candidates: Candidates) -> list[int]:
    """Rows within the limits, the most accurate first and of equal ones the fastest by prediction."""
    kept = np.flatnonzero(history.violations <= 0)
    shares = [candidates.share(candidates.of(int(row))) for row in kept]
    return [int(row) for row in kept[np.lexsort((shares, history.objectives[kept, 0]))]]


def _best_of(rows: list[int], candidates: Candidates) -> Candidate | None:
    """The best of ``rows`` by measurement; None where none of them keeps the limits."""
    candidates.measure(rows)
    kept = [found for found in map(candidates.of, rows) if found.feasible]
    return min(kept, key=lambda found: (-candidates.merit(found), candidates.share(found)), default=None)


def _rivals(candidates: Candidates, row: int, best: Candidate) -> bool:
    one = candidates.of(row)
    return candidates.merit(one) >= candidates.merit(best) and candidates.share(one) < candidates.share(best)
