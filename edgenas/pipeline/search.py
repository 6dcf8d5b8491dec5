"""``edgenas search``: the best network under a hard limit, confirmed by measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from edgenas.errors import BudgetNotMetError, UsageError
from edgenas.files import write_atomically
from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest, resolved
from edgenas.pipeline.search_best import measured_best
from edgenas.pipeline.search_candidates import Candidates
from edgenas.pipeline.search_folder import DEFAULT_STRATEGY
from edgenas.pipeline.search_prepared import PreparedSearch, prepared
from edgenas.pipeline.search_record import RECORD, search_record
from edgenas.pipeline.search_request import SearchRequest
from edgenas.pipeline.workers import Workers, connected_workers
from edgenas.progress import warn
from edgenas.records import Candidate, SearchResult
from edgenas.search.strategies import get_strategy
from edgenas.workspace import Workspace


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
    counted = {"size_mb": size_mb, "memory_mb": memory_mb, "macs": macs, "parameters": parameters}
    asked = SearchRequest(
        latency_ms=tuple(latency_ms), device=tuple(device), space=space, strategy=strategy,
        accuracy=accuracy, checkpoint=checkpoint, data=data, proxy=proxy, objective=tuple(objective),
        counted=counted, weights=dict(weight), shrink=shrink, pressure=pressure, evaluations=evaluations,
        threads=threads, seed=seed, asked_folder=folder, workers=workers,
        hyperparameters=hyperparameters, workspace=workspace or Workspace(),
    )  # fmt: skip
    asked.refuse_what_does_not_fit()
    get_strategy(strategy)
    with connected_workers(workers) as connected:
        return _finished(prepared(asked, _scoring(asked, connected)), started)


def _scoring(asked: SearchRequest, workers: Workers) -> Scoring:
    """The accuracy source, ready to score."""
    factory, detail = resolved(asked.source, asked.checkpoint)
    scoring = factory(
        ScoringRequest(
            space=asked.space, data=asked.data, checkpoint=asked.checkpoint, detail=detail, seed=asked.seed,
            folder=asked.folder, workspace=asked.workspace, workers=workers,
        )
    )  # fmt: skip
    _check_workers(asked.workers, scoring, asked.hyperparameters)
    return scoring


def _finished(search: PreparedSearch, started: float) -> SearchResult:
    """Runs the loop on predictions, measures finalists and says which one is best."""
    candidates, interrupted = Candidates(search), False
    try:
        search.loop.run(lambda: _kept(search, candidates, None, started))
    except KeyboardInterrupt:
        interrupted = True
        warn("stopped: this is the front so far; the same command goes on from here")
    best = measured_best(search.loop.history, candidates)
    record = _kept(search, candidates, best, started, interrupted=interrupted)
    if best is None:
        raise BudgetNotMetError(
            f"none of the {candidates.measured} finalists kept {search.asked.said_limits()} when measured",
            hint="allow more time, or measure the table again: edgenas profile",
            result=record,
        )
    return record


def _kept(
    search: PreparedSearch,
    candidates: Candidates,
    best: Candidate | None,
    started: float,
    *,
    interrupted: bool = False,
) -> SearchResult:
    """The record, which is on disk as well."""
    elapsed_s = time.monotonic() - started
    record = search_record(search, candidates, best, elapsed_s=elapsed_s, interrupted=interrupted)
    write_atomically(search.asked.folder / RECORD, record.to_json().encode())
    return record


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
