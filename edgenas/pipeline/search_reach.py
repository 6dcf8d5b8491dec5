"""Limits that no network of a space keeps are refused before anything is trained or scored."""

from __future__ import annotations

import numpy as np

from edgenas.device_profiles import load_profile
from edgenas.errors import BudgetNotMetError
from edgenas.pipeline.latency import SpaceLatency, compiled_latency
from edgenas.search.evolution import Evolution
from edgenas.search.history import History
from edgenas.search.problem import Problem
from edgenas.search_spaces import Genomes, SearchSpace
from edgenas.units import unit_of
from edgenas.workspace import Workspace

_FASTEST_EVALUATIONS = 6000


def refuse_unreachable(
    space: SearchSpace,
    *,
    device: str,
    latency_ms: float,
    threads: int | None,
    seed: int,
    workspace: Workspace,
) -> None:
    """Says what the fastest candidate takes where that is more than the limit, before anything is trained.

    Raises:
        BudgetNotMetError: the limit is below the fastest prediction.
        TableError: the device has no table, or it knows nothing of the space.
    """
    latency = compiled_latency(space, device, threads=threads, workspace=workspace)
    unit = unit_of(virtual=load_profile(device, workspace).virtual)
    refuse_unreachable_latency(space, latency, device, latency_ms, unit=unit, seed=seed)


def refuse_unreachable_latency(
    space: SearchSpace, latency: SpaceLatency, device: str, limit_ms: float, *, unit: str, seed: int
) -> None:
    """The same where the table is compiled already.

    Raises:
        BudgetNotMetError: the limit is below the fastest prediction.
    """
    genome, fastest_ms = _least(
        Problem(space, objectives=("latency_ms",), metrics={"latency_ms": latency}), seed
    )
    if fastest_ms > limit_ms:
        raise BudgetNotMetError(
            f"asked for {limit_ms:g} {unit} on '{device}'; the fastest network of '{space.name}' "
            f"takes {fastest_ms:.3g} {unit} there: {space.describe(genome)}",
            hint=f"allow at least --latency-ms {fastest_ms * 1.05:.3g}, or take another --space",
        )


def refuse_unreachable_count(problem: Problem, name: str, most: float, seed: int) -> None:
    """Says what the least value of a counted metric is where that is more than the limit.

    Raises:
        BudgetNotMetError: no network has so little.
    """
    only = Problem(problem.space, objectives=(name,), metrics={name: problem.metrics[name]})
    _, least = _least(only, seed)
    if least > most:
        raise BudgetNotMetError(
            f"asked for at most {most:g} {name}; the least that a network of '{problem.space.name}' has "
            f"is {least:.4g}",
            hint=f"allow at least {least * 1.05:.4g}, or take another --space",
        )


def way_to_the_least(only: Problem, seed: int) -> History:
    """What evolution looks at on its way to the least value of a problem's one objective."""
    strategy = Evolution(only, seed=seed, evaluations=_FASTEST_EVALUATIONS)
    while len(strategy.history) < _FASTEST_EVALUATIONS:
        genomes = strategy.ask()
        if not len(genomes):
            break
        strategy.tell(genomes, only.objective_values(genomes, {}))
    return strategy.history


def _least(only: Problem, seed: int) -> tuple[Genomes, float]:
    """The genome with the least value of a problem's one objective, as evolution finds it, and the value."""
    seen = way_to_the_least(only, seed)
    row = int(np.argmin(seen.objectives[:, 0]))
    return seen.genomes[row], float(seen.objectives[row, 0])
