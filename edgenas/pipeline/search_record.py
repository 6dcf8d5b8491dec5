"""A search as it stands, as a record: everything scored, the front, the best, and what to type next."""

from __future__ import annotations

import numpy as np

from edgenas.pipeline.search_candidates import Candidates
from edgenas.pipeline.search_folder import next_steps
from edgenas.pipeline.search_prepared import PreparedSearch
from edgenas.pipeline.search_problem import COUNTED
from edgenas.records import SEARCH_VERSION, Candidate, SearchResult
from edgenas.search.hypervolume_curve import hypervolume_over_evaluations
from edgenas.search.pareto import front
from edgenas.search.problem import Floats

RECORD = "search.json"


def search_record(
    search: PreparedSearch,
    candidates: Candidates,
    best: Candidate | None,
    *,
    elapsed_s: float,
    interrupted: bool,
) -> SearchResult:
    """The record of a search that goes on, has ended (with a ``best``) or was stopped."""
    asked, history = search.asked, search.loop.history
    evaluated = tuple(candidates.of(row) for row in range(len(history)))
    objectives = _objectives(search, evaluated)
    chosen = [int(row) for row in front(objectives)] if evaluated else []
    ended = best is not None or interrupted
    return SearchResult(
        schema_version=SEARCH_VERSION,
        space=search.space.name,
        devices=asked.devices,
        limits_ms=asked.limits_ms,
        strategy="tpe" if asked.hyperparameters else asked.strategy,
        accuracy_source=search.scoring.source.name,
        accuracy_rmse=search.scoring.rmse,
        seed=asked.seed,
        evaluations=len(history),
        elapsed_s=elapsed_s,
        best=best,
        fastest=min(evaluated, key=lambda c: max(c.latency_ms.values())) if evaluated else None,
        front=tuple(sorted((evaluated[row] for row in chosen), key=lambda c: -c.accuracy)),
        evaluated=evaluated,
        path=str(asked.folder / RECORD),
        interrupted=interrupted,
        virtual_devices=asked.virtual_devices,
        objectives=search.problem.objectives,
        limits=asked.limits,
        weights=dict(asked.weights),
        pressure=asked.pressure,
        dropped=search.scoring.dropped,
        hypervolume=hypervolume_over_evaluations(objectives, history.violations) if ended else (),
        next_steps=_next_steps(search, found=best is not None) if ended else (),
    )


def _objectives(search: PreparedSearch, evaluated: tuple[Candidate, ...]) -> Floats:
    """(N, M) of what is known by now: latencies as measured where they were, counted objectives beside."""
    objectives = np.array([[-c.accuracy, *c.latency_ms.values()] for c in evaluated])
    extra = [column for column, name in enumerate(search.problem.objectives) if name in COUNTED]
    if not extra or not evaluated:
        return objectives
    return np.hstack([objectives, search.loop.history.objectives[:, extra]])


def _next_steps(search: PreparedSearch, *, found: bool) -> tuple[str, ...]:
    """Nothing where the folder was given: whoever gave it goes on by itself."""
    asked = search.asked
    if asked.asked_folder is not None:
        return ()
    return next_steps(
        asked.folder, found=found, space=asked.space or search.space.name, data=asked.data,
        devices=asked.devices, limits_ms=asked.limits_ms, threads=asked.threads, seed=asked.seed,
        further_limits=asked.limits,
    )  # fmt: skip
