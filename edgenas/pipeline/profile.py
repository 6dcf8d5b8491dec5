"""Measures kernels and networks on a device into its latency table."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from edgenas.device_profiles import load_profile
from edgenas.errors import MeasurementError, UsageError
from edgenas.latency_tables.donors import ENOUGH
from edgenas.latency_tables.evaluation import error_of, held_out_error, noise_floor
from edgenas.latency_tables.observations import MeasuredNetwork, Observations, observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.rows import decided
from edgenas.latency_tables.saved_predictor import fitted
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import Agent, connect
from edgenas.pipeline.neighbours import Neighbours
from edgenas.pipeline.profile_models import ModelBuilder
from edgenas.pipeline.profile_plan import (
    PlannedNetwork,
    SpaceNetwork,
    Target,
    batches,
    interleaved,
    plan_by_default,
    plan_kernels,
    plan_models,
    plan_space,
)
from edgenas.pipeline.transferred_space import most_telling, transferred_space
from edgenas.progress import track, warn
from edgenas.records import NetworkLatency, Precision, ProfileCell, ProfileResult
from edgenas.search_spaces import CLASSES, SearchSpace, get_space
from edgenas.workspace import Workspace

DEFAULT_SPACES = ("dense-32px", "mobilenetv3-32px", "residual-32px")

_PASSES = 2  # every network is measured in two batches far apart in time: drift shows, and averages out
_VIRTUAL_PASSES = 1  # a clock that counts instructions does not drift
_REPEATED, _REPEATABLE = 60, 0.012  # networks, and what nine in ten passes differ by, that end the second
_DISTURBED = 0.03  # passes that differ by more are followed by another one
_BATCH = 10
_TRACE_RUNS, _FEWEST_TRACE_RUNS, _TRACE_MS = 40, 10, 400.0  # a slow network is not traced so often
DEFAULT_LIMIT_S = 600.0
_ROUNDS = {"min_rounds": 6, "max_rounds": 20}


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
        return _result(measuring, plan, neighbours, elapsed_s=time.monotonic() - started)


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


@dataclass
class Measuring:
    """Measures plans into a table and counts. ``end`` is when to stop, by the monotonic clock."""

    agent: Agent
    table: LatencyTable
    threads: int
    end: float | None
    rng: np.random.Generator
    measured: int = 0
    reused: int = 0
    device_seconds: float = 0.0
    _sha_by_recipe: dict[str, str] = field(default_factory=dict)
    _passes: set[tuple[str, int]] = field(default_factory=set)
    _trace_runs_of: dict[str, int] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    _latency_ms: dict[tuple[str, int], float] = field(default_factory=dict)

    @property
    def passes(self) -> int:
        """In how many batches each network is measured."""
        return _VIRTUAL_PASSES if self.agent.profile.virtual else _PASSES

    @property
    def fingerprint(self) -> str:
        """What the latencies of this run belong to."""
        return self.agent.environment.fingerprint()

    def measure(self, plan: Sequence[PlannedNetwork]) -> None:
        """Measures what the table does not have, network by network, pass after pass."""
        self._recall()
        self.reused = sum((sha, 0) in self._latency_ms for sha in self._known(plan))
        total = len(plan) * self.passes
        with (
            track(f"Measuring on {self.agent.profile.id}", total) as task,
            tempfile.TemporaryDirectory(prefix="edgenas-") as folder,
            ModelBuilder(Path(folder), elsewhere=self.agent.profile.connection == "ssh") as builder,
        ):
            for number in range(self.passes + 1):
                chosen = batches(self._order(plan, number), _BATCH)
                for batch, following in pairwise([*chosen, ()]):
                    if self._time_is_up():
                        warn("the time limit is reached; the same command goes on from here")
                        return
                    if number == 1 < self.passes and self._repeats(plan):
                        break
                    self._measure_batch(batch, number, builder, following)
                    task.advance(len(batch), note=batch[-1].name)

    def _order(self, plan: Sequence[PlannedNetwork], number: int) -> list[PlannedNetwork]:
        """The networks of a pass: as planned, then those that judge first, then those in doubt."""
        if number == 0:
            return list(plan)
        order = [plan[index] for index in self.rng.permutation(len(plan))]
        if number == self.passes:
            return [network for network in order if self._disagrees(network)]
        return sorted(order, key=lambda network: network.role != "held-out")

    def _repeats(self, plan: Sequence[PlannedNetwork]) -> bool:
        """Whether the device repeats itself so well that a second pass tells nothing new."""
        twice = [
            sha for sha in self._known(plan) if (sha, 0) in self._latency_ms and (sha, 1) in self._latency_ms
        ]
        ratios = [self._latency_ms[sha, 0] / self._latency_ms[sha, 1] - 1.0 for sha in twice]
        return len(ratios) >= _REPEATED and float(np.quantile(np.abs(ratios), 0.9)) < _REPEATABLE

    def _recall(self) -> None:
        """Reads what was measured before in this very environment."""
        self._sha_by_recipe = {
            str(row.facts["recipe"]): sha
            for sha, row in self.table.networks().items()
            if "recipe" in row.facts
        }
        for row in decided(self.table.latencies(fingerprint=self.fingerprint, threads=self.threads)):
            self._note(row.measured(), row.pass_number)
        traces = self.table.traces(fingerprint=self.fingerprint, threads=self.threads)
        for trace in sorted(traces, key=lambda trace: trace.runs):
            self._trace_runs_of[trace.model_sha256] = trace.runs

    def _known(self, plan: Sequence[PlannedNetwork]) -> list[str]:
        """The models of those networks of the plan that the table has seen."""
        recipes = {network.recipe() for network in plan}
        return [self._sha_by_recipe[recipe] for recipe in recipes & self._sha_by_recipe.keys()]

    def failed(self, plan: Sequence[PlannedNetwork]) -> int:
        """How many networks of the plan have no latency, though they were tried, now or before."""
        return sum(map(self._has_failed, self._known(plan)))

    def _has_failed(self, sha: str) -> bool:
        return sha in self._failed and not any((sha, n) in self._latency_ms for n in range(self.passes + 1))

    def _disagrees(self, network: PlannedNetwork) -> bool:
        """Whether the passes differ so much that the device was disturbed in one of them."""
        sha = self._sha_by_recipe.get(network.recipe(), "")
        found = [self._latency_ms.get((sha, number), 0.0) for number in range(self.passes)]
        return min(found) > 0 and max(found) > (1.0 + _DISTURBED) * min(found)

    def _time_is_up(self) -> bool:
        return self.end is not None and time.monotonic() > self.end

    def _measure_batch(
        self,
        batch: Sequence[PlannedNetwork],
        number: int,
        builder: ModelBuilder,
        following: Sequence[PlannedNetwork],
    ) -> None:
        waiting = self._ready([network for network in batch if self._is_due(network, number)], builder)
        builder.begin(network for network in following if network.recipe() not in self._sha_by_recipe)
        started = time.monotonic()
        environment = self.agent.refresh_environment() if waiting else self.agent.environment
        batch_id = uuid.uuid4().hex[:12]
        untimed = [sha for sha in waiting if (sha, number) not in self._passes]
        for latency in self.agent.compare(untimed, threads=self.threads, **_ROUNDS) if untimed else ():
            self.table.add_latency(latency, environment, pass_number=number, batch_id=batch_id)
            self._count(latency, number)
        for sha, network in waiting.items():
            self._trace(sha, network)
        self.device_seconds += time.monotonic() - started

    def _is_due(self, network: PlannedNetwork, number: int) -> bool:
        sha = self._sha_by_recipe.get(network.recipe())
        return sha is None or (sha, number) not in self._passes or self._lacks_trace(sha, network)

    def _lacks_trace(self, sha: str, network: PlannedNetwork) -> bool:
        """Whether to trace a model; one that cannot be run would only fail again.

        A single run, such as a prediction's, tells a model's structure and no times.
        """
        needed = 1 if network.role == "held-out" else 2
        return self._trace_runs_of.get(sha, 0) < needed and not self._has_failed(sha)

    def _ready(self, due: Sequence[PlannedNetwork], builder: ModelBuilder) -> dict[str, PlannedNetwork]:
        """The networks by the hash of their model, on the device; only what it lacks is built again."""
        known = {network.recipe(): self._sha_by_recipe.get(network.recipe(), "") for network in due}
        there = self.agent.present([sha for sha in known.values() if sha])
        self._ship([network for network in due if known[network.recipe()] not in there], builder)
        return {self._sha_by_recipe[network.recipe()]: network for network in due}

    def _ship(self, networks: Sequence[PlannedNetwork], builder: ModelBuilder) -> None:
        """Puts models on the device and notes in the table what they are."""
        built = [builder.built(network) for network in networks]
        shas = self.agent.ship_all([one.path for one in built])
        for sha, one, network in zip(shas, built, networks, strict=True):
            one.path.unlink(missing_ok=True)
            self.table.add_network(one.row)
            self._sha_by_recipe[network.recipe()] = sha

    def _count(self, latency: NetworkLatency, number: int) -> None:
        self._note(latency, number)
        if latency.statistics is not None and number == 0:
            self.measured += 1

    def _note(self, latency: NetworkLatency, number: int) -> None:
        self._passes.add((latency.model_sha256, number))
        if latency.statistics is None:
            self._failed.add(latency.model_sha256)
        else:
            self._latency_ms[latency.model_sha256, number] = latency.statistics.latency_ms

    def _trace_runs(self, sha: str) -> int:
        latency_ms = self._latency_ms.get((sha, 0), 0.0)
        return max(_FEWEST_TRACE_RUNS, min(_TRACE_RUNS, int(_TRACE_MS / max(latency_ms, 1.0))))

    def _trace(self, sha: str, network: PlannedNetwork) -> None:
        """Times the kernels in place; of a held-out network only its structure is looked at."""
        if not self._lacks_trace(sha, network):
            return
        runs = 1 if network.role == "held-out" else self._trace_runs(sha)
        try:
            trace = self.agent.trace(sha, threads=self.threads, runs=runs)
        except MeasurementError as error:
            warn(f"{network.name} cannot be traced: {error.reason or error.message}")
            return
        self.table.add_trace(trace, self.agent.environment)
        self._trace_runs_of[sha] = runs


def _result(
    measuring: Measuring,
    plan: Sequence[PlannedNetwork],
    neighbours: Neighbours,
    *,
    elapsed_s: float,
) -> ProfileResult:
    table, agent = measuring.table, measuring.agent
    observations = observe(table, threads=measuring.threads, fingerprint=measuring.fingerprint)
    predictor = fitted(table, threads=measuring.threads, fingerprint=measuring.fingerprint)
    cells = list(dict.fromkeys(network.cell for network in plan))
    spaces = {network.space: network.origin for network in plan if isinstance(network, SpaceNetwork)}
    planned = {network.cell for network in plan}
    shown = [one for one in observations.networks if (one.network.space, one.network.precision) in planned]
    return ProfileResult(
        device=table.device,
        table=str(table.path),
        environment=agent.environment,
        threads=measuring.threads,
        measured_networks=measuring.measured,
        reused_networks=measuring.reused,
        failed_networks=measuring.failed(plan),
        device_seconds=measuring.device_seconds,
        elapsed_s=elapsed_s,
        noise_floor=noise_floor(shown),
        cells=tuple(
            _helped(_cell(space, precision, observations, predictor), spaces, observations, neighbours)
            for space, precision in cells
        ),
    )


def _cell(space: str, precision: str, observations: Observations, predictor: LatencyPredictor) -> ProfileCell:
    networks = [
        one
        for one in observations.networks
        if one.network.space == space and one.network.precision == precision
    ]
    held_out = [one for one in networks if one.network.role == "held-out"]
    return ProfileCell(
        space=space,
        precision=precision,
        threads=observations.threads,
        networks=len(networks),
        kernels=len({key for network in networks for key in network.kernels}),
        coverage=_coverage(held_out or networks, predictor),
        error=held_out_error(predictor, held_out),
    )


def _helped(
    cell: ProfileCell,
    spaces: Mapping[str, SearchSpace],
    observations: Observations,
    neighbours: Neighbours,
) -> ProfileCell:
    """The cell as other tables make it where few of its networks were measured."""
    space = spaces.get(cell.space)
    if space is None:
        return cell
    found = transferred_space(space, observations, neighbours, cell.precision)
    if found is None or not found.transfer.used:
        return replace(cell, transfer=found.transfer if found is not None else None)
    held_out = [
        one
        for one in observations.with_role("held-out")
        if (one.network.space, one.network.precision) == (cell.space, cell.precision)
    ]
    if not held_out:
        return replace(cell, transfer=found.transfer, error=None)
    genomes = np.array([one.network.genome for one in held_out])
    error = error_of(held_out, found.latency_ms(genomes), found.interval_ms(genomes))
    return replace(cell, transfer=found.transfer, error=error)


def _coverage(networks: Sequence[MeasuredNetwork], predictor: LatencyPredictor) -> float:
    """Share of the networks' predicted time that comes from measured kernels."""
    shares = [estimate.interpolated_share for _, estimate in predictor.estimates(networks)]
    return 1.0 - float(np.mean(shares)) if shares else 0.0
