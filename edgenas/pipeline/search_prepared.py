"""From what was asked to a search that can run: tables, problem, and the loop that goes on from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgenas.errors import UsageError
from edgenas.pipeline.accuracy_sources import Scoring
from edgenas.pipeline.latency import SpaceLatency
from edgenas.pipeline.search_folder import DEFAULT_STRATEGY
from edgenas.pipeline.search_problem import build_problem
from edgenas.pipeline.search_reach import refuse_unreachable_count, refuse_unreachable_latency
from edgenas.pipeline.search_request import SearchRequest
from edgenas.pipeline.shrunk import shrunk
from edgenas.pipeline.tuning import TuningLoop
from edgenas.search.loop import SearchLoop
from edgenas.search.problem import Problem
from edgenas.search.schedule import CONSTANT, PressureSchedule
from edgenas.search.strategies import get_strategy
from edgenas.search_spaces import SearchSpace


@dataclass(frozen=True)
class PreparedSearch:
    """A search before its next generation.

    Attributes:
        asked: what for.
        scoring: where accuracies come from.
        latencies: predicted latency in ms by device.
        problem: what strategies see.
        loop: holds everything that was scored.
    """

    asked: SearchRequest
    scoring: Scoring
    latencies: Mapping[str, SpaceLatency]
    problem: Problem
    loop: SearchLoop | TuningLoop

    @property
    def space(self) -> SearchSpace:
        return self.scoring.space


def prepared(asked: SearchRequest, scoring: Scoring) -> PreparedSearch:
    """The search with its options dropped where that was asked for.

    Raises:
        BudgetNotMetError: no network of the space keeps the limits.
        TableError: a device has no table, or it knows nothing of the space.
        UsageError: hyper-parameters cannot be searched with what else was asked.
    """
    latencies = asked.latencies(scoring.space)
    if asked.shrink:
        scoring = shrunk(scoring, latencies)
        latencies = asked.latencies(scoring.space)
    problem = build_problem(
        scoring.space, latencies, limits_ms=asked.limits_ms, objectives=asked.objective,
        limits=asked.limits, weights=asked.weights, missing=scoring.missing,
    )  # fmt: skip
    _refuse_what_is_out_of_reach(asked, problem, scoring.space, latencies)
    build = _tuning_loop if asked.hyperparameters else _search_loop
    return PreparedSearch(asked, scoring, latencies, problem, build(asked, scoring, latencies, problem))


def _refuse_what_is_out_of_reach(
    asked: SearchRequest, problem: Problem, space: SearchSpace, latencies: Mapping[str, SpaceLatency]
) -> None:
    for one, limit_ms in zip(asked.devices, asked.limits_ms, strict=True):
        refuse_unreachable_latency(
            space, latencies[one], one, limit_ms, unit=asked.unit(one), seed=asked.seed
        )
    for name, most in asked.limits.items():
        refuse_unreachable_count(problem, name, most, asked.seed)


def _search_loop(
    asked: SearchRequest, scoring: Scoring, latencies: Mapping[str, SpaceLatency], problem: Problem
) -> SearchLoop:
    evaluations = asked.evaluations or scoring.evaluations
    return SearchLoop(
        get_strategy(asked.strategy)(problem, seed=asked.seed, evaluations=evaluations),
        scoring.source,
        evaluations=evaluations,
        path=asked.folder / "state.json",
        identity={
            "scores": scoring.identity, "seed": asked.seed, "table": _identity(scoring.space, latencies)
        },
        pressure=PressureSchedule(asked.pressure, problem),
    )  # fmt: skip


def _tuning_loop(
    asked: SearchRequest, scoring: Scoring, latencies: Mapping[str, SpaceLatency], problem: Problem
) -> TuningLoop:
    from edgenas.training.from_scratch import TrainingAccuracy

    if not isinstance(scoring.source, TrainingAccuracy):
        raise UsageError(
            f"hyper-parameters are searched by training, accuracies come from '{scoring.source.name}'",
            hint="add --accuracy train",
        )
    _refuse_what_tuning_ignores(asked, problem)
    limits = " ".join(f"{limit:g}" for limit in asked.limits_ms)
    told = _identity(scoring.space, latencies)
    return TuningLoop(
        problem,
        scoring.source,
        evaluations=asked.evaluations or scoring.evaluations,
        folder=asked.folder,
        seed=asked.seed,
        identity=" ".join((scoring.space.name, scoring.identity, told, limits, str(asked.limits))),
    )


def _refuse_what_tuning_ignores(asked: SearchRequest, problem: Problem) -> None:
    if len(problem.objectives) > 1 or problem.weights or asked.pressure != CONSTANT:
        raise UsageError(
            "--hyperparameters searches for accuracy within the limits alone",
            hint="leave out --objective, --weight and --pressure",
        )
    if asked.strategy != DEFAULT_STRATEGY:
        raise UsageError(
            f"hyper-parameters are searched by Optuna's TPE, not by '{asked.strategy}'",
            hint="leave --strategy out",
        )


def _identity(space: SearchSpace, latencies: Mapping[str, SpaceLatency]) -> str:
    """What the predictions say of fixed candidates: it changes when a table does."""
    sampled = space.sample(np.random.default_rng(0), 64)
    told = b"".join(np.round(latency(sampled), 9).tobytes() for latency in latencies.values())
    return hashlib.sha256(told).hexdigest()[:16]
