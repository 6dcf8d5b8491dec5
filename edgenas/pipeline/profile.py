"""Measures kernels and networks on a device into its latency table."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgenas.device_profiles import load_profile
from edgenas.errors import UsageError
from edgenas.latency_tables.table import ENOUGH, LatencyTable
from edgenas.measuring import connect
from edgenas.pipeline.neighbours import Neighbours
from edgenas.pipeline.profile_measuring import Measuring
from edgenas.pipeline.profile_plan import (
    PlannedNetwork,
    SpaceNetwork,
    Target,
    interleaved,
    plan_by_default,
    plan_kernels,
    plan_models,
    plan_space,
)
from edgenas.pipeline.profile_result import profile_result
from edgenas.pipeline.transferred_space import most_telling
from edgenas.records import Precision, ProfileResult
from edgenas.search_spaces import CLASSES, SearchSpace, get_space
from edgenas.workspace import Workspace

DEFAULT_SPACES = ("dense-32px", "mobilenetv3-32px", "residual-32px")
DEFAULT_LIMIT_S = 600.0


def profile(
    *,
    device: str | None = None,
    space: Sequence[str] = (),
    model: Sequence[str | os.PathLike[str]] = (),
    precision: Sequence[Precision] = ("fp32", "int8"),
    time_limit_s: float | None = None,
    threads: int | None = None,
    classes: int | None = None,
    seed: int = 0,
    workspace: Workspace | None = None,
) -> ProfileResult:
    """Measures what is not in the table yet; killed at any moment it goes on where it stopped.

    Args:
        device: the device; the workspace's when None.
        space: search spaces to cover. Without spaces and models the default spaces are measured.
        model: ONNX files to measure as they are.
        precision: which precisions of the spaces to measure.
        time_limit_s: stops measuring after this long; what was measured counts. When None, a profile
            without spaces and models stops after ten minutes, and everything else when it is done.
        threads: threads to run with; the device's own number when None.
        classes: outputs of the spaces' networks; ten when None.
        seed: decides which networks of a space are measured.
        workspace: where tables and device profiles are; the current folder when None.

    Raises:
        DeviceUnreachableError: the device does not answer.
        ModelError: a model cannot be measured.
        TableError: the table is damaged, from a newer version, or its disk is full.
    """
    started = time.monotonic()
    workspace = workspace or Workspace()
    device = workspace.device_or_default(device)
    if time_limit_s is not None and time_limit_s <= 0:
        raise UsageError(f"a time limit of {time_limit_s} s was given; it must be above 0")
    device_profile = load_profile(device, workspace)
    spaces = [get_space(name, classes=classes or CLASSES) for name in space]
    models = plan_models([Path(path) for path in model])
    with (
        connect(device_profile) as agent,
        LatencyTable.open(workspace.table_path(device), create=True, device=device) as table,
    ):
        target = Target.of(agent.environment, device_profile.int8_scheme)
        plan = make_plan(spaces, models, tuple(dict.fromkeys(precision)), target, seed)
        table.begin_run(f"profile {device} {' '.join([*space, *map(str, model)])}".strip())
        measuring = Measuring(agent, table, threads or agent.threads, None, np.random.default_rng(seed))
        neighbours = Neighbours(
            workspace,
            table.path,
            fingerprint=measuring.fingerprint,
            threads=measuring.threads,
            runtime=agent.environment.runtime,
        )
        if time_limit_s is not None and space and table.summary().networks < ENOUGH:
            plan = telling_first(plan, neighbours, np.random.default_rng(seed))
        limit_s = time_limit_s or (None if space or model else DEFAULT_LIMIT_S)
        if limit_s is not None:
            measuring.end = time.monotonic() + limit_s  # from here on: reading other tables is no measuring
        measuring.measure(plan)
        return profile_result(measuring, plan, neighbours, elapsed_s=time.monotonic() - started)


def telling_first(
    plan: list[PlannedNetwork], neighbours: Neighbours, rng: np.random.Generator
) -> list[PlannedNetwork]:
    """The plan with those networks first that tell most beside what other tables know.

    A time limit may end it after them, and then they serve best. Without donors the plan stays as it is.
    """
    cells: dict[tuple[str, str], list[SpaceNetwork]] = defaultdict(list)
    for network in plan:
        if isinstance(network, SpaceNetwork) and network.role == "fit":
            cells[network.cell].append(network)
    first: list[list[PlannedNetwork]] = []
    for some in cells.values():
        genomes = np.array([one.genome for one in some])
        first.append([some[i] for i in most_telling(some[0].origin, genomes, neighbours.donors, rng)])
    chosen = interleaved(first)
    moved = {one.recipe() for one in chosen}
    return [*chosen, *(one for one in plan if one.recipe() not in moved)]


def make_plan(
    spaces: Sequence[SearchSpace],
    models: list[PlannedNetwork],
    precisions: tuple[Precision, ...],
    target: Target,
    seed: int,
) -> list[PlannedNetwork]:
    """Everything to measure: what was asked for, or common kernels and the default spaces."""
    by_default = not spaces and not models
    covered = [get_space(name) for name in DEFAULT_SPACES] if by_default else spaces
    plans = [plan_space(space, precision, target, seed=seed) for space in covered for precision in precisions]
    if by_default:
        return plan_by_default(plan_kernels(precisions, target, seed=seed), plans)
    return interleaved([*plans, *([models] if models else [])])
