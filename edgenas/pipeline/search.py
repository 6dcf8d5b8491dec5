"""``edgenas search``: the best network under a hard limit, confirmed by measurement."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.errors import BudgetNotMetError, UsageError
from edgenas.files import write_atomically
from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest, resolved, source_asked_for
from edgenas.pipeline.finalists import measure_candidates
from edgenas.pipeline.latency import SpaceLatency, compiled_latency, refuse_foreign_table
from edgenas.pipeline.search_folder import DEFAULT_STRATEGY, default_folder_name, next_steps
from edgenas.pipeline.search_problem import COUNTED, build_problem
from edgenas.pipeline.shrunk import shrunk
from edgenas.pipeline.tuning import TuningLoop
from edgenas.pipeline.workers import connected_workers
from edgenas.progress import warn
from edgenas.records import Candidate, SearchResult
from edgenas.search.evolution import Evolution
from edgenas.search.hypervolume_curve import hypervolume_over_evaluations
from edgenas.search.loop import SearchLoop
from edgenas.search.pareto import front
from edgenas.search.problem import Problem
from edgenas.search.schedule import PressureSchedule
from edgenas.search.strategies import get_strategy
from edgenas.search_spaces import Genomes, SearchSpace
from edgenas.search_spaces import macs as count_macs
from edgenas.search_spaces import parameters as count_parameters
from edgenas.units import unit_of
from edgenas.workspace import Workspace

_FINALISTS, _MOST_FINALISTS = 6, 24
_FASTEST_EVALUATIONS = 6000


def search(
    *,
    latency_ms: Sequence[float],
    device: Sequence[str] = (),
    space: str | None = None,
    strategy: str = DEFAULT_STRATEGY,
    accuracy: str = "auto",
    checkpoint: Path | None = None,
    data: str | None = None,
    proxy: str | None = None,
    objective: Sequence[str] = (),
    size_mb: float | None = None,
    memory_mb: float | None = None,
    macs: float | None = None,
    parameters: float | None = None,
    weight: Sequence[tuple[str, float]] = (),
    shrink: bool = False,
    pressure: str = "constant",
    evaluations: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
    workers: str | None = None,
    hyperparameters: bool = False,
    workspace: Workspace | None = None,
) -> SearchResult:
    """Searches candidates whose predicted latency keeps every limit, then measures the best of them.

    Args:
        latency_ms: hard limits; one for all devices, or one each in their order.
        device: devices; the workspace's default when empty.
        space: the search space; the supernet's, else the small-image one, when None.
        strategy: one of ``edgenas.search.strategies.strategy_names()``.
        accuracy: one of ``edgenas.pipeline.accuracy_sources.source_names()``, with a colon and a
            detail where the source takes one, or ``auto``: the supernet where one is given, else the
            proxy, which needs nothing.
        checkpoint: a supernet that ``train`` left.
        data: what the supernet was trained on.
        proxy: short for ``accuracy="proxy:NAME"``.
        objective: optimised beside the accuracy: ``latency_ms`` (every device), ``latency_ms:ID``,
            ``size_mb``, ``memory_mb``, ``macs``, ``parameters``. The front is over all of them.
        size_mb: hard limit on the weights in MB.
        memory_mb: hard limit on weights and the largest op's inputs and outputs in MB; the runtime's
            own memory is not in it.
        macs: hard limit on multiply-accumulates.
        parameters: hard limit on weights and biases, as a number.
        weight: (metric, lambda): 1 - accuracy + sum of lambda x metric is minimised, within the limits.
        shrink: first drop the options that the tables show to be slower than a more capable one.
        pressure: one of ``edgenas.search.schedule.SCHEDULES``.
        evaluations: how many candidates are scored.
        threads: threads that latencies are for; what the table has most of when None.
        seed: of every proposal.
        folder: where the search's state is kept; when None under ``runs/``, in a folder of its own for every
            space, accuracy source, device, limit, strategy, objective and seed.
        workers: a number of Ray workers on this machine, or the address of a Ray cluster; candidates
            are trained and scored there with the same results. This process when None.
        hyperparameters: with the accuracy source ``train``: learning rate, weight decay, batch size,
            label smoothing and augmentation are searched with the architecture, in one Optuna study
            (its TPE takes the place of ``strategy``) that goes on where it was stopped.
        workspace: where tables are; the current folder when None.

    Raises:
        BudgetNotMetError: no network of the space keeps the limits; ``result`` holds the fastest.
        TableError: a device has no table.
        UsageError: limits and devices do not fit, or a supernet is needed and not given.
    """
    started = time.monotonic()
    workspace = workspace or Workspace()
    devices = tuple(device) or (workspace.device_or_default(None),)
    for one in devices:
        refuse_foreign_table(one, workspace)
    source = source_asked_for(accuracy if proxy is None else _proxy(accuracy, proxy), checkpoint)
    default = default_folder_name(
        space=space, source=source, checkpoint=checkpoint, devices=devices, latency_ms=latency_ms,
        strategy=strategy, objectives=objective, hyperparameters=hyperparameters, seed=seed,
    )  # fmt: skip
    settings = _Settings(
        limits_ms=_limits(tuple(latency_ms), devices),
        profiles=tuple(load_profile(one, workspace) for one in devices),
        strategy=strategy,
        evaluations=evaluations,
        threads=threads,
        seed=seed,
        objectives=tuple(objective),
        limits={
            name: most
            for name, most in (
                ("size_mb", size_mb),
                ("memory_mb", memory_mb),
                ("macs", macs),
                ("parameters", parameters),
            )
            if most is not None
        },
        weights=dict(weight),
        shrink=shrink,
        pressure=pressure,
        folder=folder or workspace.runs / default,
        by_itself=folder is None,
        space=space,
        data=data,
        hyperparameters=hyperparameters,
        workspace=workspace,
    )
    get_strategy(strategy)
    factory, detail = resolved(source, checkpoint)
    with connected_workers(workers) as connected:
        scoring = factory(
            ScoringRequest(
                space=space,
                data=data,
                checkpoint=checkpoint,
                detail=detail,
                seed=seed,
                folder=settings.folder,
                workspace=workspace,
                workers=connected,
            )
        )
        _check_workers(workers, scoring, hyperparameters)
        latencies = settings.latencies(scoring.space)
        if shrink:
            scoring = shrunk(scoring, latencies)
            latencies = settings.latencies(scoring.space)
        return _Search(settings, scoring, latencies).result(started)


@dataclass(frozen=True)
class _Settings:
    limits_ms: tuple[float, ...]
    profiles: tuple[DeviceProfile, ...]
    strategy: str
    evaluations: int | None
    threads: int | None
    seed: int
    objectives: tuple[str, ...]
    limits: dict[str, float]
    weights: dict[str, float]
    shrink: bool
    pressure: str
    folder: Path
    by_itself: bool
    space: str | None
    data: str | None
    hyperparameters: bool
    workspace: Workspace

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(profile.id for profile in self.profiles)

    def unit(self, device: str) -> str:
        """What latencies on a device are called."""
        return unit_of(virtual=device in self.virtual_devices)

    @property
    def virtual_devices(self) -> tuple[str, ...]:
        return tuple(profile.id for profile in self.profiles if profile.virtual)

    def latencies(self, space: SearchSpace) -> dict[str, SpaceLatency]:
        """Predicted latencies of a space's genomes on each device."""
        return {
            one: compiled_latency(space, one, threads=self.threads, workspace=self.workspace)
            for one in self.devices
        }


