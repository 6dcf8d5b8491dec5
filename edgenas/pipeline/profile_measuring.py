"""Measures a plan into a latency table, batch by batch and pass after pass."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgenas.errors import MeasurementError
from edgenas.latency_tables.rows import decided, is_slow, usual_pace_ms
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import Agent
from edgenas.pipeline.profile_models import ModelBuilder
from edgenas.pipeline.profile_plan import PlannedNetwork, batches
from edgenas.progress import track, warn
from edgenas.records import NetworkLatency

_PASSES = 2  # every network is measured in two batches far apart in time: drift shows, and averages out
_VIRTUAL_PASSES = 1  # a clock that counts instructions does not drift
_REPEATED, _REPEATABLE = 60, 0.012  # networks, and what nine in ten passes differ by, that end the second
_DISTURBED = 0.03  # passes that differ by more are followed by another one
_DISTURBED_SHARE = 0.1  # of the measurements, each in a third of its rounds or more, is worth a warning
_BATCH = 10
_TRACE_RUNS, _FEWEST_TRACE_RUNS, _TRACE_MS = 40, 10, 400.0  # a slow network is not traced so often
_PATIENCE_S, _TRACE_PATIENCE_S = 5.0, 0.5  # for a batch and a trace, where several threads are slow


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
    timed: int = 0
    disturbed: int = 0
    _sha_by_recipe: dict[str, str] = field(default_factory=dict)
    _passes: set[tuple[str, int]] = field(default_factory=set)
    _trace_runs_of: dict[str, int] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    _latency_ms: dict[tuple[str, int], float] = field(default_factory=dict)
    _pace_ms: dict[tuple[str, int], float] = field(default_factory=dict)
    _paces_now_ms: list[float] = field(default_factory=list)

    @property
    def passes(self) -> int:
        """In how many batches each network is measured."""
        return _VIRTUAL_PASSES if self.agent.profile.virtual else _PASSES

    @property
    def fingerprint(self) -> str:
        """What the latencies of this run belong to."""
        return self.agent.environment.fingerprint()

    @property
    def _usual_ms(self) -> float | None:
        """The usual pace of what the table knows; sorts all of it."""
        return usual_pace_ms(self._pace_ms.values())

    def measure(self, plan: Sequence[PlannedNetwork]) -> None:
        """Measures what the table does not have, network by network, pass after pass."""
        self._recall()
        self.reused = sum((sha, 0) in self._latency_ms for sha in self._known(plan))
        total = len(plan) * self.passes
        try:
            self._measure_passes(plan, total)
        finally:
            self._tell_disturbed()

    def _measure_passes(self, plan: Sequence[PlannedNetwork], total: int) -> None:
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
            usual_ms = self._usual_ms
            return [network for network in order if self._disagrees(network, usual_ms)]
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
        self._forget_slow_networks()
        traces = self.table.traces(fingerprint=self.fingerprint, threads=self.threads)
        for trace in sorted(traces, key=lambda trace: trace.runs):
            self._trace_runs_of[trace.model_sha256] = trace.runs

    def _forget_slow_networks(self) -> None:
        """What was only measured while the device was slow is measured again, as far as there is time."""
        usual_ms = self._usual_ms
        slow = {key: is_slow(self._pace_ms.get(key), usual_ms) for key in self._latency_ms}
        known = {sha for sha, number in slow if not slow[sha, number]}
        for sha, number in slow:
            if sha not in known:
                self._passes.discard((sha, number))

    def _known(self, plan: Sequence[PlannedNetwork]) -> list[str]:
        """The models of those networks of the plan that the table has seen."""
        recipes = {network.recipe() for network in plan}
        return [self._sha_by_recipe[recipe] for recipe in recipes & self._sha_by_recipe.keys()]

    def failed(self, plan: Sequence[PlannedNetwork]) -> int:
        """How many networks of the plan have no latency, though they were tried, now or before."""
        return sum(map(self._has_failed, self._known(plan)))

    def _has_failed(self, sha: str) -> bool:
        return sha in self._failed and not any((sha, n) in self._latency_ms for n in range(self.passes + 1))

    def _disagrees(self, network: PlannedNetwork, usual_ms: float | None) -> bool:
        """Whether the passes differ so much that the device was disturbed in one of them, or it was slow."""
        sha = self._sha_by_recipe.get(network.recipe(), "")
        found = [self._latency_ms.get((sha, number), 0.0) for number in range(self.passes)]
        if any(is_slow(self._pace_ms.get((sha, number)), usual_ms) for number in range(self.passes)):
            return True
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
        for latency in self._compared(untimed):
            self.table.add_latency(latency, environment, pass_number=number, batch_id=batch_id)
            self._count(latency, number)
        for sha, network in waiting.items():
            self._trace(sha, network)
        self.device_seconds += time.monotonic() - started

    def _compared(self, models: list[str]) -> Iterator[NetworkLatency]:
        if models:
            yield from self.agent.compare(
                models, threads=self.threads, min_rounds=6, max_rounds=20,
                patience_s=_PATIENCE_S, known_pace_ms=self._usual_ms,
            )  # fmt: skip

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
        self.agent.ship_all([one.path for one in built], hashes=[one.row.model_sha256 for one in built])
        for one, network in zip(built, networks, strict=True):
            one.path.unlink(missing_ok=True)
            self.table.add_network(one.row)
            self._sha_by_recipe[network.recipe()] = one.row.model_sha256

    def _count(self, latency: NetworkLatency, number: int) -> None:
        self._note(latency, number)
        if latency.statistics is None:
            return
        self.measured += number == 0
        self.timed += 1
        self.disturbed += 2 * latency.disturbed_rounds >= len(latency.statistics.rounds_ms)
        if latency.statistics.pace_ms is not None:
            self._paces_now_ms.append(latency.statistics.pace_ms)

    def _tell_disturbed(self) -> None:
        if self.disturbed > _DISTURBED_SHARE * self.timed:
            warn(
                f"other work on '{self.agent.profile.id}' disturbed {self.disturbed} of {self.timed}"
                " measurements; stop it there, and they are quicker and more exact"
            )
        usual_ms = self._usual_ms
        slow = sum(is_slow(pace_ms, usual_ms) for pace_ms in self._paces_now_ms)
        if slow:
            warn(
                f"in {slow} of {self.timed} measurements the threads on '{self.agent.profile.id}'"
                " worked together more slowly, as where their cores lie far apart; they count only where"
                " nothing else is known, and the same command measures those again"
            )

    def _note(self, latency: NetworkLatency, number: int) -> None:
        self._passes.add((latency.model_sha256, number))
        if latency.statistics is None:
            self._failed.add(latency.model_sha256)
        else:
            self._latency_ms[latency.model_sha256, number] = latency.statistics.latency_ms
            if latency.statistics.pace_ms is not None:
                self._pace_ms[latency.model_sha256, number] = latency.statistics.pace_ms

    def _trace_runs(self, sha: str) -> int:
        latency_ms = self._latency_ms.get((sha, 0), 0.0)
        return max(_FEWEST_TRACE_RUNS, min(_TRACE_RUNS, int(_TRACE_MS / max(latency_ms, 1.0))))

    def _trace(self, sha: str, network: PlannedNetwork) -> None:
        """Times the kernels in place; of a held-out network only its structure is looked at."""
        if not self._lacks_trace(sha, network):
            return
        runs = 1 if network.role == "held-out" else self._trace_runs(sha)
        try:
            trace = self.agent.trace(
                sha, threads=self.threads, runs=runs,
                patience_s=_TRACE_PATIENCE_S, known_pace_ms=self._usual_ms,
            )  # fmt: skip
        except MeasurementError as error:
            warn(f"{network.name} cannot be traced: {error.reason or error.message}")
            return
        self.table.add_trace(trace, self.agent.environment)
        self._trace_runs_of[sha] = runs