class _Search:
    """One search: the loop on predictions, then the finalists on the devices."""

    def __init__(self, settings: _Settings, scoring: Scoring, latencies: dict[str, SpaceLatency]) -> None:
        self.settings, self.latencies = settings, latencies
        self.space, self.accuracy, self.scoring = scoring.space, scoring.source, scoring
        problem = build_problem(
            self.space,
            latencies,
            limits_ms=settings.limits_ms,
            objectives=settings.objectives,
            limits=settings.limits,
            weights=settings.weights,
            missing=scoring.missing,
        )
        evaluations = settings.evaluations or scoring.evaluations
        for one, limit_ms in zip(settings.devices, settings.limits_ms, strict=True):
            _refuse_unreachable(
                self.space, latencies[one], one, limit_ms, unit=settings.unit(one), seed=settings.seed
            )
        for name, most in settings.limits.items():
            _refuse_unreachable_count(problem, name, most, settings.seed)
        self.problem = problem
        self.loop = (
            self._tuning_loop(problem, evaluations)
            if settings.hyperparameters
            else self._search_loop(problem, evaluations)
        )
        self._interrupted = False
        self._measured: dict[bytes, dict[str, float]] = {}
        self._confirmed: dict[bytes, float] = {}
        self._described_rows: dict[tuple[int, bool], Candidate] = {}

    def _search_loop(self, problem: Problem, evaluations: int) -> SearchLoop:
        settings = self.settings
        return SearchLoop(
            get_strategy(settings.strategy)(problem, seed=settings.seed, evaluations=evaluations),
            self.accuracy,
            evaluations=evaluations,
            path=settings.folder / "state.json",
            identity={
                "scores": self.scoring.identity, "seed": settings.seed, "table": self._table_identity()
            },
            pressure=PressureSchedule(settings.pressure, problem),
        )  # fmt: skip

    def _tuning_loop(self, problem: Problem, evaluations: int) -> TuningLoop:
        from edgenas.training.from_scratch import TrainingAccuracy

        if not isinstance(self.accuracy, TrainingAccuracy):
            raise UsageError(
                f"hyper-parameters are searched by training, accuracies come from '{self.accuracy.name}'",
                hint="add --accuracy train",
            )
        settings = self.settings
        if len(problem.objectives) > 1 or problem.weights or settings.pressure != "constant":
            raise UsageError(
                "--hyperparameters searches for accuracy within the limits alone",
                hint="leave out --objective, --weight and --pressure",
            )
        if settings.strategy != DEFAULT_STRATEGY:
            raise UsageError(
                f"hyper-parameters are searched by Optuna's TPE, not by '{settings.strategy}'",
                hint="leave --strategy out",
            )
        limits = " ".join(f"{limit:g}" for limit in settings.limits_ms)
        return TuningLoop(
            problem,
            self.accuracy,
            evaluations=evaluations,
            folder=settings.folder,
            seed=settings.seed,
            identity=" ".join(
                (self.space.name, self.scoring.identity, self._table_identity(), limits, str(settings.limits))
            ),
        )

    def result(self, started: float) -> SearchResult:
        """Runs the loop, measures finalists and says which one is best."""
        try:
            self.loop.run(lambda: self._save(self._record(None, started)))
        except KeyboardInterrupt:
            self._interrupted = True
            warn("stopped: this is the front so far; the same command goes on from here")
        best = self._measured_best()
        record = self._record(best, started)
        self._save(record)
        if best is None:
            raise BudgetNotMetError(
                f"none of the {len(self._measured)} finalists kept {self._asked()} when measured",
                hint="allow more time, or measure the table again: edgenas profile",
                result=record,
            )
        return record

    def _measured_best(self) -> Candidate | None:
        """The most accurate candidate that keeps every limit by measurement, of equal ones the fastest.

        The most accurate ones are measured side by side; only where all of them miss a limit the
        next ones are. Others that are as accurate as the best and predicted to be faster have their
        chance at last.
        """
        order = self._order()
        for start in range(0, min(len(order), _MOST_FINALISTS), _FINALISTS):
            rows = order[start : start + _FINALISTS]
            best = self._best_of(rows)
            if best is not None:
                rivals = [row for row in order[start + _FINALISTS :] if self._rivals(row, best)]
                return self._best_of([*rows, *rivals[:_FINALISTS]])
        return None

    def _order(self) -> list[int]:
        """Rows within the limits, the most accurate first and of equal ones the fastest by prediction."""
        history = self.loop.history
        kept = np.flatnonzero(history.violations <= 0)
        shares = [self._share(self._candidate(int(row))) for row in kept]
        return [int(row) for row in kept[np.lexsort((shares, history.objectives[kept, 0]))]]

    def _best_of(self, rows: list[int]) -> Candidate | None:
        """The best of ``rows`` by measurement; None where none of them keeps the limits."""
        self._measure([self.loop.history.genomes[row] for row in rows])
        kept = [found for found in map(self._candidate, rows) if found.feasible]
        return min(kept, key=lambda found: (-self._merit(found), self._share(found)), default=None)

    def _share(self, candidate: Candidate) -> float:
        """How much of its scarcest limit a candidate uses, 0..1 where it keeps them all."""
        pairs = zip(candidate.latency_ms.values(), self.settings.limits_ms, strict=True)
        return max(latency / limit for latency, limit in pairs)

    def _rivals(self, row: int, best: Candidate) -> bool:
        candidate = self._candidate(row)
        return self._merit(candidate) >= self._merit(best) and self._share(candidate) < self._share(best)

    def _merit(self, candidate: Candidate) -> float:
        """Accuracy, less lambda x metric in the weighted form."""
        if not self.settings.weights:
            return candidate.accuracy
        genome = self.space.genome_of(candidate.candidate)[None]
        return candidate.accuracy - float(self.problem.penalty(genome)[0])

    def _measure(self, genomes: list[Genomes]) -> None:
        """Latencies of finalists, and accuracies where a dearer source has the last word."""
        settings, confirming = self.settings, self.scoring.confirming
        if confirming is not None:
            accuracies = confirming.score(np.array(genomes))
            self._confirmed |= {g.tobytes(): float(a) for g, a in zip(genomes, accuracies, strict=True)}
        for profile in settings.profiles:
            found = measure_candidates(
                self.space, genomes, profile, threads=settings.threads, workspace=settings.workspace
            )
            for genome, latency_ms in zip(genomes, found, strict=True):
                value = float("inf") if latency_ms is None else latency_ms
                self._measured.setdefault(genome.tobytes(), {})[profile.id] = value

    def _record(self, best: Candidate | None, started: float) -> SearchResult:
        settings, history = self.settings, self.loop.history
        evaluated = tuple(self._candidate(row) for row in range(len(history)))
        objectives = np.array([[-c.accuracy, *c.latency_ms.values()] for c in evaluated])
        extra = [column for column, name in enumerate(self.problem.objectives) if name in COUNTED]
        if extra and evaluated:
            objectives = np.hstack([objectives, history.objectives[:, extra]])
        chosen = [int(row) for row in front(objectives)] if evaluated else []
        ended = best is not None or self._interrupted
        curve = hypervolume_over_evaluations(objectives, history.violations) if ended else ()
        return SearchResult(
            space=self.space.name,
            devices=settings.devices,
            limits_ms=settings.limits_ms,
            strategy="tpe" if settings.hyperparameters else settings.strategy,
            accuracy_source=self.accuracy.name,
            accuracy_rmse=self.scoring.rmse,
            seed=settings.seed,
            evaluations=len(history),
            elapsed_s=time.monotonic() - started,
            best=best,
            fastest=min(evaluated, key=lambda c: max(c.latency_ms.values())) if evaluated else None,
            front=tuple(sorted((evaluated[row] for row in chosen), key=lambda c: -c.accuracy)),
            evaluated=evaluated,
            path=str(settings.folder / "search.json"),
            interrupted=self._interrupted,
            virtual_devices=settings.virtual_devices,
            objectives=self.problem.objectives,
            limits=settings.limits,
            weights=settings.weights,
            pressure=settings.pressure,
            dropped=self.scoring.dropped,
            hypervolume=curve,
            next_steps=self._next_steps(best) if ended else (),
        )

    def _next_steps(self, best: Candidate | None) -> tuple[str, ...]:
        settings = self.settings
        if not settings.by_itself:
            return ()
        return next_steps(
            settings.folder, found=best is not None, space=settings.space or self.space.name,
            data=settings.data, devices=settings.devices, limits_ms=settings.limits_ms,
        )  # fmt: skip

    def _candidate(self, row: int) -> Candidate:
        genome = self.loop.history.genomes[row]
        key = (row, genome.tobytes() in self._measured)
        if key not in self._described_rows:  # every generation shows all of them again
            trained_with = self.loop.hyperparameters(row) if isinstance(self.loop, TuningLoop) else {}
            self._described_rows[key] = self._described(genome, float(self.loop.scores[row]), trained_with)
        return self._described_rows[key]

    def _described(self, genome: Genomes, accuracy: float, hyperparameters: dict[str, float]) -> Candidate:
        predicted = {one: float(latency(genome[None])[0]) for one, latency in self.latencies.items()}
        measured = self._measured.get(genome.tobytes())
        latency_ms = measured or predicted
        network = self.space.network(genome)
        limits = zip(latency_ms.values(), self.settings.limits_ms, strict=True)
        confirmed = self._confirmed.get(genome.tobytes())
        source = self.accuracy if confirmed is None else self.scoring.confirming
        assert source is not None, "what is confirmed has a source"
        return Candidate(
            candidate=self.space.describe(genome),
            accuracy=accuracy if confirmed is None else confirmed,
            accuracy_source=source.name,
            latency_ms=latency_ms,
            latency_source="measured" if measured else "predicted",
            predicted_ms=predicted,
            macs=count_macs(network),
            parameters=count_parameters(network),
            feasible=all(value <= limit for value, limit in limits) and self._counts_hold(genome),
            hyperparameters=hyperparameters,
            size_mb=float(self.problem.metrics["size_mb"](genome[None])[0]),
            memory_mb=float(self.problem.metrics["memory_mb"](genome[None])[0]),
        )

    def _counts_hold(self, genome: Genomes) -> bool:
        limits = self.settings.limits.items()
        return all(self.problem.metrics[name](genome[None])[0] <= most for name, most in limits)

    def _save(self, record: SearchResult) -> None:
        write_atomically(self.settings.folder / "search.json", record.to_json().encode())

    def _table_identity(self) -> str:
        """What the predictions say of fixed candidates: it changes when the table does."""
        sampled = self.space.sample(np.random.default_rng(0), 64)
        told = b"".join(np.round(latency(sampled), 9).tobytes() for latency in self.latencies.values())
        return hashlib.sha256(told).hexdigest()[:16]

    def _asked(self) -> str:
        pairs = zip(self.settings.limits_ms, self.settings.devices, strict=True)
        return ", ".join(f"{limit:g} {self.settings.unit(one)} on '{one}'" for limit, one in pairs)


def _check_workers(workers: str | None, scoring: Scoring, hyperparameters: bool) -> None:
    """Refuses workers that would have nothing to do."""
    if workers is None or (scoring.distributed and not hyperparameters):
        return
    why = (
        "a study of hyper-parameters trains one candidate after the other"
        if hyperparameters
        else f"the accuracy source '{scoring.source.name}' scores in this process"
    )
    raise UsageError(f"--workers {workers} would have nothing to do: {why}", hint="leave --workers out")


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
    _refuse_unreachable(space, latency, device, latency_ms, unit=unit, seed=seed)


def _refuse_unreachable(
    space: SearchSpace, latency: SpaceLatency, device: str, limit_ms: float, *, unit: str, seed: int
) -> None:
    genome, fastest_ms = _fastest(space, latency, seed)
    if fastest_ms > limit_ms:
        raise BudgetNotMetError(
            f"asked for {limit_ms:g} {unit} on '{device}'; the fastest network of '{space.name}' "
            f"takes {fastest_ms:.3g} {unit} there: {space.describe(genome)}",
            hint=f"allow at least --latency-ms {fastest_ms * 1.05:.3g}, or take another --space",
        )


def _fastest(space: SearchSpace, latency: SpaceLatency, seed: int) -> tuple[Genomes, float]:
    """The fastest genome that evolution on the table alone finds, and its latency in ms."""
    return _least(Problem(space, objectives=("latency_ms",), metrics={"latency_ms": latency}), seed)


def _least(only: Problem, seed: int) -> tuple[Genomes, float]:
    """The genome with the least value of a problem's one objective, and the value."""
    strategy = Evolution(only, seed=seed, evaluations=_FASTEST_EVALUATIONS)
    while len(strategy.history) < _FASTEST_EVALUATIONS:
        genomes = strategy.ask()
        if not len(genomes):
            break
        strategy.tell(genomes, only.objective_values(genomes, {}))
    row = int(np.argmin(strategy.history.objectives[:, 0]))
    return strategy.history.genomes[row], float(strategy.history.objectives[row, 0])


def _refuse_unreachable_count(problem: Problem, name: str, most: float, seed: int) -> None:
    only = Problem(problem.space, objectives=(name,), metrics={name: problem.metrics[name]})
    _, least = _least(only, seed)
    if least > most:
        raise BudgetNotMetError(
            f"asked for at most {most:g} {name}; the least that a network of '{problem.space.name}' has "
            f"is {least:.4g}",
            hint=f"allow at least {least * 1.05:.4g}, or take another --space",
        )


def _proxy(accuracy: str, proxy: str) -> str:
    if accuracy not in {"auto", "proxy"}:
        raise UsageError(
            f"--proxy {proxy} and --accuracy {accuracy} were both given", hint="leave one of them out"
        )
    return f"proxy:{proxy}"


def _limits(latency_ms: tuple[float, ...], devices: tuple[str, ...]) -> tuple[float, ...]:
    if len(latency_ms) == 1:
        return latency_ms * len(devices)
    if len(latency_ms) != len(devices):
        raise UsageError(
            f"{len(latency_ms)} latency limits were given for {len(devices)} devices ({', '.join(devices)})",
            hint="give --latency-ms once, or once for each --device",
        )
    return latency_ms
